"""The whole job on a pair, or on two folders, that the project makes itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sincut.config.presets import folder_config, train_config
from sincut.demo import render_content, render_style
from sincut.demo.fields import variant
from sincut.errors import SincutError
from sincut.files import check_folder, make_folder
from sincut.images.metadata import DAMAGE
from sincut.images.writing.png import write_png
from sincut.runs.events import Listener
from sincut.runs.folder import REPORT_FILE
from sincut.runs.train import RunResult, train
from sincut.translation.translate import translate

_SIZE = 256, 192  # pixels of an image of the folders
_MARK = "sincut demo"  # a text in every image
# The first variant, and how many images.
_FOLDERS = {"trainA": (0, 20), "testA": (1000, 6), "trainB": (500, 20), "testB": (1500, 6)}


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
        force: overwrite a former demo; what does not carry its mark is refused.
        listener, changes: as for :func:`sincut.runs.train.train`.
    """
    started = time.monotonic()
    pictures = {name: folder / f"{name}.png" for name in ("content", "style", "result")}
    check_folder(folder)
    _check_new(pictures.values(), pictures.values(), folder, force=force)
    train_config("draft", **changes)  # which refuses what is wrong before anything is written
    make_folder(folder)
    pictures["result"].unlink(missing_ok=True)
    write_png(pictures["content"], render_content(), _MARK)
    write_png(pictures["style"], render_style(), _MARK)
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
    made = [results / path.name for path in _images_of("testA", images)]
    rendered = [path for name in _FOLDERS for path in _images_of(name, images)]
    _check_new([images, results], [*rendered, *made], folder, force=force)
    folder_config("cut-small", **changes)  # which refuses what is wrong before anything is written
    for path in made:
        path.unlink(missing_ok=True)
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
    for name, (first, _) in _FOLDERS.items():
        make_folder(folder / name)
        render = render_content if name.endswith("A") else render_style
        for index, path in enumerate(_images_of(name, folder)):
            with variant(first + index):
                write_png(path, render(*_SIZE), _MARK)


def _images_of(name: str, folder: Path) -> list[Path]:
    """Where the images of one of the folders are."""
    return [folder / name / f"{index:02d}.png" for index in range(_FOLDERS[name][1])]


def _check_new(places: Iterable[Path], files: Iterable[Path], folder: Path, *, force: bool) -> None:
    """Refuse what is there already; with ``force`` only files that are not of a demo."""
    if not force and any(map(os.path.lexists, places)):
        raise SincutError(f"{folder} holds a demo already; try --force or another -o")
    for path in filter(os.path.lexists, files):
        if not _is_marked(path):
            raise SincutError(
                f"{path} is not of a demo that sincut made; move it away, or give another -o"
            )


def _is_marked(path: Path) -> bool:
    """Whether the demo wrote a file: a translation keeps the texts of its input."""
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Source") == _MARK
    except DAMAGE:
        return False


def _result(run: RunResult, pictures: dict[str, Path], started: float) -> DemoResult:
    report = run.folder / REPORT_FILE
    return DemoResult(
        pictures,
        report if report.exists() else None,
        time.monotonic() - started,
        run.step,
        run.signal,
    )
