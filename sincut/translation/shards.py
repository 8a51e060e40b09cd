"""An image to an OME-Zarr, shard by shard: by one process, or by many that share it.

A shard is translated from its own window of the input, with the tiles' halos around it, and always
in the same tiles; so it does not matter who makes it, nor when. That its file is there says that it
is done: processes need to know nothing of each other. Which shards are whose follows from their
number; a process that ends is started again, and goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.compute.memory import memory_in_use
from sincut.errors import Interrupted, SincutError
from sincut.images.reading.source import Source, in_srgb
from sincut.images.writing import ome_zarr
from sincut.images.writing.layout import Layout
from sincut.images.writing.ome_zarr import (
    OmeZarr,
    Place,
    begun_with,
    check_place,
    lost,
)
from sincut.models.resnet import ResnetGenerator
from sincut.translation.bands import final_pixels, own_in, weights_of
from sincut.translation.one_image import OneImage, Opened, Translated, depth_text
from sincut.translation.operators import Operator
from sincut.translation.plan import Plan, check_disk
from sincut.translation.shared_norms import SharedNorms, make_passes
from sincut.translation.tiles import (
    AUTOMATIC_TILE,
    SMALL_SIDES,
    TileWorker,
    fitting_side,
    memory_limit,
    window_of,
)
from sincut.translation.tiling import Span, Tile, align_up, reflected, spans
from sincut.translation.working_size import Working
from sincut.units import byte_text

Array = npt.NDArray[Any]
Tell = Callable[[], None]  # that one more shard is there

# Copies of a shard's pixels while it is read, put together, written.
_COPIES = 5


@dataclass(frozen=True)
class Share:
    """What a process of several has done: ``done`` of ``total`` shards of the output are there."""

    output: Path
    shard: str
    done: int
    total: int
    notices: tuple[str, ...] = ()


class WindowReader:
    """Windows of a source that need not have any: then rows are kept from one to the next.

    Where a window begins further up than the last, the file is read once more from its top.
    """

    def __init__(self, source: Source, again: Callable[[], Source]) -> None:
        """``again`` opens the file anew; :meth:`close` closes what it opened, not ``source``."""
        self.source, self._again = source, again
        self._opened: list[Source] = []
        self._top, self._rows = 0, np.empty((0,))

    def read(self, rows: slice, columns: slice) -> Array:
        """(rows, columns, channels), as the source gives them."""
        if self.source.by_window:
            return self.source.read(rows, columns)
        if rows.start < self._top:
            self.close()
            self._opened.append(self._again())
            self.source, self._rows = self._opened[0], np.empty((0,))
        end = self._top + len(self._rows)
        if self._rows.ndim == 1 or rows.start >= end:
            self._rows = self.source.rows(rows.start, rows.stop)
        else:
            kept = self._rows[rows.start - self._top :]
            if rows.stop > end:
                kept = np.concatenate([kept, self.source.rows(end, rows.stop)])
            self._rows = kept
        self._top = rows.start
        return self._rows[: rows.stop - rows.start, columns]

    def close(self) -> None:
        """Close what was opened here."""
        while self._opened:
            self._opened.pop().close()


class Grid:
    """The tiles of shards: of each always the same, whoever translates it."""

    def __init__(self, layout: Layout, operator: Operator, side: int) -> None:
        """``side`` is about that of a tile in pixels."""
        self.height, self.width, self.side = layout.height, layout.width, side
        self._reach = operator.halo, operator.alignment, operator.border

    def tiles(self, place: Place) -> list[Tile]:
        """Of the shard at some rows and columns."""
        rows, columns = (
            spans(length, self.side, *self._reach, part.start, part.stop)
            for length, part in zip((self.height, self.width), place, strict=True)
        )
        return [Tile(row, column) for row in rows for column in columns]

    @property
    def tiles_of_all(self) -> list[Tile]:
        """Of all shards, row by row."""
        return [
            tile
            for top in range(0, self.height, ome_zarr.SHARD)
            for left in range(0, self.width, ome_zarr.SHARD)
            for tile in self.tiles(
                (
                    slice(top, min(top + ome_zarr.SHARD, self.height)),
                    slice(left, min(left + ome_zarr.SHARD, self.width)),
                )
            )
        ]

    def needed(self, tiles: Sequence[Tile]) -> Place:
        """The rows and columns of the image that tiles read, mirrored ones included."""
        return (
            _needed([tile.rows for tile in tiles], self.height),
            _needed([tile.columns for tile in tiles], self.width),
        )


class _Counted:
    """Counts shards for whoever wants to know how far it is."""

    def __init__(self, done: int, total: int, tell: Callable[[int, int], None]) -> None:
        self.done, self.total, self._tell = done, total, tell

    def __call__(self) -> None:
        self.done += 1
        self._tell(self.done, self.total)


class ShardMaker:
    """Makes shards of an image, in any order.

    Args:
        strength: as of :class:`sincut.translation.tiles.TileWorker`.
        prepare: what the operator does before its first tile.

    ``passes`` are those that have to be whole before the first shard, where there are such.
    """

    def __init__(
        self,
        opened: Opened,
        operator: Operator,
        grid: Grid,
        image: WindowReader,
        mask: WindowReader | None,
        strength: float,
        prepare: Callable[[], None],
    ) -> None:
        self._opened, self._grid, self._image, self._mask = opened, grid, image, mask
        self._prepare: Callable[[], None] | None = prepare
        self.passes: SharedNorms | None = None
        if isinstance(operator, SharedNorms):
            self.passes = operator
            operator.begin(self._srgb, grid.side)
        layout = opened.layout
        self._engine = TileWorker(operator, layout.height, layout.width, layout.dtype, strength)
        self._moved: list[int] = []

    def read(self, place: Place) -> tuple[Array, Place]:
        """What a shard reads of the input, and which rows and columns these are."""
        down, across = self._grid.needed(self._grid.tiles(place))
        return self._image.read(down, across), (down, across)

    def prepare(self) -> None:
        """See the whole image where the operator has to; passes that are shared are whole."""
        if self._prepare is not None:
            self._prepare()
            self._prepare = None

    def make(self, place: Place) -> Array:
        """(rows, columns, channels) of the output."""
        self.prepare()
        opened, engine, grid = self._opened, self._engine, self._grid
        rows, columns = place
        tiles = grid.tiles(place)
        raw, (down, across) = self.read(place)
        rgb = in_srgb(opened.source, raw)
        mask = None if self._mask is None else weights_of(self._mask.read(rows, columns))
        made = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), engine.dtype)
        for tile in tiles:
            inside = (
                tile.rows.written_within(rows.start),
                tile.columns.written_within(columns.start),
            )
            weights = None if mask is None else mask[inside]
            window = window_of(rgb, tile, down.start, engine.height, across.start, engine.width)
            made[inside] = engine.start(window, tile, weights).wait()
        own = raw[
            rows.start - down.start : rows.stop - down.start,
            columns.start - across.start : columns.stop - across.start,
        ]
        own, nodata = own_in(opened.colours, opened.source, own)
        return final_pixels(made, own, mask, engine.strength, opened.colours, nodata, self._moved)

    def _srgb(self, rows: slice, columns: slice) -> Array:
        return in_srgb(self._opened.source, self._image.read(rows, columns))

    @property
    def notices(self) -> list[str]:
        """What is to be told of the shards that were made."""
        source, layout = self._image.source, self._opened.layout
        deep = layout.dtype == np.float32
        told = list(source.notices if deep else source.told_of_integers())
        if moved := sum(self._moved):
            told.append(
                f"{moved} of its pixels came out as the nodata value "
                f"{self._opened.source.nodata:g} and were moved by the smallest step"
            )
        return told


class ShardedImage(OneImage):
    """One input on its way to one OME-Zarr."""

    def run(
        self,
        on_plan: Callable[[Plan], None],
        on_tile: Callable[[int, int], None],
        on_share: Callable[[Share], None] | None = None,
    ) -> Translated | None:
        """Translate it, or this process's share of it; nothing is returned where others have more
        to do, and with ``dry_run``."""
        started = time.monotonic()
        config = self.config
        with ExitStack() as stack:
            opened = self._open(stack)
            working, operator = self._operator(opened.layout)
            stack.callback(operator.close)
            side = self._side(opened, operator)
            grid = Grid(opened.layout, operator, side)
            plan = self._shards_plan(opened, operator, grid)
            if config.dry_run:
                on_plan(plan)
                return None
            output = self._begun(opened, side)
            total = output.count(0)
            before = output.done(0)
            on_plan(replace(plan, done=before))
            maker = self._maker(opened, operator, grid, stack)
            parts, parts_done = _parts(maker.passes)
            tell = _Counted(before + parts_done, total + parts, on_tile)
            difference: list[float | None] = [None]

            def verify() -> None:
                maker.prepare()
                difference[0] = self._verified(operator, grid.tiles_of_all, side)

            with self._told(output):
                self._make(output, maker, tell)
                published = output.publish(verify if config.verify else lambda: None)
            notices = [*maker.notices, *opened.notices, *self.notices]
            notices += self._hints(opened.layout, working)
            notices += lost(opened.carried, config.strip_metadata)
            told = tuple(dict.fromkeys(notices))
            if not published:
                if on_share is not None:
                    on_share(Share(self.target, config.shard, output.done(0), total, told))
                return None
        return Translated(
            input=self.source,
            output=self.target,
            width=opened.layout.width,
            height=opened.layout.height,
            tiles=plan.tiles,
            seconds=time.monotonic() - started,
            notices=told,
            difference=difference[0],
        )

    @contextmanager
    def _told(self, output: OmeZarr) -> Iterator[None]:
        """What stops the work, with what is kept of it."""
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(
                f"{self.target} is {output.done(0)} of {output.count(0)} shards done; the same "
                "command with --resume goes on"
            ) from None
        except SincutError as error:
            if not output.done(0):
                raise
            raise SincutError(
                f"{error}; {output.done(0)} of {output.count(0)} shards are kept: --resume goes on "
                "with them, --force starts anew"
            ) from None

    def _check_place(self, layout: Layout) -> None:
        config = self.config
        resumed = config.resume or config.share[1] > 1
        check_place(self.target, force=config.force or config.dry_run or resumed)

    def _operator(self, layout: Layout) -> tuple[Working | None, Operator]:
        working, operator = super()._operator(layout)
        generator = self.model.generator
        if working is not None and self.config.shared:
            raise SincutError(
                "--working-width has to see the whole image first, which one process does; try "
                "without --workers, --shard and --cluster"
            )
        size = layout.height, layout.width
        if (
            working is None
            and isinstance(generator, ResnetGenerator)
            and max(size) > ome_zarr.SHARD
        ):
            where = ome_zarr.passes_folder(self.target)
            operator = SharedNorms(
                generator, self.config, *size, self.target.parent, where, ome_zarr.SHARD
            )
        return working, operator

    def _side(self, opened: Opened, operator: Operator) -> int:
        """The side of tiles; what was begun with an automatic one goes on with it."""
        config, layout = self.config, opened.layout
        if config.tile == "auto" and (config.resume or config.share[1] > 1):
            said = begun_with(self.target) or {}
            if isinstance(said.get("--tile"), int):
                return int(said["--tile"])
        automatic = AUTOMATIC_TILE[operator.device.type]
        held, in_use = self._held(opened, operator), memory_in_use()
        room = (memory_limit(config) - in_use) * 10 // 11 - held
        if config.tile == "auto":
            sides = [side for side in (automatic, *SMALL_SIDES) if side <= automatic]
            side, needed = fitting_side(
                operator, layout.height, layout.width, tuple(dict.fromkeys(sides)), room
            )
        else:
            side = min(config.tile_pixels(automatic, whole=ome_zarr.SHARD), ome_zarr.SHARD)
            _, needed = fitting_side(operator, layout.height, layout.width, (side,), room)
        if needed > room:
            least = in_use + _with_margin(held + needed)
            raise SincutError(
                f"translating {self.source} needs about {byte_text(least)} of memory, allowed are "
                f"{byte_text(memory_limit(config))}; try --max-memory {-(-least // 10**8) / 10:g}GB"
            )
        return side

    def _held(self, opened: Opened, operator: Operator) -> int:
        """Bytes that a shard takes beside its tiles."""
        layout, source = opened.layout, opened.source
        reach = ome_zarr.SHARD + 2 * align_up(operator.halo, operator.alignment)
        rows, columns = min(reach, layout.height), min(reach, layout.width)
        pixel = source.channels * max(source.dtype.itemsize, layout.dtype.itemsize)
        held = _COPIES * rows * columns * pixel + source.resident_bytes
        if not source.by_window:  # it is opened once more where a window begins further up
            held += source.resident_bytes
            held += 2 * rows * layout.width * source.channels * source.dtype.itemsize
        if opened.mask is not None:
            held += opened.mask.resident_bytes + 4 * rows * columns
        return held

    def _begun(self, opened: Opened, side: int) -> OmeZarr:
        config = self.config
        return OmeZarr.begin(
            self.target,
            opened.layout,
            None if config.strip_metadata else opened.carried.dpi,
            self._identity(opened, side),
            version=config.ome_zarr,
            resume=config.resume,
            force=config.force,
            joined=config.share[1] > 1,
        )

    def _make(self, output: OmeZarr, maker: ShardMaker, tell: Tell) -> None:
        """Make this process's shards that are not there, after the passes that come first."""
        index, count = self.config.share
        total = output.count(0)
        mine = range(total * index // count, total * (index + 1) // count)
        todo = output.missing(mine)
        if todo and maker.passes is not None:
            self.notices += make_passes(maker.passes, mine, index, tell)
        for each in todo:
            output.write(each, maker.make(output.place(0, each)))
            tell()

    def maker(self, stack: ExitStack) -> tuple[OmeZarr, ShardMaker]:
        """What was begun, and what makes its shards, until the stack ends."""
        opened = self._open(stack)
        _, operator = self._operator(opened.layout)
        stack.callback(operator.close)
        side = self._side(opened, operator)
        grid = Grid(opened.layout, operator, side)
        return self._begun(opened, side), self._maker(opened, operator, grid, stack)

    def _maker(
        self, opened: Opened, operator: Operator, grid: Grid, stack: ExitStack
    ) -> ShardMaker:
        image = WindowReader(opened.source, partial(self._opened, self.source, part=True))
        stack.callback(image.close)
        mask = None
        if opened.mask is not None:
            mask = WindowReader(opened.mask, partial(self._opened, opened.mask.path))
            stack.callback(mask.close)
        prepare = partial(operator.prepare, self._anew, grid.side, lambda: None)
        return ShardMaker(opened, operator, grid, image, mask, self.config.strength, prepare)

    def _shards_plan(self, opened: Opened, operator: Operator, grid: Grid) -> Plan:
        layout = opened.layout
        before = operator.preparation(grid.side)
        at_most, free = check_disk(self.target, layout, self.config, before.scratch_bytes)
        _, tiles = fitting_side(operator, layout.height, layout.width, (grid.side,), 0)
        return Plan(
            input=self.source,
            output=self.target,
            width=layout.width,
            height=layout.height,
            depth=depth_text(layout.dtype),
            tile=grid.side,
            tiles=len(grid.tiles_of_all),
            band=ome_zarr.SHARD,
            bands=-(-layout.height // ome_zarr.SHARD) * -(-layout.width // ome_zarr.SHARD),
            done=0,
            host_bytes=memory_in_use() + _with_margin(self._held(opened, operator) + tiles),
            device_bytes=operator.device_bytes(grid.side) if operator.device.type == "cuda" else 0,
            disk_bytes=at_most,
            free_bytes=free,
            passes=before.passes,
            scratch_bytes=before.scratch_bytes,
            workers=self.config.workers,
            part="shard",
        )


def _with_margin(needed: int) -> int:
    """Bytes at the peak: the allocator keeps some of what was freed."""
    return needed + needed // 10


def _parts(passes: SharedNorms | None) -> tuple[int, int]:
    """How many parts passes have, and how many of them are there."""
    return (0, 0) if passes is None else (passes.count * passes.parts, passes.done())


def _needed(spans_of: Sequence[Span], length: int) -> slice:
    """The pixels of an axis that spans read, mirrored ones included."""
    ends = [
        index for span in spans_of for index in reflected(span.read_start, span.read_stop, length)
    ]
    return slice(min(ends), max(ends) + 1)
