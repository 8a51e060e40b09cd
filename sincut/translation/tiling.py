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
from dataclasses import dataclass, replace


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

    def written_within(self, first: int) -> slice:
        """What is written, as a slice of what begins at pixel ``first``."""
        return slice(self.start - first, self.stop - first)

    def read_within(self, outer: Span) -> slice:
        """What is read, as a slice of what a span around this one reads."""
        return slice(self.read_start - outer.read_start, self.read_stop - outer.read_start)


@dataclass(frozen=True)
class Tile:
    """A tile: its rows and its columns."""

    rows: Span
    columns: Span

    @property
    def pixels(self) -> int:
        """How many it writes."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)


@dataclass(frozen=True)
class Band:
    """Rows of tiles that are written together, ``start … stop`` of the image.

    ``first … last`` are the image's rows that have to be at hand: what its own tiles read and what
    later bands still read of earlier rows, so that a single pass from top to bottom is enough.
    """

    start: int
    stop: int
    first: int
    last: int
    tiles: tuple[Tile, ...]


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of ``alignment`` that is at least ``value``."""
    return -(-value // alignment) * alignment


def spans(
    length: int,
    tile: int,
    halo: int,
    alignment: int,
    border: str,
    first: int = 0,
    last: int | None = None,
) -> list[Span]:
    """Cut one axis of ``length`` pixels, or its part ``first … last``, into spans.

    ``tile`` is about how many pixels a span writes, rounded down to a multiple of ``alignment`` (at
    least one); ``halo`` is rounded up, ``first`` must be such a multiple. ``border`` is
    ``"reflect"`` or ``"zero"``.
    """
    tile = max(tile // alignment, 1) * alignment
    halo = align_up(halo, alignment)
    last = length if last is None else last
    result = []
    for start in range(first, last, tile):
        stop = min(start + tile, last)
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


def span_at(start: int, stop: int, length: int, halo: int, alignment: int, border: str) -> Span:
    """The span of an axis that writes ``start … stop``, in one piece; other arguments as for
    :func:`spans`. ``start`` is a multiple of the alignment."""
    whole = align_up(length, alignment)
    (span,) = spans(length, whole, halo, alignment, border, start, stop)
    return span


def bands(
    height: int,
    width: int,
    band: int,
    tile: int,
    halo: int,
    alignment: int,
    border: str = "reflect",
) -> list[Band]:
    """The image as bands of ``band`` rows (a multiple of ``alignment``), each cut into tiles.

    Rows of tiles never reach over a band's end. Other arguments as for :func:`spans`.
    """
    columns = spans(width, tile, halo, alignment, border)
    result: list[Band] = []
    for start in range(0, height, band):
        stop = min(start + band, height)
        count = -(-(stop - start) // max(tile, alignment))
        side = align_up(-(-(stop - start) // count), alignment)  # alike: their shapes are few
        rows = spans(height, side, halo, alignment, border, start, stop)
        reads = [i for row in rows for i in reflected(row.read_start, row.read_stop, height)]
        inside = tuple(Tile(row, column) for row in rows for column in columns)
        result.append(Band(start, stop, min(reads), max(reads) + 1, inside))
    for index in range(len(result) - 2, -1, -1):  # the mirror at the bottom may reach further up
        first = min(result[index].first, result[index + 1].first)
        result[index] = replace(result[index], first=first)
    return result


def halved(
    tile: Tile, height: int, width: int, halo: int, alignment: int, border: str
) -> tuple[Tile, Tile] | None:
    """A tile as two, cut across its longer side; nothing where it is too small for that."""
    rows, columns = tile.rows, tile.columns
    along = max(rows, columns, key=lambda span: span.stop - span.start)
    side = align_up(-(-(along.stop - along.start) // 2), alignment)
    if side >= along.stop - along.start:
        return None
    length = height if along is rows else width
    one, two = spans(length, side, halo, alignment, border, along.start, along.stop)
    if along is rows:
        return Tile(one, columns), Tile(two, columns)
    return Tile(rows, one), Tile(rows, two)


def reflected(start: int, stop: int, length: int) -> list[int]:
    """Indices of ``start … stop`` in an axis of ``length`` pixels mirrored at both ends.

    The mirror stands on the outermost pixel (``… 2 1 0 1 2 …``), as ``numpy.pad(mode="reflect")``
    has it, and is repeated where the axis is shorter than what is asked for.
    """
    if length == 1:
        return [0] * (stop - start)
    period = 2 * (length - 1)
    return [min(i % period, period - i % period) for i in range(start, stop)]
