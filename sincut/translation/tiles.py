"""A generator over windows of pixels: tile by tile, with a tile in flight, halved when memory ends.

Nothing here knows files. The law that makes it exact stands in :mod:`sincut.translation.tiling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.compute.cuda_graph import RecordedStep, not_recorded
from sincut.compute.devices import convolutions, mixed_precision
from sincut.compute.memory import out_of_memory
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.images.bit_depth import WHITE
from sincut.models.generator import Generator
from sincut.translation.guided_upsampling import SmallTranslation
from sincut.translation.tiling import Span, Tile, align_up, halved, reflected, tiles

Array = npt.NDArray[Any]

# Sides of automatic tiles in memory: a halo of 30 then adds 25 % of work on a CPU, 12 % on a GPU.
AUTOMATIC_TILE = {"cpu": 512, "cuda": 1024}
_SMALLEST = 32  # pixels: a tile of this side that does not fit will not fit in halves either
# Bytes that a window takes at the peak, by pixel and channel of G, and what does not grow with it;
# measured on a CPU for 4 to 80 channels, with a margin of about a tenth; of the second half, since
# how much freed memory the allocator keeps is chance.
_BYTES_PER_CHANNEL, _BYTES_ONCE = 24, 90_000_000


class Operator(Protocol):
    """What is applied to windows. Windows start at multiples of ``alignment`` and reach ``halo``
    further than what is wanted; ``border`` says what they hold beyond the image."""

    halo: int
    alignment: int
    border: str
    device: torch.device

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """(1, 3, rows read, columns read) of [-1, 1] → (1, 3, rows, columns) written, float32."""
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


class Network:
    """A generator as an operator.

    Args:
        record: on CUDA, record one graph per shape of window and replay it.
        on_notice: told in a line that windows could not be recorded; without it that is an error.
    """

    def __init__(
        self,
        generator: Generator,
        config: TranslateConfig,
        *,
        record: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.generator, self.config = generator, config
        self.halo, self.alignment = generator.halo, generator.alignment
        self.border = config.border
        parameter = next(generator.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._inputs: dict[tuple[int, int], list[Tensor]] = {}
        self.on_notice = on_notice
        record = record and self.device.type == "cuda"
        self._replayed = RecordedStep(self._generate, record=record, on_failure=self._not_recorded)

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """As :class:`Operator` says. What it returns is overwritten by the next call."""
        rows, columns = tile.rows, tile.columns
        height, width = image.shape[-2:]
        noise = self.generator.position_noise(
            self.config.seed, rows.read_start, columns.read_start, height, width, self.device
        )
        given, shape = [image.to(self.dtype), *noise], (height, width)
        if self._replayed.record:  # a recorded graph reads from where it was recorded
            kept = self._inputs.setdefault(shape, [torch.empty_like(each) for each in given])
            for to, each in zip(kept, given, strict=True):
                to.copy_(each)
        else:
            self._inputs[shape] = given
        output = self._replayed(shape)["image"]
        if not self._replayed.record:
            self._inputs.clear()
        return output[..., rows.core, columns.core]

    def host_bytes(self, rows: int, columns: int) -> int:
        """As :class:`Operator` says."""
        return window_bytes(self.generator, rows, columns)

    def device_bytes(self, side: int) -> int:
        """As :class:`Operator` says."""
        return device_bytes(self, side)

    def forget(self) -> None:
        """As :class:`Operator` says: recorded graphs."""
        self._inputs.clear()
        self._replayed = RecordedStep(self._generate, record=False)

    def _not_recorded(self, error: RuntimeError) -> None:
        if self.on_notice is None or out_of_memory(error):  # which smaller tiles may mend
            raise error
        self.on_notice(not_recorded("tiles", error))

    def _generate(self, shape: tuple[int, int]) -> dict[str, Tensor]:
        image, *noise = self._inputs[shape]
        precision = self.config.precision
        with mixed_precision(self.device.type, precision), convolutions(precision):
            return {"image": self.generator.generate(image, noise)[0].to(self.dtype)}


@dataclass(frozen=True)
class Pending:
    """A tile on its way; :meth:`wait` gives its (rows, columns, 3)."""

    pixels: Tensor
    ready: torch.cuda.Event | None = None

    def wait(self) -> Array:
        """The pixels, when they have arrived."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.pixels.numpy()


class GuidedUpsampling:
    """The look of a small translation, carried to the image's own size, as an operator.

    ``look`` is set once the small translation is there.
    """

    halo, alignment, border = 0, 1, "reflect"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.look: SmallTranslation | None = None

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """As :class:`Operator` says."""
        assert self.look is not None
        return self.look.window(image[0], tile.rows.start, tile.columns.start)[None]

    def host_bytes(self, rows: int, columns: int) -> int:
        """As :class:`Operator` says: a dozen maps of three channels."""
        return rows * columns * 3 * 4 * 12

    def device_bytes(self, side: int) -> int:
        """As :class:`Operator` says: too little to count."""
        return 0

    def forget(self) -> None:
        """As :class:`Operator` says; nothing is kept."""


class TileWorker:
    """Applies an operator to windows of an image of ``height`` × ``width``.

    Args:
        dtype: of the output; see :data:`sincut.images.bit_depth.WHITE`.
        strength: how much of the translation there is in the output, 0 … 1; the rest is content.
            They are mixed as sRGB values: half of it then looks like half, as an opacity does.
    """

    def __init__(
        self,
        operator: Operator,
        height: int,
        width: int,
        dtype: np.dtype[Any],
        strength: float = 1.0,
    ) -> None:
        self.operator, self.height, self.width = operator, height, width
        self.dtype, self.strength = dtype, strength
        self.most = height * width + 1  # pixels of a tile that memory is known not to forbid
        self.splits = 0
        self.device = operator.device
        # Up and down beside the work: the next tile's pixels and the last one's travel meanwhile.
        self._ups: torch.cuda.Stream | None = None
        self._downs: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._ups = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self._downs = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def start(self, window: Array, tile: Tile, mask: Array | None = None) -> Pending:
        """Begin with a tile. On CUDA this returns before the result is there.

        Args:
            window: (rows read, columns read, 3) sRGB, uint8, uint16 or float32.
            mask: (rows, columns) float32 weights of the translation, 0 … 1, or absent.
        """
        pixels = self._on_device(window)
        weights = None if mask is None else self._on_device(mask[..., None])
        result = self._translated(pixels, tile, weights)
        if self._downs is None:
            return Pending(result)
        self._downs.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._downs):
            there = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
            there.copy_(result, non_blocking=True)
            result.record_stream(self._downs)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(self._downs)
        return Pending(there, ready)

    def _on_device(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._ups is None:
            return tensor
        with torch.cuda.stream(self._ups):
            there = tensor.pin_memory().to(self.device, non_blocking=True)
        here = torch.cuda.current_stream(self.device)
        here.wait_stream(self._ups)
        there.record_stream(here)
        return there

    def _translated(self, window: Tensor, tile: Tile, weights: Tensor | None) -> Tensor:
        """The tile's (rows, columns, 3) in the output's depth, in halves where memory ends."""
        if _pixels(tile) <= self.most:
            problem = self._tried(window, tile, weights)
            if isinstance(problem, Tensor):
                return problem
            # The error is gone by now, and with it the tensors that its traceback kept alive.
            self.most = _pixels(tile) // 2
            self.splits += 1
            self.operator.forget()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        operator = self.operator
        halves = halved(
            tile, self.height, self.width, operator.halo, operator.alignment, operator.border
        )
        if halves is None or _pixels(tile) < _SMALLEST**2:
            written = f"{tile.columns.stop - tile.columns.start}×{tile.rows.stop - tile.rows.start}"
            raise SincutError(
                f"there is not enough memory even for a tile of {written} pixels; free some"
                + (", or try --device cpu" if self.device.type == "cuda" else "")
            )
        parts = []
        for half in halves:
            inside = _inside(half.rows, tile.rows), _inside(half.columns, tile.columns)
            rows, columns = _written(half.rows, tile.rows), _written(half.columns, tile.columns)
            part = None if weights is None else weights[rows, columns]
            parts.append(self._translated(window[inside], half, part))
        return torch.cat(parts, dim=0 if halves[0].rows != tile.rows else 1)

    def _tried(self, window: Tensor, tile: Tile, weights: Tensor | None) -> Tensor | None:
        """The tile, or nothing where memory ended."""
        try:
            return self._computed(window, tile, weights)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return None

    @torch.inference_mode()
    def _computed(self, window: Tensor, tile: Tile, weights: Tensor | None) -> Tensor:
        image = as_network(window)
        output = self.operator(image, tile)
        if weights is not None or self.strength != 1:
            content = image[..., tile.rows.core, tile.columns.core]
            share = self.strength if weights is None else self.strength * weights.permute(2, 0, 1)
            output = content + share * (output - content)
        return as_pixels(output, self.dtype)


def as_network(pixels: Tensor) -> Tensor:
    """(rows, columns, 3) of any depth → (1, 3, rows, columns) float32 of [-1, 1], channels last."""
    white = WHITE[_numpy_type(pixels)]
    return pixels.permute(2, 0, 1)[None].float() / (white / 2) - 1


def as_pixels(image: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """(1, 3, rows, columns) of about [-1, 1] → (rows, columns, 3) in a depth, clamped, rounded."""
    white = WHITE[dtype]
    pixels = ((image[0].permute(1, 2, 0) + 1) * (white / 2)).clamp(0, white)
    if dtype == np.float32:
        return pixels.float().contiguous()
    kind = torch.uint8 if dtype == np.uint8 else torch.uint16
    return pixels.round().to(torch.int32).to(kind).contiguous()


def window_of(rgb: Array, tile: Tile, top: int, height: int) -> Array:
    """The (rows read, columns read, 3) of a tile; beyond the image its mirror.

    Args:
        rgb: rows ``top …`` of an image of ``height`` rows, in whole columns.
    """
    rows, columns, width = tile.rows, tile.columns, rgb.shape[1]
    down = _indices(rows, height, top)
    across = _indices(columns, width, 0)
    # Columns first where they are a slice: it takes no copy, and rows of the whole width would.
    if isinstance(across, slice):
        return rgb[:, across][down]
    return rgb[down][:, across] if isinstance(down, slice) else rgb[np.ix_(down, across)]


def translate_pixels(
    generator: Generator,
    rgb: Array,
    config: TranslateConfig,
    on_tile: Callable[[int, int], None] | None = None,
) -> Array:
    """Translate (H, W, 3) sRGB of any depth that is in memory; the generator's device does it."""
    output = np.empty_like(rgb)
    engine = TileWorker(Network(generator, config), rgb.shape[0], rgb.shape[1], rgb.dtype)
    plan = plan_tiles(generator, rgb, config)
    for done, tile in enumerate(plan, start=1):
        core = engine.start(window_of(rgb, tile, 0, rgb.shape[0]), tile).wait()
        rows, columns = tile.rows, tile.columns
        output[rows.start : rows.stop, columns.start : columns.stop] = core
        if on_tile is not None:
            on_tile(done, len(plan))
    return output


def plan_tiles(generator: Generator, rgb: Array, config: TranslateConfig) -> list[Tile]:
    """The tiles of an image, with the generator's halo around them."""
    automatic = AUTOMATIC_TILE[next(generator.parameters()).device.type]
    height, width = rgb.shape[:2]
    side = config.tile_pixels(automatic, whole=max(height, width) + generator.alignment)
    return list(tiles(height, width, side, generator.halo, generator.alignment, config.border))


@torch.inference_mode()
def translate_tile(generator: Generator, rgb: Array, tile: Tile, config: TranslateConfig) -> Tensor:
    """A tile's (rows, columns, 3) of about [-1, 1], not clamped, on the device."""
    network = Network(generator, config)
    window = torch.from_numpy(np.ascontiguousarray(window_of(rgb, tile, 0, rgb.shape[0])))
    return network(as_network(window.to(network.device)), tile)[0].permute(1, 2, 0)


def window_bytes(generator: Generator, rows: int, columns: int) -> int:
    """Host memory that a window of rows × columns takes at the peak, on a CPU, about."""
    per_channel = _BYTES_PER_CHANNEL + generator.kept_bytes
    return int(_BYTES_ONCE + (100 + per_channel * generator.channels) * rows * columns)


def device_bytes(network: Network, side: int) -> int:
    """Device memory that tiles of ``side`` take at the peak on CUDA: a straight line through the
    two largest of some small ones that can be tried.

    Raises:
        SincutError: memory ends in the smaller one.
    """
    halo = align_up(network.halo, network.alignment)  # windows begin where downsampling does
    tried = []
    for probe in (64, 128, 256):
        span = Span(0, probe, -halo, probe + halo)
        try:
            tried.append(((probe + 2 * halo) ** 2, _peak_of(network, span)))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        torch.cuda.empty_cache()
    if not tried:
        raise SincutError(
            "there is not enough memory on the GPU even for a tile of 64 pixels; free some, or "
            "try --device cpu"
        )
    (small, little), (large, much) = [(0, 0), *tried][-2:]
    slope = (much - little) / (large - small)
    return int(much + slope * ((side + 2 * halo) ** 2 - large))


@torch.inference_mode()
def _peak_of(network: Network, span: Span) -> int:
    """Bytes that a square window takes at the peak, the second time: the first fills caches."""
    side = span.read_stop - span.read_start
    image = torch.zeros(1, 3, side, side, device=network.device)
    once = Network(network.generator, network.config)
    once(image, Tile(span, span))
    torch.cuda.synchronize(network.device)
    before = torch.cuda.memory_allocated(network.device)
    torch.cuda.reset_peak_memory_stats(network.device)
    once(image, Tile(span, span))
    return torch.cuda.max_memory_allocated(network.device) - before


def _pixels(tile: Tile) -> int:
    return (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)


def _inside(span: Span, outer: Span) -> slice:
    """What a span reads, in what the outer one reads."""
    return slice(span.read_start - outer.read_start, span.read_stop - outer.read_start)


def _written(span: Span, outer: Span) -> slice:
    """What a span writes, in what the outer one writes."""
    return slice(span.start - outer.start, span.stop - outer.start)


def _indices(span: Span, length: int, first: int) -> slice | list[int]:
    if span.read_start >= 0 and span.read_stop <= length:
        return slice(span.read_start - first, span.read_stop - first)
    return [i - first for i in reflected(span.read_start, span.read_stop, length)]


def _numpy_type(tensor: Tensor) -> np.dtype[Any]:
    kinds = {torch.uint8: np.uint8, torch.uint16: np.uint16, torch.float32: np.float32}
    return np.dtype(kinds[tensor.dtype])
