"""What translating a file will take, and how it is cut so that memory stays within its bounds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sincut.compute.memory import memory_in_use
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.images.reading.source import Source
from sincut.images.writing.formats import BAND_STEP, disk_bytes, memory_bytes
from sincut.images.writing.layout import Layout
from sincut.images.writing.part_file import kept_bytes
from sincut.translation.bands import ENCODERS
from sincut.translation.operators import Operator
from sincut.translation.tiles import TileWorker, device_room, memory_limit
from sincut.translation.tiling import Band, align_up, bands
from sincut.units import byte_text

_BAND_BYTES = 64_000_000  # of pixels that are written together, about, whatever the image's size
_BANDS = 4  # where an image is large enough for them
# Sides of tiles to choose from. Larger ones repeat less work at their halos, and need more memory.
_SIDES = {"cpu": (512, 256, 128, 64), "cuda": (2048, 1024, 512, 256, 128, 64)}
_TIMING_SECONDS = 0.5
# Copies of a band while it is encoded.
_ENCODING = 4


@dataclass(frozen=True)
class Plan:
    """What translating one file takes, known before the work.

    ``tile`` and ``band`` are a tile's side and a band's rows in pixels, ``done`` of ``bands`` are
    there already. ``host_bytes`` and ``device_bytes`` are expected peaks, ``disk_bytes`` is needed
    at most, ``free_bytes`` the room there is. ``seconds`` is what is left to compute as one tile's
    time tells, where it was taken; on a CPU reading and writing add to it. ``working`` is the size
    (width, height) at which the network works, where that is not the image's own. ``passes`` counts
    those that the network makes over the image where it has to see all of it, 0 where it has not;
    ``scratch_bytes`` are needed on the disk between them, beside ``disk_bytes``. ``workers`` is how
    many processes take that memory each; ``part`` is "shard" where the bands are shards, whose side
    ``band`` then is.
    """

    input: Path
    output: Path
    width: int
    height: int
    depth: str
    tile: int
    tiles: int
    band: int
    bands: int
    done: int
    host_bytes: int
    device_bytes: int
    disk_bytes: int
    free_bytes: int
    seconds: float | None = None
    working: tuple[int, int] | None = None
    passes: int = 0
    scratch_bytes: int = 0
    workers: int = 1
    part: str = "band"


@dataclass(frozen=True)
class Cut:
    """How an image is cut: a tile's side, a band's rows, and the peaks that follow in bytes."""

    tile: int
    band: int
    host_bytes: int
    device_bytes: int

    @property
    def window(self) -> int:
        """Side of the windows in which an operator is prepared: no more rows than are written
        together."""
        return min(self.tile, self.band)


def cut(
    source: Source,
    layout: Layout,
    operator: Operator,
    config: TranslateConfig,
    *,
    target: Path,
    mask: Source | None = None,
    before: Cut | None = None,
) -> Cut:
    """Choose tile and band: the largest tile that memory allows, and bands of about 64 MB.

    Args:
        before: how the image was cut when its output was begun, to go on so.

    Raises:
        SincutError: not even the smallest fit into ``max_memory``.
    """
    kind, limit = operator.device.type, memory_limit(config)
    whole = align_up(max(layout.height, layout.width), BAND_STEP)
    finishing = memory_bytes(target, layout)
    sides: Sequence[int] = _SIDES[kind]
    if config.tile != "auto":
        sides = (config.tile_pixels(0, whole),)
    else:
        if operator.whole_first:
            sides = (whole, *(side for side in sides if side < whole))
        if kind == "cuda":
            sides = _sides_that_fit(operator, sides)
    base = memory_in_use() + source.resident_bytes
    base += mask.resident_bytes if mask is not None else 0
    found = Cut(0, 0, 0, 0)
    if before is not None:
        sides = (before.tile,)
    for side in sides:
        step = align_up(side, BAND_STEP) if side >= BAND_STEP else BAND_STEP
        if config.tile != "auto" and side < whole:
            step = max(side // BAND_STEP, 1) * BAND_STEP  # not above what was asked for
        row = layout.width * layout.pixel_bytes
        # Some bands at least, or nothing could go on at once.
        count = min(_BAND_BYTES // (row * step), -(-layout.height // (_BANDS * step)))
        count = max(1, count)
        choices = (count * step, step, BAND_STEP) if before is None else (before.band,)
        if operator.whole_first and side >= whole:
            choices = choices[:1]
        for band in dict.fromkeys(choices):
            rows = min(band, layout.height)
            before_tiles = operator.preparation(min(side, band))
            preparing = before_tiles.host_bytes + 2 * _read_bytes(
                source, layout, min(before_tiles.rows, layout.height)
            )
            working = _band_bytes(source, layout, operator, rows, kind, mask)
            working += _computing_bytes(operator, layout, min(side, whole), kind)
            # Finishing begins before all that bands took is given back.
            needed = max(working, finishing + working // 2, preparing)
            needed += before_tiles.held_bytes
            peak = base + needed + needed // 10  # the allocator keeps some of what was freed
            found = Cut(side, band, peak, 0)
            if peak <= limit:
                on_device = operator.device_bytes(min(side, whole)) if kind == "cuda" else 0
                return Cut(side, band, peak, on_device)
    raise SincutError(
        f"translating {source.path} needs about {byte_text(found.host_bytes)} of memory, allowed "
        f"are {byte_text(limit)}; try --max-memory {_rounded(found.host_bytes)}"
    )


def cut_bands(chosen: Cut, layout: Layout, operator: Operator) -> list[Band]:
    """The bands and tiles of an image that is cut so."""
    side, height, width = chosen.tile, layout.height, layout.width
    return bands(
        height, width, chosen.band, side, operator.halo, operator.alignment, operator.border
    )


def seconds_left(engine: TileWorker, todo: Sequence[Band]) -> float:
    """How long computing these bands will take, from the time of one tile of noise."""
    tiles = [tile for band in todo for tile in band.tiles]
    areas = [_area(tile.rows) * _area(tile.columns) for tile in tiles]
    typical = tiles[int(np.argsort(areas)[len(areas) // 2])]
    shape = _area(typical.rows), _area(typical.columns), 3
    window = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    times: list[float] = []
    # The first finds out how to compute this shape; some may meet another program's work.
    while len(times) < 2 or (sum(times) < _TIMING_SECONDS and len(times) < 10):
        started = time.perf_counter()
        engine.start(window, typical).wait()
        times.append(time.perf_counter() - started)
    return min(times) * sum(areas) / (shape[0] * shape[1])


def check_disk(
    target: Path, layout: Layout, config: TranslateConfig, scratch: int
) -> tuple[int, int]:
    """Bytes of disk needed at most, and free; refuses where even the least does not fit beside
    ``scratch``, which are needed until the output is there.

    What is kept of an interrupted output that is gone on with is not needed again.
    """
    certain, at_most = disk_bytes(target, layout, config.compression, config.pyramid)
    folder = target.parent
    while not folder.exists():  # a plan is made before the folder is
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    certain -= kept_bytes(target) if config.resume else 0
    if certain + scratch > free:
        between = f", and {byte_text(scratch)} between its passes" if scratch else ""
        raise SincutError(
            f"{target} needs {byte_text(certain)} of disk{between}, {byte_text(free)} are free "
            "there; try another place for the output"
        )
    return at_most, free


def _band_bytes(
    source: Source, layout: Layout, operator: Operator, rows: int, kind: str, mask: Source | None
) -> int:
    """Host memory of the bands that are read, computed, encoded and written at the same time."""
    width, into = layout.width, layout.dtype.itemsize
    halo = 2 * align_up(operator.halo, operator.alignment)
    read = _read_bytes(source, layout, rows + halo)
    if mask is not None:
        read += width * rows * (4 + mask.channels * mask.dtype.itemsize)
    computed = width * 3 * into * rows
    # A band on its way out: with alpha, as differences, cut into tiles, compressed.
    encoded = _ENCODING * width * layout.channels * into * rows
    # The band that is computed, the next one, and what those being encoded need of the input.
    return (2 + ENCODERS[kind]) * read + computed + ENCODERS[kind] * (computed + encoded)


def _read_bytes(source: Source, layout: Layout, rows: int) -> int:
    """Host memory of rows as they are read, and in sRGB where that is another."""
    read = layout.width * source.channels * source.dtype.itemsize * rows
    if source.colours.apart or source.dtype == np.float32:
        read += layout.width * 3 * source.dtype.itemsize * rows
    return read


def _computing_bytes(operator: Operator, layout: Layout, side: int, kind: str) -> int:
    """Host memory of a tile at work."""
    reach = 2 * align_up(operator.halo, operator.alignment)
    rows, columns = min(side, layout.height) + reach, min(side, layout.width) + reach
    if kind == "cuda":
        return 3 * rows * columns * 3 * 8  # pinned, on their way
    return operator.host_bytes(rows, columns)


def _sides_that_fit(operator: Operator, sides: Sequence[int]) -> Sequence[int]:
    limit = device_room(operator)
    fitting = [side for side in sides if operator.device_bytes(side) <= limit]
    return fitting or sides[-1:]


def _area(span: Any) -> int:
    return int(span.read_stop - span.read_start)


def _rounded(count: int) -> str:
    """An amount to type that is surely enough."""
    return f"{-(-count * 11 // 10**9) / 10:g}GB"
