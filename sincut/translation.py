"""Translate image files of any size: plan, open, go through the bands, and what was interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sincut import __version__
from sincut.batch import found_inputs, planned_outputs
from sincut.checkpoint import load_model, model_file
from sincut.config import TrainConfig, TranslateConfig
from sincut.crops import zoom_range
from sincut.deepzoom import check_page, is_deep_zoom, write_page
from sincut.depth import as_depth
from sincut.detail import CarriedLook, ReducedRows, working_size
from sincut.devices import chosen_device, limit_threads, memory_in_use
from sincut.engine import AUTOMATIC_TILE, Carry, Engine, Network, Operator, translate_pixels
from sincut.errors import Interrupted, SincutError
from sincut.images import file_digest
from sincut.metadata import Carried
from sincut.networks import Generator
from sincut.outputs import (
    BAND_STEP,
    Layout,
    Writer,
    begun,
    check,
    depth_notice,
    output_dtype,
)
from sincut.pipeline import Rows, in_srgb, tile_difference, translate_bands
from sincut.plan import Cut, Plan, check_disk, cut, cut_bands, memory_limit, seconds_left
from sincut.profiles import Colours
from sincut.replay import own_stream
from sincut.sources import Source, open_source
from sincut.tiling import Band, bands

Array = npt.NDArray[Any]

# An image this many times as wide as what the model learned on has textures that look small.
_MUCH_LARGER = 2.0
_WORTH_TIMING = 40  # tiles: with fewer, timing one first takes longer than it tells


@dataclass(frozen=True)
class Progress:
    """One finished tile: ``done`` of ``total`` tiles of image ``index`` (from 1) of ``count``."""

    path: Path
    index: int
    count: int
    done: int
    total: int


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


def load_generator(path: Path | str) -> Generator:
    """The generator of a model file or run folder, as a module on the CPU, in evaluation mode.

    It takes (N, 3, H, W) of about [-1, 1] and returns the same shape, zero-padded inside, not
    clamped, without noise unless it is given as the second argument
    (``generator.position_noise``).
    """
    return load_model(Path(path)).generator


def translate(
    model: Path | str,
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    on_tile: Callable[[Progress], None] | None = None,
    on_image: Callable[[Translated], None] | None = None,
    **options: Any,
) -> list[Translated]:
    """Translate image files at their full size, in bounded memory.

    Args:
        model: a run folder or model file.
        inputs: image files, folders of them, or patterns.
        output: a file for one input (its ending names the format), or a folder, where each output
            takes its input's name (with ``.png`` added where its format cannot be written).
        on_plan, on_tile, on_image: called before an image, after every tile, after every image.
        options: fields of :class:`sincut.config.TranslateConfig`.

    Returns:
        One entry per input that was translated, in order; none with ``dry_run``.

    Raises:
        SincutError: for what is wrong with options, model or paths before any work; for inputs
            that failed after the others were done.
        Interrupted: on Ctrl-C or SIGTERM; finished bands are kept for ``resume``.
    """
    config = TranslateConfig().replaced(**options)
    device = torch.device(chosen_device(config.device))
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    output = Path(output)
    pairs = planned_outputs(
        found_inputs(given, output),
        output,
        force=config.force,
        skip=lambda target: config.skip_existing or (config.resume and not begun(target)),
    )
    if not pairs:
        return []
    trained = load_model(Path(model))
    generator, learned = trained.generator, learned_width(trained.header)
    if pairs[0][1] != output and not config.dry_run:
        _make_folder(output)
    limit_threads()
    generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = file_digest(model_file(Path(model)))

    results, failures = [], []
    with own_stream(device.type), _stoppable():
        for index, (source, target) in enumerate(pairs, start=1):

            def report(done: int, total: int, source: Path = source, index: int = index) -> None:
                if on_tile is not None:
                    on_tile(Progress(source, index, len(pairs), done, total))

            try:
                job = _Job(generator, learned, digest, source, target, config)
                result = job.run(on_plan or (lambda plan: None), report)
            except SincutError as error:
                failures.append(str(error))
                continue
            if result is None:
                continue
            results.append(result)
            if on_image is not None:
                on_image(result)
    if failures:
        told = "; ".join(failures)
        raise SincutError(
            told if len(pairs) == 1 else f"{len(failures)} of {len(pairs)} images failed: {told}"
        )
    return results


def learned_width(header: Mapping[str, Any]) -> int | None:
    """The largest width in pixels at which training saw the content, from a model's header.

    ``None`` where that is not known: of an imported generator.
    """
    content = header.get("content") or {}
    if "width" not in content or "zoom" not in header.get("config", {}):
        return None
    config = TrainConfig.from_dict(header["config"])
    width = int(content["width"])
    return round(width * zoom_range(width, config)[1])


class _Job:
    """One input on its way to one output."""

    def __init__(
        self,
        generator: Generator,
        learned: int | None,
        digest: str,
        source: Path,
        target: Path,
        config: TranslateConfig,
    ) -> None:
        self.generator, self.learned, self.digest = generator, learned, digest
        self.source, self.target, self.config = source, target, config
        self.device = next(generator.parameters()).device

    def run(
        self, on_plan: Callable[[Plan], None], report: Callable[[int, int], None]
    ) -> Translated | None:
        """Translate it, or with ``dry_run`` only plan it."""
        started = time.monotonic()
        config, target = self.config, self.target
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(self._opened(self.source))
            mask = None
            if config.mask:
                mask = stack.enter_context(self._opened(Path(config.mask)))
                _check_mask(mask, source)
            layout, carried, colours, notices = self._output(source)
            check(target, layout)
            if is_deep_zoom(target):
                check_page(target, force=config.force or config.resume)
            operator, working, held = self._operator(layout)
            chosen = cut(source, layout, operator, config, target=target, held=held, mask=mask)
            parts = cut_bands(chosen, layout, operator)
            engine = Engine(operator, layout.height, layout.width, layout.dtype, config.strength)
            plan = self._plan(layout, chosen, parts, working)
            if config.dry_run:
                on_plan(replace(plan, seconds=self._seconds(engine, parts, working)))
                return None
            writer = stack.enter_context(self._writer(layout, carried, chosen, mask))
            todo = list(enumerate(parts))[writer.done :]
            done = plan.tiles - sum(len(band.tiles) for _, band in todo)
            seconds = None
            if plan.tiles - done >= _WORTH_TIMING:
                seconds = self._seconds(engine, [band for _, band in todo], working)
            on_plan(replace(plan, done=writer.done, seconds=seconds))

            def on_tile() -> None:
                nonlocal done
                done += 1
                report(done, plan.tiles)

            try:
                if todo:
                    if isinstance(operator, Carry):
                        operator.look = self._look(layout, working)
                    translate_bands(Rows(source, mask), engine, writer, todo, colours, on_tile)
                if is_deep_zoom(target):  # first: the result's name says that all is there
                    write_page(target, layout, lambda: self._opened(self.source))
                lost = writer.finish()
            except KeyboardInterrupt:
                raise Interrupted(self._interrupted(writer.done, len(parts))) from None
            told = (*source.notices, *notices, *self._hints(layout, working), *lost)
        return Translated(
            input=self.source,
            output=target,
            width=layout.width,
            height=layout.height,
            tiles=plan.tiles,
            seconds=time.monotonic() - started,
            notices=tuple(dict.fromkeys(told)),
            difference=self._verified(parts) if config.verify else None,
            splits=engine.splits,
        )

    def _opened(self, path: Path) -> Source:
        room = max(memory_limit(self.config) - memory_in_use(), 0)
        return open_source(path, max_pixels=self.config.max_pixels, max_memory=room)

    def _output(self, source: Source) -> tuple[Layout, Carried, Colours, list[str]]:
        """What the output holds and carries, into which colours it goes, and what is lost."""
        dtype = output_dtype(self.target, source.dtype, self.config.depth)
        notice = depth_notice(self.target, source.dtype) if self.config.depth == "auto" else None
        if dtype != np.uint8 and self.config.precision == "bf16":
            raise SincutError(
                f"{self.target} gets {_depth_text(dtype)}, and bf16 keeps about 8 bits; try "
                "--precision fp32, or --depth 8"
            )
        carried, colours = source.carried, source.colours
        if is_deep_zoom(self.target):  # web pages take every tile for sRGB
            carried, colours = Carried(), Colours()
        layout = Layout(source.height, source.width, source.channels, dtype)
        return layout, carried, colours, [notice] if notice else []

    def _operator(self, layout: Layout) -> tuple[Operator, tuple[int, int] | None, int]:
        """What is applied to windows, the working size (rows, columns) if it is not the image's
        own, and the bytes that the small images take."""
        config = self.config
        wanted = config.working_width or round(config.scale * layout.width)
        working = working_size(layout.height, layout.width, max(wanted, 1))
        if working == (layout.height, layout.width):
            return Network(self.generator, config, record=True), None, 0
        return Carry(self.device), working, 120 * working[0] * working[1]

    def _look(self, layout: Layout, working: tuple[int, int] | None) -> CarriedLook:
        """The image reduced to the working size, and its translation."""
        assert working is not None
        small = ReducedRows(layout.height, layout.width, *working)
        with self._opened(self.source) as source:
            for start in range(0, layout.height, BAND_STEP):
                rows = source.rows(start, min(start + BAND_STEP, layout.height))
                small.add(as_depth(in_srgb(source, rows), np.dtype(np.float32)) * 2 - 1)
        content = small.result()
        look = translate_pixels(self.generator, (content + 1) / 2, self.config) * 2 - 1
        return self._carried(content, look, layout)

    def _carried(self, content: Array, look: Array, layout: Layout) -> CarriedLook:
        content_planes, look_planes = (
            torch.from_numpy(each).permute(2, 0, 1).contiguous().to(self.device)
            for each in (content, look)
        )
        return CarriedLook(content_planes, look_planes, layout.height, layout.width)

    def _writer(self, layout: Layout, carried: Carried, chosen: Cut, mask: Source | None) -> Writer:
        config = self.config
        identity = {
            "version of sincut": __version__,
            "model": self.digest,
            "input image": _file_identity(self.source),
            "mask": _file_identity(mask.path) if mask is not None else None,
            "--tile": chosen.tile,
            "--border": config.border,
            "--seed": config.seed,
            "--precision": config.precision,
            "--strength": config.strength,
            "--scale": config.scale,
            "--working-width": config.working_width,
            "device": self.device.type,
        }
        return Writer.open(
            self.target,
            layout,
            carried,
            band_rows=chosen.band,
            identity=identity,
            compression=config.compression,
            pyramid=config.pyramid,
            strip_metadata=config.strip_metadata,
            resume=config.resume,
            force=config.force,
        )

    def _plan(
        self,
        layout: Layout,
        chosen: Cut,
        parts: Sequence[Band],
        working: tuple[int, int] | None,
    ) -> Plan:
        at_most, free = check_disk(self.target, layout, self.config)
        return Plan(
            input=self.source,
            output=self.target,
            width=layout.width,
            height=layout.height,
            depth=_depth_text(layout.dtype),
            tile=min(chosen.tile, max(layout.height, layout.width)),
            tiles=sum(len(band.tiles) for band in parts),
            band=min(chosen.band, layout.height),
            bands=len(parts),
            done=0,
            host_bytes=chosen.host_bytes,
            device_bytes=chosen.device_bytes,
            disk_bytes=at_most,
            free_bytes=free,
            working=working and (working[1], working[0]),
        )

    def _seconds(
        self, engine: Engine, todo: Sequence[Band], working: tuple[int, int] | None
    ) -> float:
        """How long computing takes; with a working size, in the network and in carrying."""
        if working is None:
            return seconds_left(engine, todo)
        network = Network(self.generator, self.config)
        small = Engine(network, *working, np.dtype(np.float32))
        side = AUTOMATIC_TILE[self.device.type]
        cuts = bands(*working, working[0], side, network.halo, network.alignment, network.border)
        carry = Carry(self.device)
        nothing = np.zeros((*working, 3), np.float32)
        layout = Layout(engine.height, engine.width, 3, engine.dtype)
        carry.look = self._carried(nothing, nothing, layout)
        carrying = Engine(carry, engine.height, engine.width, engine.dtype, engine.strength)
        return seconds_left(small, cuts) + seconds_left(carrying, todo)

    def _hints(self, layout: Layout, working: tuple[int, int] | None) -> list[str]:
        """That the image is much larger than what the model has seen, where it is."""
        if working is not None or layout.width < _MUCH_LARGER * (self.learned or layout.width):
            return []
        return [
            f"the model learned at widths up to {self.learned} pixels, so that its textures are "
            f"small here; try --working-width {self.learned} for larger ones"
        ]

    def _interrupted(self, done: int, bands: int) -> str:
        if not done:
            return f"{self.target} was not written: no part of it was finished"
        return (
            f"{self.target} is {done} of {bands} bands done; the same command with --resume goes on"
        )

    def _verified(self, parts: Sequence[Band]) -> float | None:
        """Largest difference of some tiles to the same with twice the halo, in 1/255."""
        network = Network(self.generator, self.config)
        tiles = [tile for band in parts for tile in band.tiles]
        count = min(self.config.verify, len(tiles))
        chosen = np.linspace(0, len(tiles) - 1, count).round().astype(int)
        differences = []
        for tile in (tiles[i] for i in chosen):
            with self._opened(self.source) as source:
                differences.append(tile_difference(network, source, tile))
        return 127.5 * max(differences)


def _check_mask(mask: Source, source: Source) -> None:
    if (mask.width, mask.height) != (source.width, source.height):
        raise SincutError(
            f"the mask {mask.path} has {mask.width}×{mask.height} pixels, and {source.path} "
            f"{source.width}×{source.height}; try one of the image's size"
        )


def _depth_text(dtype: np.dtype[Any]) -> str:
    return "floats" if dtype == np.float32 else f"{8 * dtype.itemsize} bits per channel"


def _file_identity(path: Path) -> list[Any]:
    """A huge file's name, size and time of change tell it apart; reading all of it takes long."""
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SincutError(f"cannot create the folder {path} ({error.strerror})") from None


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C. Outside the main thread Python cannot catch signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
