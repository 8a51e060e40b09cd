"""A run for TensorBoard: its log as scalars, its previews as images, in event files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sincut.errors import SincutError
from sincut.files.images import Pixels

_FLUSH = 10  # seconds until something written can be seen


def check_installed() -> None:
    """Ask for the package before anything is begun.

    Raises:
        SincutError: it is not installed.
    """
    _writer_class()


class Board:
    """Writes event files; steps of the warm start are negative there, too.

    Args:
        folder: gets the files; made where it does not exist.
        purge_step: what former files hold from this step on is no more, for readers of all of
            them; ``None`` where there are none.

    Raises:
        SincutError: from here and every method, where something cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.folder = folder
        with self._writing():
            self.writer = _writer_class()(str(folder), purge_step=purge_step, flush_secs=_FLUSH)

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
        with self._writing():
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, line["step"])

    def preview(self, step: int, pixels: Pixels) -> None:
        """The content translated, (H, W, 3) uint8, as the image ``preview``."""
        with self._writing():
            self.writer.add_image("preview", pixels, step, dataformats="HWC")

    def close(self, state: str) -> None:
        """Write what is waiting; how the run ended is of no concern here."""
        with self._writing():
            self.writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SincutError(
                f"cannot write to {self.folder} ({error.strerror}); check the place and its free "
                "space"
            ) from None


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SincutError(
            "--tensorboard needs the package tensorboard, which is not installed; try "
            "pip install 'sincut[logging]'"
        ) from None
    return SummaryWriter
