"""Runs that several processes share: one folder, one voice, stopped and resumed together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sincut
from sincut.cli import main
from sincut.compute.processes import Processes
from sincut.config.presets import folder_config
from sincut.data.folders import Folders
from sincut.data.image_folder import FolderImage, ImageFolder
from sincut.errors import SincutError, ToldByAnother
from sincut.models.model_file import load_model
from sincut.runs.folder_subject import FolderSubject
from tests.conftest import TINY

OPTIONS = [
    *(
        f"--set={name}={value}"
        for name, value in TINY.items()
        if name not in ("preset", "device", "precision", "steps")
    ),
    "--preset=draft", "--device=cpu", "--precision=fp32",
]  # fmt: skip
WHOLE = {**TINY, "batch": 2 * TINY["batch"]}


@contextmanager
def together(*words: Any) -> Iterator[subprocess.Popen[str]]:
    """``sincut train`` in two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [sys.executable, *launcher, "-m", "sincut", "train", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


class Patience:
    """Fails where processes make no headway; other work on the machine only makes them later."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.since, self.used = time.monotonic(), 0.0

    def check(self) -> None:
        """Once in a while their processor time must have grown by a hundredth of the clock's."""
        elapsed = time.monotonic() - self.since
        if elapsed > 60:
            used = sum(map(processor_seconds, (self.process.pid, *children(self.process))))
            assert used - self.used > 0.01 * elapsed, "it makes no headway"
            self.since, self.used = time.monotonic(), used

    def output(self) -> tuple[str, str]:
        """What they say until they end."""
        while True:
            try:
                return self.process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                self.check()


def processor_seconds(number: int) -> float:
    """What a process has used so far; nothing where it has ended."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(process: subprocess.Popen[str]) -> list[int]:
    """The numbers of a process's children."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def worker(process: subprocess.Popen[str], rank: int) -> int:
    """The number of the process that has a rank."""
    for child in children(process):
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return child
    raise AssertionError("there is no such process")


def log_of(run: Path) -> list[dict[str, Any]]:
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until a step is logged."""
    patience = Patience(process)
    while not any(line["step"] >= step for line in log_of(run)):
        assert process.poll() is None, process.communicate()
        patience.check()
        time.sleep(0.05)


def told_errors(errors: str) -> list[str]:
    """Ours; torchrun has more to say of processes that end with an error."""
    assert errors.count("Traceback") <= 1  # its own
    return [line for line in errors.splitlines() if line.startswith("Error: ")]


def test_one_run_with_one_voice_and_the_losses_of_the_whole_batch(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with together(*pair, "-o", tmp_path / "run", *OPTIONS, "--steps=3") as process:
        output, errors = Patience(process).output()
    assert process.returncode == 0, errors
    sincut.train(*pair, tmp_path / "alone", **{**WHOLE, "steps": 3})
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(
        p.name for p in (tmp_path / "alone").iterdir()
    )
    lines = output.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith("Report")] == [
        f"sincut {sincut.__version__}", "Note on the batch of a step", "Estimate",
        f"To watch it, open {tmp_path / 'run' / 'index.html'} in a browser.",
        "Trained 3 steps. To translate",
    ]  # fmt: skip
    assert lines[1] == "Note on the batch of a step: 2 for each of 2 processes, 4 in all."
    for ours, theirs in zip(*(map(log_of, (tmp_path / "run", tmp_path / "alone"))), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (record["processes"], record["config"]["batch"]) == (2, 2)
    assert record["sessions"][0]["environment"]["processes"] == 2
    with pytest.raises(SincutError) as caught:
        sincut.train(*pair, tmp_path / "run", resume=True, steps=4)
    assert str(caught.value) == (
        "--resume goes on with the run's own batch, 4 a step in all (2 × 2, processes × batch), "
        "got 2 (1 × 2); try --set batch=4"
    )
    with pytest.raises(SincutError) as caught:
        sincut.train(*pair, tmp_path / "run", resume=True, batch=5, processes=Processes(0, 1, None))
    assert str(caught.value).endswith("got 5 (1 × 5); try --set batch=4")


def test_begun_by_one_resumed_by_two_stopped_together_and_ended_by_one(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """The signal comes to the second process only."""
    run = tmp_path / "run"
    sincut.train(*pair, run, **{**WHOLE, "steps": 4, "schedule": "constant"}, report=False)
    words = ["--resume", "--set=batch=2", "--steps=100000"]
    with together(*pair, "-o", run, *words) as process:
        wait_for(process, run, 6)
        os.kill(worker(process, 1), signal.SIGTERM)
        output, errors = Patience(process).output()
    last = output.splitlines()[-1]
    assert last.startswith("Interrupted after step ")
    again = f"torchrun --nproc-per-node 2 -m sincut train {pair[0]} {pair[1]} -o {run} --resume"
    assert last.endswith(f"To go on: {again}")
    assert not told_errors(errors)
    step = int(last.split()[3])
    assert log_of(run)[-1]["step"] == step
    done = sincut.train(*pair, run, resume=True, batch=4, steps=step + 1, report=False)
    assert (done.step, done.signal) == (step + 1, 0)
    straight = {**WHOLE, "steps": 6, "schedule": "constant"}
    sincut.train(*pair, tmp_path / "straight", **straight, report=False)
    for ours, theirs in zip(log_of(run), log_of(tmp_path / "straight"), strict=False):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-2), ours["step"]


def test_a_lost_process_ends_all_and_the_last_saved_state_is_kept(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with together(*pair, "-o", run, *OPTIONS, "--steps=100000") as process:
        wait_for(process, run, 5)  # saved at 4
        os.kill(worker(process, 1), signal.SIGKILL)
        _, errors = Patience(process).output()
    assert process.returncode != 0
    assert len(told_errors(errors)) == 1, errors
    (ours,) = told_errors(errors)
    assert ours.startswith("Error: one of the 2 processes of this training is gone (")
    assert ours.endswith("); the last saved state is kept; start all of them again, with --resume")
    saved = load_model(run).header["step"]
    assert saved >= 4
    done = sincut.train(*pair, run, resume=True, batch=4, steps=saved + 1, report=False)
    assert done.step == saved + 1
    assert not list(run.glob(".*"))


def test_one_process_of_several_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, said in ((SincutError, "Error: memory ended\n"), (ToldByAnother, "")):

        def train(*_: Any, error: type[SincutError] = error, **__: Any) -> None:
            raise error("memory ended")

        monkeypatch.setattr("sincut.runs.train.train", train)
        result = CliRunner().invoke(main, ["train", "a.png", "b.png", "-o", "run"])
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", said)


def test_epochs_count_the_whole_batch() -> None:
    images = tuple(FolderImage(Path(f"{index}.png"), 300, 300) for index in range(20))
    folders = Folders(*(ImageFolder(Path(name), images) for name in "ab"))
    subject = FolderSubject(folders, folders, {})
    config = folder_config("cut", epochs=3, falling_epochs=1, batch=2)
    assert [subject.with_length(config, count).steps for count in (1, 2, 3, 100)] == [
        4 * 10, 4 * 5, 4 * 3, 4,
    ]  # fmt: skip
