"""Run folders: what is written, interruption, resuming, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors import safe_open

import sincut
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation.figures import Comparison
from sincut.images.bit_depth import as_depth
from sincut.images.reading.pillow import decode_picture
from sincut.models.model_file import load_model
from sincut.runs.events import Event, Noticed, Started
from sincut.runs.folder import read_run
from sincut.runs.recorder import Recorder
from sincut.runs.train import RunResult
from tests.conftest import TINY, heard


def train(pair: tuple[Path, Path], folder: Path, **changes: Any) -> RunResult:
    return sincut.train(*pair, folder, **{**TINY, **changes})


def resume(pair: tuple[Path, Path], folder: Path, **changes: Any) -> RunResult:
    return sincut.train(*pair, folder, resume=True, **changes)


def content_of(folder: Path) -> dict[str, Any]:
    """Everything in a run but the times: tensors as bytes, previews, losses."""
    found: dict[str, Any] = {}
    for name in ("model.safetensors", "state.safetensors"):
        with safe_open(folder / name, framework="np") as file:
            for key in file.keys():  # noqa: SIM118
                found[f"{name}/{key}"] = file.get_tensor(key).tobytes()
    for path in (folder / "previews").iterdir():
        found[path.name] = path.read_bytes()
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        found[f"log {record['step']}"] = record["losses"], record["learning_rate"]
    return found


def interrupting(step: int) -> Callable[[dict[str, Any]], None]:
    """A listener that presses Ctrl-C when a step is reported."""

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return listen


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(SincutError) as caught:
        sincut.train(*args, **kwargs)
    return str(caught.value)


def test_files_of_a_run(tiny_run: Path) -> None:
    assert sorted(p.name for p in tiny_run.iterdir()) == [
        "README.md", "config.json", "index.html", "live.js", "log.jsonl", "model.safetensors",
        "previews", "report.html", "state.safetensors",
    ]  # fmt: skip
    (session,) = json.loads((tiny_run / "config.json").read_text())["sessions"]
    assert (session["start"], session["steps"]) == (-2, 6)
    environment = session["environment"]
    assert environment["torch"] == torch.__version__
    assert environment["sincut"] == sincut.__version__
    assert environment["threads"] >= 1
    assert sorted(p.name for p in (tiny_run / "previews").iterdir()) == [
        "000000.png", "000003.png", "000006.png",
    ]  # fmt: skip
    config = json.loads((tiny_run / "config.json").read_text())
    assert config["config"]["channels"] == 4
    assert config["style"]["width"] == 144
    log = [json.loads(line) for line in (tiny_run / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [-1, 0, 1, 2, 3, 4, 5, 6]
    assert set(log[0]["losses"]) == {"warm"}
    assert set(log[2]["losses"]) == {"D", "D_gan", "G", "G_gan", "NCE_x", "NCE_y", "R1", "identity"}
    with Image.open(tiny_run / "previews" / "000006.png") as preview:
        assert preview.size == (64, 51)
    first, last = (decode_picture(tiny_run / f"previews/{n}.png").rgb for n in ("000000", "000006"))
    assert not np.array_equal(first, last)


def test_what_can_be_translated_can_be_trained_on(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """A pair of 16 bits, of the same pictures: the same run, as training sees 8 bits."""
    deep = []
    for path in pair:
        deep.append(tmp_path / f"{path.stem}.tif")
        pixels = decode_picture(path).rgb
        tifffile.imwrite(deep[-1], as_depth(pixels, np.dtype(np.uint16)), photometric="rgb")
    train((deep[0], deep[1]), tmp_path / "run")
    of_eight, of_sixteen = (load_model(run).generator for run in (tiny_run, tmp_path / "run"))
    for one, other in zip(of_eight.parameters(), of_sixteen.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", [-1, 0, 1, 3, 4, 5])
def test_interrupted_and_resumed_equals_uninterrupted(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, step: int
) -> None:
    stopped = train(pair, tmp_path / "run", listener=heard(interrupting(step)))
    assert (stopped.step, stopped.signal) == (step, signal.SIGINT)
    done = resume(pair, tmp_path / "run")
    assert (done.step, done.signal) == (6, 0)
    assert content_of(tmp_path / "run") == content_of(tiny_run)


def test_with_the_additions_of_draft_too(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """The painting that is learned from is made anew; it follows from the seed."""
    added = {"lambda_painting": 2.0, "lambda_strokes": 1.5, "brushwork": True}
    train(pair, tmp_path / "whole", **added, report=False)
    train(pair, tmp_path / "run", listener=heard(interrupting(3)), **added, report=False)
    resume(pair, tmp_path / "run", report=False)
    found = content_of(tmp_path / "run")
    assert found == content_of(tmp_path / "whole")
    weight = "model.safetensors/generator.to_rgb.weight"
    assert found[weight] != content_of(tiny_run)[weight]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", [1, 4])
def test_the_log_of_an_interrupted_run_is_that_of_an_uninterrupted_one(
    pair: tuple[Path, Path], tmp_path: Path, step: int
) -> None:
    """Also where a step is interrupted that is not logged."""

    def interrupt(record: dict[str, Any]) -> None:
        if record["event"] == "preview" and record["step"] == step - step % 3:
            os.kill(os.getpid(), signal.SIGINT)

    settings = {"log_every": 2, "checkpoint_every": 5}
    train(pair, tmp_path / "one", **settings)
    train(pair, tmp_path / "two", **settings, listener=heard(interrupt))
    resume(pair, tmp_path / "two")
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_kill_between_state_and_model_is_mended(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    train(pair, tmp_path / "short", steps=3)
    shutil.copy(tmp_path / "short/model.safetensors", tmp_path / "run/model.safetensors")
    (tmp_path / "run/.state.safetensors.1.part").write_bytes(b"half")
    resume(pair, tmp_path / "run")
    assert content_of(tmp_path / "run") == content_of(tiny_run)
    assert not list((tmp_path / "run").glob(".*"))


def test_a_damaged_log_does_not_stop_resuming(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    with open(tmp_path / "run/log.jsonl", "a") as file:
        file.write('\0\0\0\n[]\n{"step": "x", "seconds": 1}\n{"step": 3, "losses": {"G": null}}\n')
        file.write('{"step": 3, "seconds": 1, "losses": 3}\n{"step": 3')
    assert read_run(tmp_path / "run").damaged == 5
    told: list[Event] = []
    resume(pair, tmp_path / "run", listener=told.append)
    (notice,) = [each for each in told if isinstance(each, Noticed)]
    assert (notice.about, notice.text) == ("log.jsonl", "5 damaged lines were left out")
    assert read_run(tmp_path / "run").damaged == 0
    assert content_of(tmp_path / "run") == content_of(tiny_run)


def test_a_kill_before_the_first_save_can_be_started_over(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("sincut.runs.recorder.save_state", kill)
        with pytest.raises(Killed):
            train(pair, run)
    assert refusal(*pair, run, **TINY) == (
        f"{run} holds a run already; try --force to start anew, or another -o"
    )
    assert train(pair, run, force=True, steps=1).step == 1


def test_killed_and_resumed_equals_uninterrupted(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """After step 5 the state is that of step 4; the log and a preview may be ahead of it."""

    class Killed(BaseException):
        pass

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        train(pair, tmp_path / "run", listener=heard(listen))
    resume(pair, tmp_path / "run")
    assert content_of(tmp_path / "run") == content_of(tiny_run)


def test_a_finished_run_can_be_extended(pair: tuple[Path, Path], tmp_path: Path) -> None:
    constant = {"schedule": "constant"}  # other schedules depend on the length
    train(pair, tmp_path / "short", steps=3, **constant)
    told: list[dict[str, Any]] = []
    assert resume(pair, tmp_path / "short", steps=6, listener=heard(told.append)).step == 6
    assert "notice" not in [record["event"] for record in told]
    train(pair, tmp_path / "long", steps=6, **constant)
    assert content_of(tmp_path / "short") == content_of(tmp_path / "long")
    assert json.loads((tmp_path / "short/config.json").read_text())["config"]["steps"] == 6


def test_extending_says_what_becomes_of_the_schedule(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    train(pair, tmp_path / "run", steps=2, schedule="linear")
    told: list[dict[str, Any]] = []
    resume(pair, tmp_path / "run", steps=3, listener=heard(told.append))
    assert [record["text"] for record in told if record["event"] == "notice"] == [
        "its schedule (linear) is now that of 3 steps"
    ]


def test_resuming_a_finished_run_changes_nothing(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    assert resume(pair, tmp_path / "run").step == 6
    assert content_of(tmp_path / "run") == content_of(tiny_run)


def test_what_resume_refuses(tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = content_of(run)
    assert refusal(pair[1], pair[1], run, resume=True) == (
        f"{run} was trained with another content image, content.png (160×128), got style.png; "
        "resume with the same files"
    )
    assert refusal(*pair, run, resume=True, steps=3) == (
        "the run has done 6 steps already, got --steps 3; try --steps 12"
    )
    assert refusal(*pair, run, resume=True, temperature=0.2) == (
        "--resume goes on with the run's own temperature, 0.07, got 0.2; allowed to change: "
        "steps, device, precision, record_steps, evaluate_every; try without it"
    )
    assert refusal(*pair, run, resume=True, preset="paper").startswith(
        "--resume goes on with the run's own preset, draft, got paper"
    )
    assert refusal(*pair, tmp_path / "none", resume=True) == (
        f"{tmp_path / 'none'} holds no run to resume: it has no state.safetensors; "
        "start one without --resume"
    )
    assert content_of(run) == before
    data = (run / "state.safetensors").read_bytes()
    (run / "state.safetensors").write_bytes(data[:-7])
    assert refusal(*pair, run, resume=True).endswith("; start again with --force")


def test_an_existing_run_is_kept_without_force(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "notes.txt").write_text("mine")
    (run / "previews" / "mine.txt").write_text("mine")
    (run / "tensorboard").mkdir()
    for name in ("events.out.tfevents.1", "mine.txt"):
        (run / "tensorboard" / name).write_text("of the old run, or mine")
    (run / ".live.js.1.part").write_bytes(b"half")
    assert refusal(*pair, run, **TINY) == (
        f"{run} holds a run already; try --resume to continue it, --force to start anew, "
        "or another -o"
    )
    assert content_of(run).items() >= content_of(tiny_run).items()
    train(pair, run, force=True, steps=1, warm_steps=0)
    assert sorted(p.name for p in (run / "previews").iterdir()) == [
        "000000.png",
        "000001.png",
        "mine.txt",
    ]
    assert (run / "notes.txt").read_text() == "mine"
    assert [p.name for p in (run / "tensorboard").iterdir()] == ["mine.txt"]
    assert not list(run.glob(".*"))
    assert "| steps | 1 |" in (run / "README.md").read_text("utf-8")


def test_nothing_is_written_when_an_input_is_wrong(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "text.png").write_text("no image")
    small = tmp_path / "small.png"
    Image.new("RGB", (31, 40)).save(small)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert "does not exist" in refusal(tmp_path / "none.png", pair[1], run, **TINY)
    assert "is not an image" in refusal(pair[0], tmp_path / "text.png", run, **TINY)
    assert "is a folder" in refusal(pair[0], tmp_path, run, **TINY)
    assert refusal(small, pair[1], run, **TINY) == (
        "an image must be at least as large as a crop (32×32 pixels), got 31×40; "
        "try --set crop=16 --set tile=16 or a larger image"
    )
    assert not run.exists()
    assert refusal(*pair, tmp_path / "full", **TINY) == (
        f"{tmp_path / 'full'} is not empty and holds no run; give another -o"
    )
    assert refusal(*pair, small, **TINY) == f"{small} is a file, not a folder; give another -o"
    assert refusal(*pair, small / "run", **TINY) == (
        f"{small} is a file, so {small / 'run'} cannot be made; give another -o"
    )


def test_divergence_is_reported_and_the_saved_state_kept(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    text = refusal(
        *pair,
        tmp_path / "run",
        **{**TINY, "warm_steps": 0, "learning_rate": 1.0, "lambda_identity": 1e39, "steps": 50},
    )
    assert text.startswith("training diverged at step ")
    assert text.endswith(
        "a loss is not finite; the last saved state is kept; try --set learning_rate=0.25"
    )
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_weights_that_the_last_update_broke_are_not_saved(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """The losses of that step are from before it, and good."""
    run = tmp_path / "run"
    sincut.train(*pair, run, **{**TINY, "warm_steps": 0, "steps": 2, "checkpoint_every": 1})

    def broken(self: Recorder, record: Any) -> bool:
        if record.step == 3:
            next(record.state.generator.parameters()).data.view(-1)[-1] = float("nan")
        return whole(self, record)

    whole = Recorder.on_step
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Recorder, "on_step", broken)
        with pytest.raises(SincutError) as error:
            sincut.train(*pair, run, resume=True, steps=4)
    assert str(error.value) == (
        "training diverged at step 3: a weight of the generator is not finite; the last saved "
        "state is kept; try --set learning_rate=0.0005"
    )
    for name in ("state.safetensors", "model.safetensors"):
        with safe_open(run / name, "pt") as file:
            assert all(file.get_tensor(key).isfinite().all() for key in file.keys())  # noqa: SIM118


def test_the_estimate_comes_before_the_first_step(pair: tuple[Path, Path], tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    train(pair, tmp_path / "run", steps=2, listener=heard(records.append))
    events = [record["event"] for record in records]
    assert events.index("start") == 0
    assert (
        events.index("estimate")
        < events.index("live")
        < events.index("step")
        < events.index("preview")
    )
    assert events[-1] == "done"
    estimate = records[events.index("estimate")]
    assert estimate["seconds"] > 0
    assert estimate["peak_bytes"] > 50e6
    json.dumps(records)


def test_figures_on_the_way_are_logged(pair: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    large = [tmp_path / "content.png", tmp_path / "style.png"]
    for path, render in zip(large, (render_content, render_style), strict=True):
        Image.fromarray(render(160, 140)).save(path)
    settings = {**TINY, "steps": 4, "evaluate_every": 2, "warm_steps": 0}
    sincut.train(*large, tmp_path / "run", report=False, listener=heard(told.append), **settings)
    figures = [record for record in told if record["event"] == "figures"]
    assert [record["step"] for record in figures] == [2, 4]
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "figures" in line]
    assert [{"event": "figures", **line} for line in logged] == figures
    sincut.translate(tmp_path / "run", large[0], tmp_path / "result.png", precision="fp32")
    content, style, result = (decode_picture(p).rgb for p in (*large, tmp_path / "result.png"))
    expected = dataclasses.asdict(Comparison(content, style).figures(result))
    assert logged[-1]["figures"] == pytest.approx(expected, abs=1e-6)
    assert refusal(*pair, tmp_path / "small", **{**TINY, "evaluate_every": 2}) == (
        "the style image must have sides of at least 128 pixels to be measured, got 144×120; try "
        "a larger image"
    )
    assert not (tmp_path / "small").exists()


COMMAND = [
    sys.executable, "-m", "sincut", "train",
    *[f"--set={name}={value}" for name, value in TINY.items()
      if name not in ("preset", "device", "precision", "steps", "warm_steps")],
    "--preset=draft", "--device=cpu", "--precision=fp32", "--steps=100000",
]  # fmt: skip


def started(pair: tuple[Path, Path], run: Path) -> subprocess.Popen[str]:
    """A training in a process of its own that has done some steps."""
    process = subprocess.Popen(
        [*COMMAND, "--set=warm_steps=0", *map(str, pair), "-o", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also under nohup
    )  # fmt: skip
    deadline = time.monotonic() + 60
    log = run / "log.jsonl"
    while not (log.exists() and log.stat().st_size > 0):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_says_how_to_go_on(
    pair: tuple[Path, Path], tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    process = started(pair, run)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    last = output.splitlines()[-1]
    assert last.startswith("Interrupted after step ")
    assert last.endswith(f"To go on: sincut train {pair[0]} {pair[1]} -o {run} --resume")
    step = int(last.split()[3])
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"] == step
    assert resume(pair, run, steps=step + 1).step == step + 1


def test_a_signal_in_the_last_step_only_leaves_the_report_out(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    result = train(pair, tmp_path / "run", listener=heard(interrupting(6)))
    assert (result.step, result.steps, result.signal) == (6, 6, signal.SIGINT)
    assert not (tmp_path / "run" / "report.html").exists()
    assert resume(pair, tmp_path / "run").signal == 0
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("error", [MemoryError("no memory"), MemoryError(), KeyboardInterrupt()])
def test_a_run_is_whole_without_its_report(
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[Path, Path],
    tmp_path: Path,
    error: BaseException,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("sincut.runs.pair_subject.write_report", fail)
    told: list[dict[str, Any]] = []
    result = train(pair, tmp_path / "run", steps=2, listener=heard(told.append))
    assert (result.step, result.steps) == (2, 2)
    assert told[-1]["event"] == "done"
    notices = [(r["about"], r["text"]) for r in told if r["event"] == "notice"]
    if isinstance(error, MemoryError):
        assert result.signal == 0
        text = "no memory" if error.args else "MemoryError"
        assert notices == [("the report, which was not made", text)]
    else:
        assert result.signal == signal.SIGINT
        assert notices == []
    assert '"state":"finished"' in (tmp_path / "run" / "live.js").read_text()


def test_every_session_is_recorded_and_what_a_kill_undid_is_gone(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["step"] == 7:
            raise Killed

    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(pair, run, steps=9, listener=heard(kill))  # saved at 4, previews at 0, 3 and 6
    assert [path.name for path in sorted((run / "previews").iterdir())] == [
        "000000.png", "000003.png", "000006.png",
    ]  # fmt: skip
    resume(pair, run, listener=heard(interrupting(5)))
    assert [path.name for path in sorted((run / "previews").iterdir())] == [
        "000000.png", "000003.png",
    ]  # fmt: skip
    resume(pair, run, steps=10)
    resume(pair, run)  # nothing is left to do
    sessions = json.loads((run / "config.json").read_text())["sessions"]
    assert [(each["start"], each["steps"]) for each in sessions] == [(-2, 9), (4, 9), (5, 10)]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [each["session"] for each in log] == [0] * 6 + [1] + [2] * 5


def test_two_trainings_do_not_share_a_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(pair, run)
    before = (run / "config.json").read_bytes()
    for options in ({"resume": True}, {"force": True, **TINY}):
        with pytest.raises(SincutError) as refused:
            sincut.train(*pair, run, **options)
        assert str(refused.value) == (
            f"another training writes to {run} at this moment; wait for its end, stop it, or give "
            "another -o"
        )
    assert process.poll() is None
    assert (run / "config.json").read_bytes() == before
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    resume(pair, run, steps=json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"])


def test_a_folder_that_another_has_filled_meanwhile_is_refused(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def another(event: Event) -> None:
        if isinstance(event, Started):
            shutil.copytree(tiny_run, run)

    with pytest.raises(SincutError, match="holds a run already; try --resume"):
        sincut.train(*pair, run, **TINY, listener=another)
    assert content_of(run) == content_of(tiny_run)


def test_what_a_failed_start_leaves_is_no_obstacle(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "run/previews").mkdir(parents=True)
    (tmp_path / "run/.config.json.123.part").touch()
    train(pair, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))
    (tmp_path / "other/previews").mkdir(parents=True)
    (tmp_path / "other/previews/holiday.png").touch()
    with pytest.raises(SincutError, match="is not empty and holds no run"):
        train(pair, tmp_path / "other")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("full", [False, True], ids=["the reader leaves", "a full disk"])
def test_a_training_goes_on_where_nobody_listens(
    full: bool, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    # Its figures take longer than all the rest.
    command = [*COMMAND, "--set=warm_steps=0", *map(str, pair), "-o", str(tmp_path / "run")]
    command += ["--steps=3", "--no-report"]
    if full:
        output = open("/dev/full", "w")  # noqa: SIM115
    else:
        reading, writing = os.pipe()
        os.close(reading)
        output = os.fdopen(writing, "w")
    with output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert load_model(tmp_path / "run").header["step"] == 3


def test_a_signal_during_the_report_leaves_the_run_finished(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("sincut.runs.pair_subject.write_report", stopped)
    result = train(pair, tmp_path / "run")
    assert (result.signal, result.step) == (signal.SIGTERM, TINY["steps"])
    assert "finished" in (tmp_path / "run/live.js").read_text()
    assert not (tmp_path / "run/report.html").exists()


def test_a_second_signal_leaves_at_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(pair, run)
    for _ in range(200):  # as fast as they go, while the first is being served
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
        if process.poll() is not None:
            break
    process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert resume(pair, run, steps=last + 2).step == last + 2
    assert not list(run.rglob(".*.part"))


def test_a_pair_is_not_resumed_with_one_image(pair: tuple[Path, Path], tiny_run: Path) -> None:
    assert refusal(pair[0], None, tiny_run, resume=True) == (
        f"a run of a pair takes two images, got {pair[0]} alone; give the style as well"
    )


def test_colours_that_nobody_sees_are_told_of(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for index, path in enumerate(pair):
        with Image.open(path) as image:
            clear = image.convert("RGBA")
        alpha = Image.new("L", clear.size, 128)
        if index == 0:
            alpha.paste(0, (0, 0, clear.width // 2, clear.height))
        clear.putalpha(alpha)
        clear.save(tmp_path / path.name)
    told: list[Event] = []
    mixed = tmp_path / pair[0].name, tmp_path / pair[1].name
    sincut.train(*mixed, tmp_path / "run", **TINY, report=False, listener=told.append)
    assert [each for each in told if isinstance(each, Noticed)] == [
        Noticed(
            "the content image",
            "its alpha channel is left out, so that the colours under what is wholly transparent, "
            "50.00% of it, are trained on",
        )
    ]
