"""A generator over windows of pixels: tile by tile, with a tile in flight, halved when memory ends.

Nothing here knows files. The law that makes it exact stands in :mod:`sincut.translation.tiling`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.compute.memory import free_memory, memory_in_use, unless_memory_ends
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.models.generator import Generator
from sincut.models.resnet import ResnetGenerator
from sincut.translation.brushwork import brushed
from sincut.translation.network import Network
from sincut.translation.operators import Operator, PixelRows
from sincut.translation.pixels import as_network, as_pixels
from sincut.translation.tiling import Span, Tile, align_up, halved, reflected, tiles
from sincut.translation.whole_image_norms import WholeImageNorms

Array = npt.NDArray[Any]

# Sides of automatic tiles in memory: a halo of 30 then adds 25 % of work on a CPU, 12 % on a GPU.
AUTOMATIC_TILE = {"cpu": 512, "cuda": 1024}
SMALL_SIDES = (512, 256, 128, 64)  # where memory does not allow the automatic one
_FALLBACK_MEMORY = 4_000_000_000  # where the machine does not tell how much is free
_DEVICE_SHARE, _DEVICE_BYTES = 0.6, 3_000_000_000  # of what is free on CUDA, and at most
_SMALLEST = 32  # pixels: a tile of this side that does not fit will not fit in halves either


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
        if tile.pixels <= self.most:
            made = unless_memory_ends(partial(self._computed, window, tile, weights))
            if made is not None:
                return made
            self.most = tile.pixels // 2
            self.splits += 1
            self.operator.forget()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        operator = self.operator
        halves = halved(
            tile, self.height, self.width, operator.halo, operator.alignment, operator.border
        )
        if halves is None or tile.pixels < _SMALLEST**2:
            written = f"{tile.columns.stop - tile.columns.start}×{tile.rows.stop - tile.rows.start}"
            raise SincutError(
                f"there is not enough memory even for a tile of {written} pixels; free some"
                + (", or try --device cpu" if self.device.type == "cuda" else "")
            )
        parts = []
        for half in halves:
            inside = half.rows.read_within(tile.rows), half.columns.read_within(tile.columns)
            rows = half.rows.written_within(tile.rows.start)
            columns = half.columns.written_within(tile.columns.start)
            part = None if weights is None else weights[rows, columns]
            parts.append(self._translated(window[inside], half, part))
        return torch.cat(parts, dim=0 if halves[0].rows != tile.rows else 1)

    @torch.inference_mode()
    def _computed(self, window: Tensor, tile: Tile, weights: Tensor | None) -> Tensor:
        image = as_network(window)
        content = image[..., tile.rows.core, tile.columns.core]
        if self.strength == 0:
            return as_pixels(content, self.dtype)
        output = self.operator(image, tile)
        if weights is not None or self.strength != 1:
            share = self.strength if weights is None else self.strength * weights.permute(2, 0, 1)
            output = content + share * (output - content)
        return as_pixels(output, self.dtype)


def window_of(
    rgb: Array, tile: Tile, top: int, height: int, left: int = 0, width: int | None = None
) -> Array:
    """The (rows read, columns read, 3) of a tile; beyond the image its mirror.

    Args:
        rgb: rows ``top …`` and columns ``left …`` of an image of ``height`` × ``width``; without
            ``width`` it has whole columns.
    """
    rows, columns = tile.rows, tile.columns
    down = _indices(rows, height, top)
    across = _indices(columns, rgb.shape[1] if width is None else width, left)
    # Columns first where they are a slice: it takes no copy, and rows of the whole width would.
    if isinstance(across, slice):
        return rgb[:, across][down]
    return rgb[down][:, across] if isinstance(down, slice) else rgb[np.ix_(down, across)]


def operator_of(
    generator: Generator,
    config: TranslateConfig,
    height: int,
    width: int,
    folder: Path,
    on_notice: Callable[[str], None] | None = None,
) -> Operator:
    """A generator as an operator on an image of ``height`` × ``width``.

    Args:
        folder: where it may keep what does not fit into memory.
        on_notice: as of :class:`Network`, which then records.
    """
    if isinstance(generator, ResnetGenerator):
        return WholeImageNorms(generator, config, height, width, folder)
    network = Network(generator, config, record=on_notice is not None, on_notice=on_notice)
    return brushed(network, generator, config, height, width)


def memory_limit(config: TranslateConfig) -> int:
    """Host memory to stay below, in bytes."""
    free = free_memory()
    in_use = memory_in_use()
    return config.memory_bytes(_FALLBACK_MEMORY if free is None else in_use + free // 2)


def fitting_side(
    operator: Operator, height: int, width: int, sides: Sequence[int], room: int
) -> tuple[int, int]:
    """The first of some tiles' sides that memory allows, or the last, and the host memory in bytes
    that translating pixels so takes beside them; ``room`` is what there is."""
    whole = max(height, width)
    sides = [whole, *(side for side in sides if side < whole)] if operator.whole_first else sides
    reach = 2 * align_up(operator.halo, operator.alignment)
    for side in sides:
        before = operator.preparation(side)
        needed = before.host_bytes
        if operator.device.type == "cpu":
            rows, columns = min(side, height) + reach, min(side, width) + reach
            needed = max(needed, operator.host_bytes(rows, columns))
        needed += before.held_bytes
        fits = needed <= room
        if operator.whole_first and operator.device.type == "cuda":
            fits = fits and operator.device_bytes(side) <= device_room(operator)
        if fits:
            break
    return side, needed


def device_room(operator: Operator) -> int:
    """Bytes that tiles may take on a CUDA device; more where larger ones save passes."""
    room = int(_DEVICE_SHARE * torch.cuda.mem_get_info(operator.device)[0])
    return room if operator.whole_first else min(room, _DEVICE_BYTES)


def translate_pixels(
    generator: Generator,
    rgb: Array,
    config: TranslateConfig,
    on_tile: Callable[[int, int], None] | None = None,
) -> Array:
    """Translate (H, W, 3) sRGB of any depth that is in memory; the generator's device does it."""
    output = np.empty_like(rgb)
    height, width = rgb.shape[:2]
    operator = operator_of(generator, config, height, width, Path(tempfile.gettempdir()))
    automatic = AUTOMATIC_TILE[operator.device.type]
    if operator.whole_first and config.tile == "auto":
        room = memory_limit(config) - memory_in_use()
        automatic, _ = fitting_side(operator, height, width, SMALL_SIDES, room)
    side = config.tile_pixels(automatic, whole=max(height, width) + operator.alignment)
    plan = list(tiles(height, width, side, operator.halo, operator.alignment, operator.border))
    done, total = 0, len(plan) + operator.preparation(side).windows

    def tell() -> None:
        nonlocal done
        done += 1
        if on_tile is not None:
            on_tile(done, total)

    engine = TileWorker(operator, height, width, rgb.dtype)
    with closing(operator):
        operator.prepare(lambda: nullcontext(PixelRows(rgb)), side, tell)
        for tile in plan:
            core = engine.start(window_of(rgb, tile, 0, height), tile).wait()
            rows, columns = tile.rows, tile.columns
            output[rows.start : rows.stop, columns.start : columns.stop] = core
            tell()
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


def _indices(span: Span, length: int, first: int) -> slice | list[int]:
    if span.read_start >= 0 and span.read_stop <= length:
        return slice(span.read_start - first, span.read_stop - first)
    return [i - first for i in reflected(span.read_start, span.read_stop, length)]
