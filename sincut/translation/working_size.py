"""The network at a size that is not the image's own, and its look carried to the image's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.compute.memory import memory_in_use
from sincut.config.translating import TranslateConfig
from sincut.images.bit_depth import as_depth
from sincut.images.writing.formats import BAND_STEP
from sincut.models.generator import Generator
from sincut.translation.guided_upsampling import ReducedRows, SmallTranslation, working_size
from sincut.translation.operators import Opened, Operator, Preparation
from sincut.translation.plan import seconds_left
from sincut.translation.tiles import (
    SMALL_SIDES,
    TileWorker,
    fitting_side,
    memory_limit,
    operator_of,
    translate_pixels,
)
from sincut.translation.tiling import Tile, align_up, bands

Array = npt.NDArray[Any]

# Bytes per pixel of the working size: kept while carrying, and at the peak before, as measured,
# with a margin: the system gets little of it back between reducing, translating and fitting, and
# how little is chance.
_CARRIED_BYTES, _PREPARING_BYTES = 60, 360


@dataclass(frozen=True)
class Working:
    """The size at which the network works where it is not the image's own, its tiles' side, and
    the host memory in bytes that it takes: kept all the time, and at the peak before."""

    height: int
    width: int
    tile: int
    held: int
    preparing: int


def working_at(
    generator: Generator, config: TranslateConfig, height: int, width: int, folder: Path
) -> Working | None:
    """The working size of an image of ``height`` × ``width``; nothing where it is its own."""
    full = height, width
    height, width = working_size(height, width, config.working_width or width)
    if (height, width) == full:
        return None
    pixels = height * width
    room = memory_limit(config) - memory_in_use() - _PREPARING_BYTES * pixels
    alone = config.replaced(brushwork=0.0)
    operator = operator_of(generator, alone, height, width, folder)
    side, window = fitting_side(operator, height, width, SMALL_SIDES, room)
    if operator.device.type == "cuda":
        window = 0
    held, preparing = _CARRIED_BYTES * pixels, _PREPARING_BYTES * pixels + window
    return Working(height, width, side, held, preparing)


class GuidedUpsampling:
    """The look of a small translation, carried to the image's own size, as an operator.

    Args:
        height, width: of the image.
    """

    halo, alignment, border, whole_first = 0, 1, "reflect", False

    def __init__(
        self,
        generator: Generator,
        config: TranslateConfig,
        height: int,
        width: int,
        working: Working,
    ) -> None:
        self.generator, self.working = generator, working
        self.config = config.replaced(tile=str(working.tile), working_width=0, brushwork=0.0)
        self.height, self.width = height, width
        self.device = next(generator.parameters()).device
        self._look: SmallTranslation | None = None

    def preparation(self, side: int) -> Preparation:
        """As :class:`Operator` says."""
        held = self.working.held
        return Preparation(1, host_bytes=self.working.preparing - held, held_bytes=held)

    def prepare(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        """As :class:`Operator` says: reduce the image to the working size, and translate that."""
        working = self.working
        small = ReducedRows(self.height, self.width, working.height, working.width)
        with opened() as image:
            for start in range(0, self.height, BAND_STEP):
                rows = image.srgb(start, min(start + BAND_STEP, self.height))
                small.add(as_depth(rows, np.dtype(np.float32)) * 2 - 1)
        content = small.result()
        look = translate_pixels(self.generator, (content + 1) / 2, self.config) * 2 - 1
        self._look = self._carried(content, look)

    def __call__(self, image: Tensor, tile: Tile) -> Tensor:
        """As :class:`Operator` says."""
        assert self._look is not None
        return self._look.window(image[0], tile.rows.start, tile.columns.start)[None]

    def close(self) -> None:
        """As :class:`Operator` says."""
        self._look = None

    def host_bytes(self, rows: int, columns: int) -> int:
        """As :class:`Operator` says: a dozen maps of three channels."""
        return rows * columns * 3 * 4 * 12

    def device_bytes(self, side: int) -> int:
        """As :class:`Operator` says: too little to count."""
        return 0

    def forget(self) -> None:
        """As :class:`Operator` says; nothing is kept."""

    def rehearsal(self, side: int) -> tuple[Operator, float]:
        """As :class:`Operator` says."""
        height, width, tile = self.working.height, self.working.width, self.working.tile
        folder = Path()  # nothing is kept there for a rehearsal
        whole = operator_of(self.generator, self.config, height, width, folder)
        network, seconds = whole.rehearsal(tile)
        small = TileWorker(network, height, width, np.dtype(np.float32))
        reach = network.halo, network.alignment, network.border
        seconds += seconds_left(
            small, bands(height, width, align_up(height, BAND_STEP), tile, *reach)
        )
        other = GuidedUpsampling(self.generator, self.config, self.height, self.width, self.working)
        nothing = np.zeros((height, width, 3), np.float32)
        other._look = self._carried(nothing, nothing)
        return other, seconds

    def another(self) -> Operator:
        """As :class:`Operator` says: with other tiles at the working size."""
        working = replace(self.working, tile=max(self.working.tile // 2, SMALL_SIDES[-1]))
        return GuidedUpsampling(self.generator, self.config, self.height, self.width, working)

    def _carried(self, content: Array, look: Array) -> SmallTranslation:
        content_planes, look_planes = (
            torch.from_numpy(each).permute(2, 0, 1).contiguous().to(self.device)
            for each in (content, look)
        )
        return SmallTranslation(content_planes, look_planes, self.height, self.width)
