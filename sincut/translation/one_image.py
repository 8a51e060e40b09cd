"""One input on its way to one output: opened, planned, translated, and what was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sincut.compute.devices import limit_threads
from sincut.compute.memory import keep_freed_memory, memory_in_use
from sincut.config.parts import learned_share
from sincut.config.training import PairConfig
from sincut.config.translating import TranslateConfig
from sincut.config.values import FULL, LEARNED, range_text
from sincut.errors import Interrupted, SincutError
from sincut.files import file_digest
from sincut.images.geo import nodata_of, without_nodata
from sincut.images.identity import is_zarr
from sincut.images.metadata import KeptMetadata
from sincut.images.profiles import Colours, require_depth
from sincut.images.reading.asked import AS_STORED, AskedValues, Region
from sincut.images.reading.open import open_source
from sincut.images.reading.source import Source
from sincut.images.writing.formats import (
    check,
    depth_notice,
    finishing_seconds,
    is_tiff,
    output_dtype,
)
from sincut.images.writing.layout import Layout
from sincut.images.writing.part_file import begun
from sincut.images.writing.writer import Writer
from sincut.models.generator import Generator
from sincut.models.model_file import load_model, model_file
from sincut.translation.bands import InputRows, tile_output, translate_bands
from sincut.translation.brushwork import brushed
from sincut.translation.deep_zoom_page import check_page, is_deep_zoom, write_page
from sincut.translation.learned import learned_bands, learned_values
from sincut.translation.operators import ImageRows, Operator
from sincut.translation.plan import Cut, Plan, check_disk, cut, cut_bands, seconds_left
from sincut.translation.tiles import TileWorker, memory_limit, operator_of
from sincut.translation.tiling import Band, Tile
from sincut.translation.working_size import GuidedUpsampling, Working, working_at
from sincut.version import __version__

# An image this many times as wide as what the model learned on has textures that look small.
_MUCH_LARGER = 2.0
_LARGEST_OTHER = 512  # pixels: of a tile that is translated again
_WORTH_TIMING = 40  # tiles: with fewer, timing one first takes longer than it tells


@dataclass(frozen=True)
class Translated:
    """A written output. ``difference`` is that of ``verify`` in units of 1/255, or absent.

    ``splits`` says how often a tile was halved because memory ended.
    """

    input: Path
    output: Path
    width: int
    height: int
    tiles: int
    seconds: float
    notices: tuple[str, ...] = ()
    difference: float | None = None
    splits: int = 0


@dataclass(frozen=True)
class LoadedModel:
    """A generator on its device with what translating asks about it.

    ``path`` is that of its file and ``digest`` the file's, ``learned`` the largest width in pixels
    at which training saw the content, where that is known. ``values`` says which of the content's
    values it saw, and ``bands`` which bands, where these are not the first ones.
    """

    path: Path
    generator: Generator
    digest: str
    learned: int | None
    values: AskedValues = AS_STORED
    bands: str = ""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.generator.parameters()).device


def learned_width(header: Mapping[str, Any]) -> int | None:
    """The largest width in pixels at which training saw the content, from a model's header; with
    brushwork the content's own, whose strokes it has. ``None`` of an imported generator.
    """
    content = header.get("content") or {}
    if "width" not in content or "zoom" not in header.get("config", {}):
        return None
    # Another version may have had other fields as well.
    known = {field.name for field in fields(PairConfig)}
    config = PairConfig.from_dict({k: v for k, v in header["config"].items() if k in known})
    width = int(content["width"])
    return width if config.brushwork else round(width * learned_share(width, config))


def loaded_model(path: Path, device: torch.device) -> LoadedModel:
    """The generator of a model file, where it is to compute."""
    trained = load_model(path)
    limit_threads()
    if device.type == "cpu":
        keep_freed_memory()
    trained.generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = file_digest(model_file(path))
    header = trained.header
    learned = learned_width(header), learned_values(header), learned_bands(header)
    return LoadedModel(path, trained.generator, digest, *learned)


@dataclass(frozen=True)
class Opened:
    """An input that is open, with what its output will be.

    ``carried`` is what is kept of the file beside its pixels, ``colours`` what the output's are
    converted into, ``notices`` what is lost.
    """

    source: Source
    mask: Source | None
    layout: Layout
    carried: KeptMetadata
    colours: Colours
    notices: list[str]


@dataclass(frozen=True)
class Planned:
    """How an opened input is translated: by which operator, in which tiles and bands."""

    working: Working | None
    operator: Operator
    chosen: Cut
    parts: list[Band]
    engine: TileWorker
    plan: Plan


class OneImage:
    """One input on its way to one output: opened, planned, translated."""

    def __init__(
        self, model: LoadedModel, source: Path, target: Path, config: TranslateConfig
    ) -> None:
        self.model, self.source, self.target, self.config = model, source, target, config
        self.notices: list[str] = []  # of the work itself
        self.asked = AskedValues.of(config)
        if config.range == LEARNED:
            self.asked = replace(model.values, bands=self.asked.bands, copied=self.asked.copied)

    def run(
        self, on_plan: Callable[[Plan], None], on_tile: Callable[[int, int], None]
    ) -> Translated | None:
        """Translate it, or with ``dry_run`` only plan it."""
        started = time.monotonic()
        with ExitStack() as stack:
            opened = self._open(stack)
            self._refuse_shares()
            planned = self._planned(opened)
            stack.callback(planned.operator.close)
            layout, engine = opened.layout, planned.engine
            if self.config.dry_run:
                on_plan(replace(planned.plan, seconds=self._seconds(planned, planned.parts)))
                return None
            writer = stack.enter_context(self._writer(opened, planned.chosen))
            told, lost = self._translate(opened, planned, writer, stack, on_plan, on_tile)
            tiles = [tile for band in planned.parts for tile in band.tiles]
            difference = self._verified(planned.operator, tiles, planned.chosen.window)
        hints = self._hints(layout, planned.working)
        return Translated(
            input=self.source,
            output=self.target,
            width=layout.width,
            height=layout.height,
            tiles=planned.plan.tiles,
            seconds=time.monotonic() - started,
            notices=tuple(dict.fromkeys((*told, *opened.notices, *self.notices, *hints, *lost))),
            difference=difference,
            splits=engine.splits,
        )

    def _open(self, stack: ExitStack) -> Opened:
        source = stack.enter_context(self._opened(self.source, part=True))
        if self.asked.automatic:  # what is found is the same the next time
            found = source.colours.range
            self.asked = replace(self.asked, automatic=False, range=found)
        mask = self._mask(source, stack)
        layout, carried, colours, notices = self._output(source)
        self._check_place(layout)
        return Opened(source, mask, layout, carried, colours, notices)

    def _planned(self, opened: Opened) -> Planned:
        layout = opened.layout
        working, operator = self._operator(layout)
        chosen = self._cut(opened, operator)
        parts = cut_bands(chosen, layout, operator)
        engine = TileWorker(
            operator, layout.height, layout.width, layout.dtype, self.config.strength
        )
        plan = self._plan(layout, operator, chosen, parts, working)
        return Planned(working, operator, chosen, parts, engine, plan)

    def _translate(
        self,
        opened: Opened,
        planned: Planned,
        writer: Writer,
        stack: ExitStack,
        on_plan: Callable[[Plan], None],
        on_tile: Callable[[int, int], None],
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Write what is not there yet; what is to be told of the input, and what the format could
        not hold, in lines."""
        reading, operator, window = opened.source, planned.operator, planned.chosen.window
        before = operator.preparation(window)
        try:
            todo = list(enumerate(planned.parts))[writer.done :]
            on_plan(self._of_the_rest(planned, writer, todo))
            total = before.windows + planned.plan.tiles
            counted = _Counter(total, todo, before.windows, on_tile)
            if before.passes and (todo or self.config.verify):
                reading.close()  # it may be a whole image in memory
                operator.prepare(self._anew, window, counted)
                reading = stack.enter_context(self._opened(self.source, part=True))
            if todo:
                rows = InputRows(reading, opened.mask)
                translate_bands(rows, planned.engine, writer, todo, opened.colours, counted)
                reading.close()
                if moved := sum(rows.moved):
                    self.notices.append(
                        f"{moved} of its pixels came out as the nodata value {reading.nodata:g} "
                        "and were moved by the smallest step"
                    )
            if is_deep_zoom(self.target):  # first: the result's name says that all is there
                again = partial(self._opened, self.source, part=True)
                write_page(self.target, opened.layout, again)
            deep = opened.layout.dtype == np.float32
            return reading.notices if deep else reading.told_of_integers(), writer.finish()
        except KeyboardInterrupt:
            raise Interrupted(self._interrupted(writer)) from None
        except SincutError as error:
            raise self._failed(error, writer) from None

    def _mask(self, source: Source, stack: ExitStack) -> Source | None:
        if not self.config.mask:
            return None
        mask = stack.enter_context(self._opened(Path(self.config.mask)))
        if (mask.width, mask.height) != (source.width, source.height):
            raise SincutError(
                f"the mask {mask.path} has {mask.width}×{mask.height} pixels, and {source.path} "
                f"{source.width}×{source.height}; try one of the image's size"
            )
        return mask

    def _check_place(self, layout: Layout) -> None:
        config, target = self.config, self.target
        if not (config.dry_run and not target.parent.exists()):  # it would be created
            check(target, layout)
        if is_deep_zoom(target):
            going_on = config.resume and begun(target) is not None
            check_page(target, force=config.force or config.dry_run or going_on)

    def _operator(self, layout: Layout) -> tuple[Working | None, Operator]:
        generator, config, told = self.model.generator, self.config, self.notices.append
        size, folder = (layout.height, layout.width), self.target.parent
        working = working_at(generator, config, *size, folder)
        if working is not None:
            carried = GuidedUpsampling(generator, config, *size, working)
            return working, brushed(carried, generator, config, *size)
        return None, operator_of(generator, config, *size, folder, told)

    @contextmanager
    def _anew(self) -> Iterator[ImageRows]:
        """The image, read once more from its top."""
        with self._opened(self.source, part=True) as source:
            yield InputRows(source)

    def _cut(self, opened: Opened, operator: Operator) -> Cut:
        """How it is cut; what was begun with an automatic tile goes on as it was cut then."""
        before = None
        if self.config.resume and self.config.tile == "auto" and (said := begun(self.target)):
            before = Cut(said.get("--tile", 0), said.get("band height", 0), 0, 0)
        return cut(
            opened.source,
            opened.layout,
            operator,
            self.config,
            target=self.target,
            mask=opened.mask,
            before=before if before and before.tile and before.band else None,
        )

    def _of_the_rest(
        self, planned: Planned, writer: Writer, todo: Sequence[tuple[int, Band]]
    ) -> Plan:
        """The plan with what is done already, and the time of what is left."""
        left = [band for _, band in todo]
        seconds = None
        if sum(len(band.tiles) for band in left) >= _WORTH_TIMING:
            seconds = self._seconds(planned, left)
        return replace(planned.plan, done=writer.done, seconds=seconds)

    def _opened(self, path: Path, *, part: bool = False) -> Source:
        """An image; ``part``: only the level, region, bands and range that are asked for."""
        config = self.config
        return open_source(
            path,
            max_pixels=config.max_pixels,
            max_memory=memory_limit(config),
            held=memory_in_use(),
            level=config.level if part else 0,
            region=Region.of(config.region) if part else None,
            asked=self.asked if part else AS_STORED,
        )

    def _output(self, source: Source) -> tuple[Layout, KeptMetadata, Colours, list[str]]:
        """What the output holds and carries, into which colours it goes, and what is lost."""
        dtype = output_dtype(self.target, source.dtype, self.config.depth)
        notice = depth_notice(self.target, source.dtype) if self.config.depth == "auto" else None
        if dtype != np.uint8 and self.config.precision == "bf16":
            raise SincutError(
                f"{self.target} gets {depth_text(dtype)}, and bf16 keeps about 8 bits; try "
                "--precision fp32, or --depth 8"
            )
        carried, colours = source.carried, source.colours
        notices = [notice] if notice else []
        if dtype != source.dtype:
            colours = replace(colours, range=None)
        if is_deep_zoom(self.target) or is_zarr(self.target):  # viewers take them for sRGB
            if is_zarr(self.target) and colours.converted:
                notices.append("its colours become sRGB: OME-Zarr holds no profile")
            kept = colours.range if is_zarr(self.target) else None
            carried, colours = replace(carried, profile=None), Colours(range=kept)
        require_depth(self.target, colours, dtype)
        self._check_others(source, dtype)
        layout = Layout(source.height, source.width, source.channels, dtype, source.others)
        notices += self._of_values(source, colours)
        other = "the depth is another" if dtype != source.dtype else ""
        if source.nodata is None and nodata_of(carried.geo, source.dtype) is not None:
            other = "its values come as other numbers"  # of a profile, inverted or premultiplied
        if other and nodata_of(carried.geo, source.dtype) is not None:
            carried = replace(carried, geo=without_nodata(carried.geo))
            notices.append(f"its GDAL_NODATA is not kept: {other}")
        return layout, carried, colours, notices

    def _check_others(self, source: Source, dtype: np.dtype[Any]) -> None:
        """Refuse to copy bands where they would not come out as they are."""
        if not self.asked.copied:
            return
        if not is_tiff(self.target):
            raise SincutError(
                f"{self.target} cannot be written: bands are copied into a TIFF only; try "
                f"{self.target.with_suffix('.tif').name}, or --other-bands drop"
            )
        if source.others and dtype != source.dtype:
            raise SincutError(
                f"{self.target} gets {depth_text(dtype)}, and the bands that are copied have "
                f"{depth_text(source.dtype)}; try --depth auto, or --other-bands drop"
            )

    def _of_values(self, source: Source, colours: Colours) -> list[str]:
        """What is to be told of how the values are taken, and written."""
        told = []
        if source.colours.range and not colours.range:
            told.append("the output has other values: black to white fill its type")
        learned = self.model.values
        if self.config.range == LEARNED and learned.range and not source.colours.range:
            told.append(
                f"the model learned {learned.kind} values {range_text(learned.range)}, and all "
                f"{source.dtype.name} values are taken here; try --range"
            )
        if self.model.bands and not self.config.bands:
            told.append(
                f"the model learned bands {self.model.bands}, and the first ones are taken here; "
                f"try --bands {self.model.bands}"
            )
        return told

    def _writer(self, opened: Opened, chosen: Cut) -> Writer:
        config = self.config
        return Writer.open(
            self.target,
            opened.layout,
            opened.carried,
            band_rows=chosen.band,
            identity=self._identity(opened, chosen.tile),
            compression=config.compression,
            pyramid=config.pyramid,
            strip_metadata=config.strip_metadata,
            resume=config.resume,
            force=config.force,
        )

    def _identity(self, opened: Opened, tile: int) -> dict[str, Any]:
        """What decides the pixels, by names that a person understands."""
        config, mask = self.config, opened.mask
        return {
            "version of sincut": __version__,
            "model": self.model.digest,
            "input image": _file_identity(self.source),
            "mask": _file_identity(mask.path) if mask is not None else None,
            "--level": config.level,
            "--region": list(config.region),
            "--tile": tile,
            "--border": config.border,
            "--seed": config.seed,
            "--precision": config.precision,
            "--strength": config.strength,
            "--working-width": config.working_width,
            "--brushwork": config.brushwork,
            "--range": range_text(taken) if (taken := opened.source.colours.range) else FULL,
            "--bands": config.bands,
            "--other-bands": config.other_bands,
            "device": self.model.device.type,
        }

    def _plan(
        self,
        layout: Layout,
        operator: Operator,
        chosen: Cut,
        parts: Sequence[Band],
        working: Working | None,
    ) -> Plan:
        before = operator.preparation(chosen.window)
        at_most, free = check_disk(self.target, layout, self.config, before.scratch_bytes)
        return Plan(
            input=self.source,
            output=self.target,
            width=layout.width,
            height=layout.height,
            depth=depth_text(layout.dtype),
            tile=min(chosen.tile, max(layout.height, layout.width)),
            tiles=sum(len(band.tiles) for band in parts),
            band=min(chosen.band, layout.height),
            bands=len(parts),
            done=0,
            host_bytes=chosen.host_bytes,
            device_bytes=chosen.device_bytes,
            disk_bytes=at_most,
            free_bytes=free,
            working=(working.width, working.height) if working else None,
            passes=before.passes,
            scratch_bytes=before.scratch_bytes,
        )

    def _seconds(self, planned: Planned, todo: Sequence[Band]) -> float:
        """How long computing takes, with what comes before the first tile and after the last."""
        rehearsed, before = planned.operator.rehearsal(planned.chosen.window)
        engine = planned.engine
        worker = TileWorker(rehearsed, engine.height, engine.width, engine.dtype, engine.strength)
        layout = Layout(engine.height, engine.width, 3, engine.dtype)
        return before + seconds_left(worker, todo) + finishing_seconds(self.target, layout)

    def _hints(self, layout: Layout, working: Working | None) -> list[str]:
        """That the image is much larger than what the model has seen, where it is."""
        if working is not None or layout.width < _MUCH_LARGER * (
            self.model.learned or layout.width
        ):
            return []
        return [
            f"the model learned at widths up to {self.model.learned} pixels, so that its textures "
            f"are small here; try --working-width {self.model.learned} for larger ones"
        ]

    def _interrupted(self, writer: Writer) -> str:
        if not writer.done:
            return f"{self.target} was not written: no part of it was finished"
        return (
            f"{self.target} is {writer.done} of {writer.bands} bands done; the same command with "
            "--resume goes on"
        )

    def _failed(self, error: SincutError, writer: Writer) -> SincutError:
        """The error, with what it leaves behind where it does not say so itself."""
        if not writer.done or "are kept" in str(error):
            return error
        return SincutError(
            f"{error}; {writer.done} of {writer.bands} bands are kept: --resume goes on with them, "
            "--force starts anew"
        )

    def _refuse_shares(self) -> None:
        if self.config.shared:
            raise SincutError(
                f"several processes share an image that is written as OME-Zarr, got {self.target}; "
                f"try {self.target.with_suffix('.ome.zarr').name}"
            )

    def _verified(self, operator: Operator, tiles: Sequence[Tile], window: int) -> float | None:
        """Largest difference of some tiles to the same by other windows, in 1/255, if asked for."""
        if not self.config.verify:
            return None
        count = min(self.config.verify, len(tiles))
        chosen = [tiles[i] for i in np.linspace(0, len(tiles) - 1, count).round().astype(int)]
        outputs = [self._made(operator, tile) for tile in chosen]
        operator.close()
        longest = max(max(tile.rows.stop, tile.columns.stop) for tile in tiles)
        side = 3 * min(window, longest, _LARGEST_OTHER) // 4
        with closing(operator.another()) as other:
            other.prepare(self._anew, side, lambda: None)
            worst = max(
                float((self._made(other, tile) - output).abs().max())
                for tile, output in zip(chosen, outputs, strict=True)
            )
        return 127.5 * worst

    def _made(self, operator: Operator, tile: Tile) -> Tensor:
        with self._opened(self.source, part=True) as source:
            return tile_output(operator, source, tile)


class _Counter:
    """Counts windows before the first tile, and tiles, for whoever wants to know how far it is."""

    def __init__(
        self,
        total: int,
        todo: Sequence[tuple[int, Band]],
        before: int,
        tell: Callable[[int, int], None],
    ) -> None:
        self.total, self.tell = total, tell
        self.done = total - sum(len(band.tiles) for _, band in todo) - before

    def __call__(self) -> None:
        self.done += 1
        self.tell(self.done, self.total)


def depth_text(dtype: np.dtype[Any]) -> str:
    """What a sample is, for a person."""
    return "floats" if dtype == np.float32 else f"{8 * dtype.itemsize} bits per channel"


def _file_identity(path: Path) -> list[Any]:
    """A huge file's name, size and time of change tell it apart; reading all of it takes long."""
    status = (path / "zarr.json" if (path / "zarr.json").exists() else path).stat()
    return [path.name, status.st_size, status.st_mtime_ns]
