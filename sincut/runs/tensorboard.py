"""A run for TensorBoard: its log as scalars, its previews as images, in event files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from sincut.errors import SincutError
from sincut.images.reading.source import Pixels


def check_installed() -> None:
    """Ask for the package before anything is begun.

    Raises:
        SincutError: it is not installed.
    """
    _package()


class EventFiles:
    """Writes event files; steps of the warm start are negative there, too.

    The files' names hold the time and no more: TensorBoard's own writer would add the name of the
    host and the number of the process, which are nobody's business where a run folder is passed on.

    Args:
        folder: gets the files; made where it does not exist.
        purge_step: what former files hold from this step on is no more, for readers of all of
            them; ``None`` where there are none.

    Raises:
        SincutError: from here and every method, where something cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.folder = folder
        self.package = _package()
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self.file = _new_file(folder)
        self.writer = self.package.writer(self.file)
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            start = self.package.session_log(status=self.package.session_log.START)
            self._write(step=purge_step, session_log=start)

    def record(self, line: dict[str, Any]) -> None:
        """A line of the log: ``losses/NAME`` or ``figures/NAME``, learning rate and speed."""
        scalars = {
            f"{kind}/{name}": value
            for kind in ("losses", "figures")
            for name, value in line.get(kind, {}).items()
        }
        for name in ("learning_rate", "steps_per_second"):
            if name in line:
                scalars[name] = line[name]
        for name, value in scalars.items():
            self._write(step=line["step"], summary=self.package.scalar(name, value))

    def preview(self, step: int, pixels: Pixels) -> None:
        """The content translated, (H, W, 3) uint8, as the image ``preview``."""
        summary = self.package.image("preview", pixels, dataformats="HWC")
        self._write(step=step, summary=summary)

    def close(self, state: str, step: int) -> None:
        """No more is written; how and where the run ended is of no concern here."""
        with self._writing():
            self.file.close()

    def _write(self, **content: Any) -> None:
        """One event, which readers can see at once."""
        event = self.package.event(wall_time=time.time(), **content)
        with self._writing():
            self.writer.write(event.SerializeToString())
            self.file.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SincutError(
                f"cannot write to {self.folder} ({error.strerror}); check the place and its free "
                "space"
            ) from None


def _new_file(folder: Path) -> BinaryIO:
    """Named so that TensorBoard finds it, and reads it after those before it."""
    stem = f"events.out.tfevents.{int(time.time()):010d}"
    for number in count():
        with suppress(FileExistsError):
            return open(folder / f"{stem}.{number:03d}", "xb")
    raise AssertionError


@dataclass(frozen=True)
class _Package:
    """What is used of TensorBoard and of torch's part for it."""

    event: Any
    session_log: Any
    writer: Any
    scalar: Any
    image: Any


def _package() -> _Package:
    try:
        events = import_module("tensorboard.compat.proto.event_pb2")
        from torch.utils.tensorboard import RecordWriter
        from torch.utils.tensorboard.summary import image, scalar
    except ImportError:
        raise SincutError(
            "--tensorboard needs the package tensorboard, which is not installed; try "
            "pip install 'sincut[logging]'"
        ) from None
    return _Package(events.Event, events.SessionLog, RecordWriter, scalar, image)
