"""Exact tiling: which pixels a tile writes and which it has to read. Integers only.

The law: translating in tiles gives the same image as translating in one piece, for every tile
size. Three facts about the network make it hold, and this module only does their arithmetic:

- an output pixel depends on input pixels at most ``halo`` away, so a tile reads that much more on
  every side than it writes;
- sampling grids start at multiples of ``alignment`` (2^downsamplings), so every window does too;
- at the image's border the window either reaches over it (``reflect``: the caller fills in the
  mirrored pixels) or ends there (``zero``: the network's own zero padding takes over).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels of the image; half-open intervals.

    ``start, stop`` is what the tile writes. ``read_start, read_stop`` is what the network gets: a
    multiple of the alignment long, starting at a multiple of it, and possibly outside the image.
    """

    start: int
    stop: int
    read_start: int
    read_stop: int

    @property
    def core(self) -> slice:
        """The written pixels, as a slice of the network's output for this window."""
        return slice(self.start - self.read_start, self.stop - self.read_start)


@dataclass(frozen=True)
class Tile:
    """A tile: its rows and its columns."""

    rows: Span
    columns: Span


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of ``alignment`` that is at least ``value``."""
    return -(-value // alignment) * alignment


def spans(length: int, tile: int, halo: int, alignment: int, border: str) -> list[Span]:
    """Cut one axis of ``length`` pixels into spans of about ``tile`` pixels.

    ``tile`` is rounded down to a multiple of ``alignment`` (at least one), ``halo`` up. ``border``
    is ``"reflect"`` or ``"zero"``.
    """
    tile = max(tile // alignment, 1) * alignment
    halo = align_up(halo, alignment)
    result = []
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        read_start, read_stop = start - halo, align_up(stop, alignment) + halo
        if border == "zero":
            read_start, read_stop = max(read_start, 0), min(read_stop, align_up(length, alignment))
        result.append(Span(start, stop, read_start, read_stop))
    return result


def tiles(
    height: int, width: int, tile: int, halo: int, alignment: int, border: str = "reflect"
) -> Iterator[Tile]:
    """All tiles of an image, row by row from the top left. Arguments as for :func:`spans`."""
    columns = spans(width, tile, halo, alignment, border)
    for row in spans(height, tile, halo, alignment, border):
        for column in columns:
            yield Tile(row, column)


def reflected(start: int, stop: int, length: int) -> list[int]:
    """Indices of ``start … stop`` in an axis of ``length`` pixels mirrored at both ends.

    The mirror stands on the outermost pixel (``… 2 1 0 1 2 …``), as ``numpy.pad(mode="reflect")``
    has it, and is repeated where the axis is shorter than what is asked for.
    """
    if length == 1:
        return [0] * (stop - start)
    period = 2 * (length - 1)
    return [min(i % period, period - i % period) for i in range(start, stop)]
