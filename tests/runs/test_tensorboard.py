"""Event files for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import sincut
from sincut.cli import main
from sincut.errors import SincutError
from sincut.runs.estimate import Estimate
from sincut.runs.folder import read_run
from sincut.runs.tensorboard import EventFiles
from sincut.runs.train import RunResult
from tests.conftest import TINY, heard


def accumulated(folder: Path) -> Any:
    """What TensorBoard finds in a folder, with nothing left out."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs tensorboard: pip install 'sincut[logging]'",
    )
    found = module.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return found.Reload()


def scalars(events: Any, name: str) -> tuple[list[int], list[float]]:
    found = events.Scalars(name)
    return [each.step for each in found], [each.value for each in found]


def images(events: Any) -> dict[int, np.ndarray]:
    return {
        each.step: np.asarray(Image.open(io.BytesIO(each.encoded_image_string)))
        for each in events.Images("preview")
    }


@pytest.fixture(autouse=True)
def estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are told an estimate, which is no matter here, instead of measuring it."""
    estimate = Estimate(0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 1000)
    monkeypatch.setattr("sincut.runs.train.measure", lambda *_: estimate)


def assert_all_of_the_log(run: Path) -> None:
    events, record = accumulated(run / "tensorboard"), read_run(run)
    expected = {
        f"{kind}/{name}": values
        for kind in ("losses", "figures")
        for name, values in record.series(kind).items()
    }
    lines = [line for line in record.log if "losses" in line]
    for name in ("learning_rate", "steps_per_second"):
        expected[name] = [line["step"] for line in lines], [line[name] for line in lines]
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, (steps, values) in expected.items():
        found = scalars(events, name)
        assert found[0] == steps, name
        assert found[1] == pytest.approx(values, rel=1e-6), name
    shown = images(events)
    assert list(shown) == [step for step, _ in record.previews]
    for step, path in record.previews:
        np.testing.assert_array_equal(shown[step], np.asarray(Image.open(path)))


class Killed(BaseException):
    pass


def test_the_log_and_the_previews_also_after_a_kill(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def kill(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["step"] == 3:
            raise Killed

    settings = {**TINY, "checkpoint_every": 2}
    with pytest.raises(Killed):
        sincut.train(*pair, run, tensorboard=True, **settings, listener=heard(kill))
    assert scalars(accumulated(run / "tensorboard"), "losses/G")[0] == [1, 2, 3]
    sincut.train(*pair, run, tensorboard=True, resume=True, report=False)
    assert len(list((run / "tensorboard").iterdir())) == 2
    assert_all_of_the_log(run)  # step 3 once, and as it was made the second time
    settings = {**TINY, "steps": 2}
    sincut.train(*pair, run, force=True, tensorboard=True, report=False, **settings)
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert_all_of_the_log(run)


def test_entries_after_the_saved_step_are_no_more(tmp_path: Path) -> None:
    line: dict[str, Any] = {"losses": {"G": 1.0}}
    first = EventFiles(tmp_path, None)
    for step in range(-2, 6):
        first.record({**line, "step": step})
    first.preview(0, np.zeros((4, 5, 3), np.uint8))
    first.preview(5, np.zeros((4, 5, 3), np.uint8))
    first.close("stopped", 4)
    EventFiles(tmp_path, 4).close("finished", 4)
    events = accumulated(tmp_path)
    assert scalars(events, "losses/G")[0] == [-2, -1, 0, 1, 2, 3]
    assert list(images(events)) == [0]


def test_what_is_written_can_be_seen_at_once(tmp_path: Path) -> None:
    board = EventFiles(tmp_path, None)
    board.record({"losses": {"G": 1.0}, "step": 1})
    assert scalars(accumulated(tmp_path), "losses/G") == ([1], [1.0])
    board.close("finished", 1)


def test_names_say_the_time_and_nothing_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "somebodys-machine")
    now = int(time.time())
    monkeypatch.setattr("sincut.runs.tensorboard.time", SimpleNamespace(time=lambda: now + 0.5))
    for step in range(12):  # in the same second; each takes back what the last one wrote after it
        board = EventFiles(tmp_path, step if step else None)
        for later in (step, step + 1):
            board.record({"losses": {"G": float(step)}, "step": later})
        board.close("stopped", step)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"events.out.tfevents.{now}.{number:03d}" for number in range(12)]
    assert all(b"somebodys" not in path.read_bytes() for path in tmp_path.iterdir())
    steps, values = scalars(accumulated(tmp_path), "losses/G")
    assert steps == list(range(13))
    assert values == [*map(float, range(12)), 11.0]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = EventFiles(tmp_path, None)

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board, "file", SimpleNamespace(flush=full))
    with pytest.raises(SincutError) as caught:
        board.record({"losses": {"G": 1.0}, "step": 1})
    assert str(caught.value) == (
        f"cannot write to {tmp_path} (No space left on device); check the place and its free space"
    )
    board.writer.close()


def test_figures_are_there(tmp_path: Path) -> None:
    board = EventFiles(tmp_path, None)
    board.record({"step": 4, "seconds": 1.0, "figures": {"S1": 0.25, "C2": 0.5}})
    board.close("finished", 4)
    events = accumulated(tmp_path)
    assert events.Tags()["scalars"] == ["figures/S1", "figures/C2"]
    assert scalars(events, "figures/C2") == ([4], [0.5])


def test_without_the_package_nothing_is_begun(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SincutError) as caught:
        sincut.train(*pair, tmp_path / "run", tensorboard=True, **TINY)
    assert str(caught.value) == (
        "--tensorboard needs the package tensorboard, which is not installed; try "
        "pip install 'sincut[logging]'"
    )
    assert not (tmp_path / "run").exists()


def test_the_command_passes_it_on_and_says_it_again(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def interrupted(*_: Any, tensorboard: bool, **__: Any) -> RunResult:
        asked.append(tensorboard)
        return RunResult(tmp_path, 3, 6, signal=2)

    monkeypatch.setattr("sincut.runs.train.train", interrupted)
    words = ["train", *map(str, pair), "-o", str(tmp_path)]
    for options in ([], ["--tensorboard"]):
        result = CliRunner().invoke(main, [*words, *options])
        assert result.exit_code == 130
        again = " ".join(["sincut", *words, "--resume", *options])
        assert result.stdout == f"Interrupted after step 3 of 6; saved. To go on: {again}\n"
    assert asked == [False, True]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SincutError) as caught:
        EventFiles(tmp_path / "file" / "tensorboard", None)
    assert str(caught.value) == (
        f"cannot write to {tmp_path / 'file' / 'tensorboard'} (Not a directory); check the place "
        "and its free space"
    )
    assert (tmp_path / "file").read_text() == "mine"
