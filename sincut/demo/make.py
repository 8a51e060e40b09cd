"""The whole job on a pair, or on two folders, that the project makes itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sincut.config.presets import folder_config, train_config
from sincut.demo import render_content, render_style
from sincut.demo.fields import variant
from sincut.errors import SincutError
from sincut.files import check_folder, make_folder
from sincut.images.writing.png import write_png
from sincut.runs.events import Listener
from sincut.runs.folder import REPORT_FILE
from sincut.runs.train import RunResult, train
from sincut.translation.translate import translate

_SIZE = 256, 192  # pixels of an image of the folders
_TRAINED, _TESTED = 20, 6  # images of each kind


@dataclass(frozen=True)
class DemoResult:
    """The pictures by name, the report; ``signal`` as in :class:`sincut.runs.train.RunResult`."""

    pictures: dict[str, Path]
    report: Path | None  # where it was made
    seconds: float
    step: int
    signal: int


def make_demo(
    folder: Path, *, force: bool = False, listener: Listener | None = None, **changes: Any
) -> DemoResult:
    """Render the pair, train ``draft`` on it, translate the content and report on it all.

    Args:
        folder: gets ``content.png``, ``style.png``, ``result.png`` and the run folder ``run``.
        force: overwrite a former demo.
        listener, changes: as for :func:`sincut.runs.train.train`.
    """
    started = time.monotonic()
    pictures = {name: folder / f"{name}.png" for name in ("content", "style", "result")}
    check_folder(folder)
    _check_new([*pictures.values()], folder, force=force)
    train_config("draft", **changes)  # which refuses what is wrong before anything is written
    make_folder(folder)
    pictures["result"].unlink(missing_ok=True)
    write_png(pictures["content"], render_content())
    write_png(pictures["style"], render_style())
    run = train(
        pictures["content"],
        pictures["style"],
        folder / "run",
        preset="draft",
        force=force,
        listener=listener,
        **changes,
    )
    if not run.signal:
        translate(run.folder, pictures["content"], pictures["result"])
    return _result(run, pictures, started)


def make_folder_demo(
    folder: Path, *, force: bool = False, listener: Listener | None = None, **changes: Any
) -> DemoResult:
    """Render two small folders of landscapes and of paintings, train ``cut-small`` on them,
    translate landscapes that it has not seen, and report on it all.

    Args:
        folder: gets ``trainA``, ``trainB``, ``testA``, ``testB``, ``results`` and the run folder
            ``run``.
        force, listener, changes: as for :func:`make_demo`.
    """
    started = time.monotonic()
    images, results = folder / "images", folder / "results"
    check_folder(folder)
    _check_new([images, results], folder, force=force)
    folder_config("cut-small", **changes)  # which refuses what is wrong before anything is written
    shutil.rmtree(results, ignore_errors=True)
    render_folders(images)
    run = train(
        images, None, folder / "run", preset="cut-small", force=force, listener=listener, **changes
    )
    pictures = {"contents": images / "testA", "styles": images / "testB", "results": results}
    if not run.signal:
        translate(run.folder, images / "testA", results)
    return _result(run, pictures, started)


def render_folders(folder: Path) -> None:
    """Write landscapes and paintings, none of which belong together, into the folders that
    ``sincut train`` looks for."""
    for letter, render in (("A", render_content), ("B", render_style)):
        for name, first, count in (
            (f"train{letter}", 0, _TRAINED),
            (f"test{letter}", 1000, _TESTED),
        ):
            make_folder(folder / name)
            for index in range(count):
                with variant(first + index + (500 if letter == "B" else 0)):
                    write_png(folder / name / f"{index:02d}.png", render(*_SIZE))


def _check_new(paths: Sequence[Path], folder: Path, *, force: bool) -> None:
    if any(path.exists() for path in paths) and not force:
        raise SincutError(f"{folder} holds a demo already; try --force or another -o")


def _result(run: RunResult, pictures: dict[str, Path], started: float) -> DemoResult:
    report = run.folder / REPORT_FILE
    return DemoResult(
        pictures,
        report if report.exists() else None,
        time.monotonic() - started,
        run.step,
        run.signal,
    )
