"""What is applied to an image, tile by tile, and how it gets to see the image before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from sincut.translation.tiling import Tile

Array = npt.NDArray[Any]


class ImageRows(Protocol):
    """An image that is read from top to bottom."""

    def srgb(self, first: int, last: int) -> Array:
        """(last - first, width, 3) sRGB, uint8, uint16 or float32. Neither ``first`` nor ``last``
        may be less than in the call before."""
        ...


Opened = Callable[[], AbstractContextManager[ImageRows]]  # the image anew, at its top


class PixelRows:
    """Pixels in memory, (H, W, 3), as rows."""

    def __init__(self, rgb: Array) -> None:
        self.rgb = rgb

    def srgb(self, first: int, last: int) -> Array:
        """As :meth:`ImageRows.srgb`."""
        return self.rgb[first:last]


@dataclass(frozen=True)
class Preparation:
    """What an operator does before the first tile.

    ``passes`` counts those over the image, or over what is kept of it, with that of the tiles.
    ``windows`` is how often ``on_window`` is called. ``host_bytes`` is memory at the peak, beside
    ``held_bytes``, which is kept until the last tile, and beside ``rows`` rows of the image.
    ``scratch_bytes`` is room on the disk.
    """

    passes: int = 0
    windows: int = 0
    host_bytes: int = 0
    held_bytes: int = 0
    rows: int = 0
    scratch_bytes: int = 0


class Operator(Protocol):
    """What is applied to windows. Windows start at multiples of ``alignment`` and reach ``halo``
    further than what is wanted; ``border`` says what they hold beyond the image."""

    halo: int
    alignment: int
    border: str
    device: torch.device
    whole_first: bool  # whether a tile that is the whole image is the best, where memory allows it

    def preparation(self, side: int) -> Preparation:
        """What :meth:`prepare` will take."""
        ...

    def prepare(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        """See the whole image before the first tile, in windows of about ``side`` pixels."""
        ...

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """(1, 3, rows read, columns read) of [-1, 1] → (1, 3, rows, columns) written, float32."""
        ...

    def close(self) -> None:
        """Give back what preparing took."""
        ...

    def host_bytes(self, rows: int, columns: int) -> int:
        """Host memory that a window of rows × columns takes at the peak, on a CPU, about."""
        ...

    def device_bytes(self, side: int) -> int:
        """Device memory that tiles of ``side`` take at the peak, on CUDA."""
        ...

    def forget(self) -> None:
        """Free what can be made anew, and keep no more of it: memory is short."""
        ...

    def rehearsal(self, side: int) -> tuple[Operator, float]:
        """The same without an image, prepared, to take the time of tiles of; and the seconds that
        preparing would take."""
        ...

    def another(self) -> Operator:
        """The same by other windows, not prepared, to compare with."""
        ...
