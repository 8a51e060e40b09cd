"""Features of a whole image, in memory or in files, written and read in windows.

The file is read and written, not mapped: mapped pages would count as memory of this process. It is
gone with the process, however that ends; what many processes share has names.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from sincut.errors import SincutError

_IN_MEMORY = 100_000_000  # bytes: what takes no more is kept in memory


class Scratch(Protocol):
    """Features of (rows, columns, channels); windows are (1, channels, rows, columns)."""

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """A copy of a window, half open, on the CPU, channels last."""
        ...

    def write(self, top: int, left: int, features: Tensor) -> None:
        """Put a window there, from any device and of any floating type."""
        ...

    def close(self) -> None:
        """Give back what it takes."""
        ...


def new_scratch(shape: tuple[int, int, int], dtype: torch.dtype, folder: Path) -> Scratch:
    """Room for features: in memory where that is little, else in a file in ``folder``."""
    if in_memory(shape, dtype):
        return MemoryScratch(shape, dtype)
    return FileScratch(shape, dtype, folder)


def scratch_bytes(shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Bytes that features take."""
    return math.prod(shape) * dtype.itemsize


def in_memory(shape: tuple[int, int, int], dtype: torch.dtype) -> bool:
    """Whether they are kept in memory."""
    return scratch_bytes(shape, dtype) <= _IN_MEMORY


class MemoryScratch:
    """Features in memory."""

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        self._features = torch.empty(shape, dtype=dtype)

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """As :meth:`Scratch.read`."""
        return self._features[top:bottom, left:right].clone().permute(2, 0, 1)[None]

    def write(self, top: int, left: int, features: Tensor) -> None:
        """As :meth:`Scratch.write`."""
        height, width = features.shape[-2:]
        self._features[top : top + height, left : left + width] = features[0].permute(1, 2, 0)

    def close(self) -> None:
        """As :meth:`Scratch.close`."""
        self._features = self._features.new_empty(0)


class FileScratch:
    """Features in a file in ``folder``, which is gone with this process.

    Raises:
        SincutError: from all of it, where the file cannot be written or read: the disk is full.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        folder: Path,
        file: IO[bytes] | None = None,
    ) -> None:
        """``file`` is one that has a name, not buffered; it is closed with this."""
        self.shape, self.dtype, self.folder = shape, dtype, folder
        self._pixel = shape[2] * dtype.itemsize
        try:
            made = file or tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from None
        self._file: IO[bytes] = made

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """As :meth:`Scratch.read`."""
        features = torch.empty((bottom - top, right - left, self.shape[2]), dtype=self.dtype)
        self._each_run(features, top, left, os.preadv)
        return features.permute(2, 0, 1)[None]

    def write(self, top: int, left: int, features: Tensor) -> None:
        """As :meth:`Scratch.write`."""
        kept = features[0].permute(1, 2, 0).to("cpu", self.dtype).contiguous()
        self._each_run(kept, top, left, os.pwritev)

    def close(self) -> None:
        """As :meth:`Scratch.close`."""
        self._file.close()

    def _each_run(
        self, features: Tensor, top: int, left: int, move: Callable[[int, list[Any], int], int]
    ) -> None:
        """Read or write the rows of a window, at once where they are whole."""
        width = self.shape[1]
        runs = features.flatten(0, 1)[None] if features.shape[1] == width else features
        for row, run in enumerate(runs):
            view = memoryview(run.view(torch.uint8).numpy()).cast("B")
            place = ((top + row) * width + left) * self._pixel
            try:
                while view:
                    moved = move(self._file.fileno(), [view], place)
                    if not moved:
                        raise OSError(None, "it is shorter than it was")
                    view, place = view[moved:], place + moved
            except OSError as error:
                raise self._failed(error) from None

    def _failed(self, error: OSError) -> SincutError:
        return SincutError(
            f"cannot keep what is between two passes in {self.folder} ({error.strerror}); free "
            "some space there, or try another place for the output"
        )
