"""The whole job on a pair that the project makes itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sincut.config.presets import train_config
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.files import check_folder, make_folder
from sincut.images.writing.png import write_png
from sincut.runs.events import Listener
from sincut.runs.folder import REPORT_FILE
from sincut.runs.train import train
from sincut.translation.translate import translate


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
    if any(path.exists() for path in pictures.values()) and not force:
        raise SincutError(f"{folder} holds a demo already; try --force or another -o")
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
    report = run.folder / REPORT_FILE
    return DemoResult(
        pictures,
        report if report.exists() else None,
        time.monotonic() - started,
        run.step,
        run.signal,
    )
