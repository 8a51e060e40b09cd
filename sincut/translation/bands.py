"""Bands of an image from its source through the engine to its writer: read ahead, write behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.images.bit_depth import WHITE, as_depth
from sincut.images.geo import beside_nodata
from sincut.images.profiles import Colours
from sincut.images.reading.samples import unknown
from sincut.images.reading.source import Source, in_srgb
from sincut.images.writing.layout import Encoded
from sincut.images.writing.writer import Writer
from sincut.translation.operators import Operator
from sincut.translation.pixels import as_network
from sincut.translation.tiles import Pending, TileWorker, window_of
from sincut.translation.tiling import Band, Tile, reflected, span_at

Array = npt.NDArray[Any]

# Tiles on their way at once: while the device computes one, the next one's pixels travel to it and
# the last one's back. On a CPU a tile is done when it has been started.
_IN_FLIGHT = {"cpu": 1, "cuda": 3}
_SLAB_BYTES = 4_000_000  # of rows that are read at a time
# Bands that are encoded at once, each by a thread.
ENCODERS = {"cpu": 1, "cuda": 4}


@dataclass(frozen=True)
class Loaded:
    """Rows of an image that a band needs.

    ``raw`` holds rows ``top …`` as the source gives them, ``rgb`` the same in sRGB without
    not-a-numbers, ``mask`` float32 weights of the band's own rows, or nothing.
    """

    band: Band
    top: int
    raw: Array
    rgb: Array
    mask: Array | None

    @property
    def own(self) -> Array:
        """The band's own rows as the source gives them."""
        return self.raw[self.band.start - self.top : self.band.stop - self.top]


class InputRows:
    """Reads each row of a source once, and keeps it as long as a later band needs it."""

    def __init__(self, source: Source, mask: Source | None = None) -> None:
        self.source, self.mask = source, mask
        self.last: Loaded | None = None
        self.moved: list[int] = []  # pixels of each band that would have become nodata

    def load(self, band: Band) -> Loaded:
        """The rows of the next band; bands come in their order, from any first one on."""
        source, count = self.source, band.last - band.first
        raw = np.empty((count, source.width, source.channels), source.dtype)
        apart = source.colours.apart or source.dtype == np.float32
        rgb = np.empty((count, source.width, 3), source.dtype) if apart else raw[..., :3]
        known = 0
        if self.last is not None:
            kept = slice(band.first - self.last.top, None)
            known = len(self.last.raw[kept])
            raw[:known], rgb[:known] = self.last.raw[kept], self.last.rgb[kept]
        slab = max(1, _SLAB_BYTES // (source.width * raw.itemsize * raw.shape[-1]))
        for start in range(known, count, slab):  # in slabs, or new rows would be there twice
            stop = min(start + slab, count)
            raw[start:stop] = source.rows(band.first + start, band.first + stop)
            if apart:
                rgb[start:stop] = in_srgb(source, raw[start:stop])
        mask = None
        if self.mask is not None:
            mask = np.empty((band.stop - band.start, source.width), np.float32)
            for start in range(band.start, band.stop, slab):
                stop = min(start + slab, band.stop)
                rows = slice(start - band.start, stop - band.start)
                mask[rows] = weights_of(self.mask.rows(start, stop))
        self.last = Loaded(band, band.first, raw, rgb, mask)
        return self.last

    def srgb(self, first: int, last: int) -> Array:
        """As :meth:`sincut.translation.operators.ImageRows.srgb`."""
        return self.load(Band(first, last, first, last, ())).rgb


def translate_bands(
    rows: InputRows,
    engine: TileWorker,
    writer: Writer,
    todo: Sequence[tuple[int, Band]],
    colours: Colours,
    on_tile: Callable[[], None],
) -> None:
    """Translate numbered bands and hand them to the writer, in order.

    Three things go on at once: the next band is read, this one computed, earlier ones encoded and
    written. No more bands are in memory than that.

    Args:
        colours: into what the output's sRGB is turned.
        on_tile: called after every tile.
    """
    kind = engine.device.type
    failed = False

    def append(encoded: Future[Encoded]) -> None:
        nonlocal failed
        if failed:  # what follows a band that was lost must not be written behind its predecessor
            return
        try:
            writer.append(encoded.result())
        except BaseException:
            failed = True
            raise

    with (
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(ENCODERS[kind]) as encoder,
        ThreadPoolExecutor(1) as appender,
    ):
        behind: deque[Future[None]] = deque()
        ahead = reader.submit(rows.load, todo[0][1])
        for place, (index, _) in enumerate(todo):
            loaded = ahead.result()
            if place + 1 < len(todo):
                ahead = reader.submit(rows.load, todo[place + 1][1])
            output = _computed(engine, loaded, on_tile)
            while len(behind) >= ENCODERS[kind]:
                behind.popleft().result()
            own = loaded.own if _needs_input(rows, engine) else None
            strength, nodata = engine.strength, rows.source.nodata
            if own is not None:
                own, nodata = own_in(colours, rows.source, own)
            finish = partial(
                final_pixels, output, own, loaded.mask, strength, colours, nodata, rows.moved
            )
            encoded = encoder.submit(_encoded, writer, index, finish)
            behind.append(appender.submit(append, encoded))
            # Or a band more would be held while the next one is read.
            del loaded, output, own, finish, encoded
        for each in behind:
            each.result()


def own_in(colours: Colours, source: Source, own: Array) -> tuple[Array, float | None]:
    """What was read of a source, in the colours of an output, which may be others: sRGB, or with
    the whole range of its type; and what nodata is there."""
    stored = source.colours
    if colours == stored:
        return own, source.nodata
    if colours.converted != stored.converted:
        rgb = colours.from_srgb(in_srgb(source, own))
    elif colours.range != stored.range:
        rgb = stored.spread(own[..., :3])
    else:
        rgb = own[..., :3]
    nodata = source.nodata if colours.range == stored.range else None
    return np.concatenate([rgb, own[..., 3:]], axis=-1), nodata


@torch.inference_mode()
def tile_output(operator: Operator, source: Source, tile: Tile) -> Tensor:
    """What an operator that is prepared makes of a tile, (1, 3, rows, columns), on the CPU.

    ``tile`` says what is written; what is read follows from the operator.
    """
    height = source.height
    reach = operator.halo, operator.alignment, operator.border
    rows = span_at(tile.rows.start, tile.rows.stop, height, *reach)
    columns = span_at(tile.columns.start, tile.columns.stop, source.width, *reach)
    needed = reflected(rows.read_start, rows.read_stop, height)
    top = min(needed)
    rgb = in_srgb(source, source.rows(top, max(needed) + 1))
    pixels = np.ascontiguousarray(window_of(rgb, Tile(rows, columns), top, height))
    window = torch.from_numpy(pixels).to(operator.device)
    return operator(as_network(window), Tile(rows, columns)).cpu().clone()


def weights_of(rows: Array) -> Array:
    """(rows, columns, 3 or 4) of a mask as (rows, columns) float32 of 0 … 1.

    Grey is the mean of the three channels; where the mask is transparent, nothing is translated.
    """
    scale = np.float32(WHITE[rows.dtype])
    grey = rows[..., :3].mean(axis=-1, dtype=np.float32) / scale
    if rows.shape[-1] == 4:
        grey *= rows[..., 3].astype(np.float32) / scale
    weights: Array = np.nan_to_num(grey).clip(0, 1)
    return weights


def final_pixels(
    output: Array,
    own: Array | None,
    mask: Array | None,
    strength: float,
    colours: Colours,
    nodata: float | None = None,
    moved: list[int] | None = None,
) -> Array:
    """The band as it is written: the file's colours, what stays untouched, alpha.

    Args:
        output: (rows, columns, 3) sRGB in the output's depth.
        own: (rows, columns, 3 or 4) as they were read. Where the translation has no weight they
            are copied, and where they are not numbers, or ``nodata``, they stay so. Absent where
            none of it can be.
        moved: gets the count of translated pixels that came out as ``nodata`` and were moved
            beside it.
    """
    rgb = colours.from_srgb(output)
    if own is None:
        return rgb
    untouched = np.full(own.shape[:2], strength == 0)
    if mask is not None:
        untouched |= mask == 0
    if own.dtype == output.dtype == np.float32:
        untouched |= np.isnan(own[..., :3]).any(axis=-1)
    if nodata is not None and own.dtype == output.dtype:
        untouched |= unknown(own[..., :3], nodata)
        rgb = rgb.copy()
        count = beside_nodata(rgb, ~untouched, nodata)
        if moved is not None:
            moved.append(count)
    if untouched.any():
        rgb = np.where(untouched[..., None], as_depth(own[..., :3], output.dtype), rgb)
    if own.shape[-1] == 3:
        return rgb
    return np.concatenate([rgb, as_depth(own[..., 3:], output.dtype)], axis=-1)


def _encoded(writer: Writer, index: int, finish: Callable[[], Array]) -> Encoded:
    return writer.encode(index, finish())


def _computed(engine: TileWorker, loaded: Loaded, on_tile: Callable[[], None]) -> Array:
    band = loaded.band
    output = np.empty((band.stop - band.start, engine.width, 3), engine.dtype)
    flying: deque[tuple[Tile, Pending]] = deque()

    def land() -> None:
        tile, pending = flying.popleft()
        rows, columns = tile.rows, tile.columns
        place = rows.written_within(band.start)
        output[place, columns.start : columns.stop] = pending.wait()
        on_tile()

    for tile in band.tiles:
        rows, columns = tile.rows, tile.columns
        mask = None
        if loaded.mask is not None:
            place = rows.written_within(band.start)
            mask = loaded.mask[place, columns.start : columns.stop]
        window = window_of(loaded.rgb, tile, loaded.top, engine.height)
        flying.append((tile, engine.start(window, tile, mask)))
        if len(flying) >= _IN_FLIGHT[engine.device.type]:
            land()
    while flying:
        land()
    return output


def _needs_input(rows: InputRows, engine: TileWorker) -> bool:
    """Whether the output holds something of the input, which then has to be kept for it."""
    source = rows.source
    kept = source.dtype == np.float32 or source.nodata is not None
    return source.channels > 3 or rows.mask is not None or engine.strength == 0 or kept
