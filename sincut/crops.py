"""Random zoomed crops from an image that stays in memory.

A zoom says how large the whole image would be; a crop is cut out of that imagined resized image.
Only the pixels under a crop are read and filtered, with the anti-aliased triangle filter of
Pillow's ``BILINEAR``. So that a step's cost does not grow with the image's size, shrinking by more
than four starts from a copy of the image halved often enough to leave a factor of two to four,
which is Pillow's own ``reducing_gap`` of 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sincut.config import TrainConfig
from sincut.errors import SincutError


@dataclass(frozen=True)
class Box:
    """A crop: its place in the whole image resized to ``rows`` × ``columns`` pixels."""

    rows: int
    columns: int
    top: int
    left: int
    mirrored: bool


class ResidentImage:
    """An image on the device, halved as often as the zooms of a configuration can need.

    Args:
        image: (H, W, 3) uint8 sRGB.
        config: its crop size and zooms decide which of the halved copies are kept.
        device: where the pixels live and crops are made.
    """

    def __init__(
        self, image: npt.NDArray[np.uint8], config: TrainConfig, device: torch.device | str = "cpu"
    ) -> None:
        self.height, self.width = image.shape[:2]
        if min(self.height, self.width) < config.crop:
            side = 2 ** int(math.log2(min(self.height, self.width)))
            smaller = f"--set crop={side} --set tile={min(side, 64)} or " if side >= 16 else ""
            raise SincutError(
                f"an image must be at least as large as a crop ({config.crop}×{config.crop} "
                f"pixels), got {self.width}×{self.height}; try {smaller}a larger image"
            )
        low, high = _zoom_range(self.width, config)
        fits = min(self.height, self.width) / config.crop  # no crop is shrunk by more than this
        self._first = _level(min(1 / high, fits))
        self._copies = []
        for level in range(self._first, _level(min(1 / low, fits)) + 1):
            reduced = np.asarray(Image.fromarray(image).reduce(2**level)) if level else image
            planes = torch.from_numpy(np.array(reduced.transpose(2, 0, 1), order="C"))
            self._copies.append(planes.to(device))

    def crop(self, box: Box, size: int) -> Tensor:
        """(3, size, size) float32 in [-1, 1]: the resized image's pixels under the box."""
        shrinks = self.height / box.rows, self.width / box.columns
        level = _level(min(shrinks))
        planes = self._copies[level - self._first]
        rows, by_row = _filter(box.top, size, shrinks[0] / 2**level, planes.shape[1])
        columns, by_column = _filter(box.left, size, shrinks[1] / 2**level, planes.shape[2])
        if box.mirrored:
            by_column = by_column.flip(0)
        window = planes[:, rows, columns].to(torch.float32)
        pixels = by_row.to(window.device) @ window @ by_column.to(window.device).T
        return pixels / 127.5 - 1


def draw_boxes(height: int, width: int, config: TrainConfig, random: torch.Generator) -> list[Box]:
    """``config.batch`` random crops of an image of that size.

    The zoom is never above 1: an enlarged image would teach its blur. It is also never so small
    that a crop does not fit, as in the published code.
    """
    boxes = []
    size = config.crop
    zoom = _draw_zoom(height, width, config, random)
    for index in range(config.batch):
        if index and config.zoom_per == "crop":
            zoom = _draw_zoom(height, width, config, random)
        rows = max(size, round(height * zoom[0]))
        columns = max(size, round(width * zoom[1]))
        if config.placement == "anywhere":
            top, left = (_integer(random, side - size + 1) for side in (rows, columns))
        else:  # one cell of a grid of crops side by side, the grid shifted at random
            top, left = (
                _integer(random, side % size + 1) + size * _integer(random, side // size)
                for side in (rows, columns)
            )
        mirrored = torch.rand((), generator=random).item() < config.mirror
        boxes.append(Box(rows, columns, top, left, mirrored))
    return boxes


def draw_crops(image: ResidentImage, config: TrainConfig, random: torch.Generator) -> Tensor:
    """(batch, 3, crop, crop) float32 in [-1, 1], channels last in memory."""
    boxes = draw_boxes(image.height, image.width, config, random)
    crops = torch.stack([image.crop(box, config.crop) for box in boxes])
    return crops.contiguous(memory_format=torch.channels_last)


def _zoom_range(width: int, config: TrainConfig) -> tuple[float, float]:
    """Smallest and largest zoom as factors of the image's own size."""
    unit = width if config.zoom == "width" else 1
    return min(config.zoom_min / unit, 1.0), min(config.zoom_max / unit, 1.0)


def _draw_zoom(
    height: int, width: int, config: TrainConfig, random: torch.Generator
) -> tuple[float, float]:
    low, high = _zoom_range(width, config)
    across, down = (low + (high - low) * torch.rand(2, generator=random).double()).tolist()
    if config.zoom_axes == "independent":
        return down, across
    # One factor for both, large enough that the crop fits into the shorter side unstretched.
    factor = max(across, config.crop / min(height, width))
    return factor, factor


def _integer(random: torch.Generator, count: int) -> int:
    """A random integer from 0 to ``count`` − 1."""
    return int(torch.randint(count, (), generator=random).item())


def _level(shrink: float) -> int:
    """How often the image is halved before the filter shrinks it by the rest."""
    return max(0, math.floor(math.log2(shrink / 2))) if shrink >= 4 else 0


def _filter(first: int, size: int, scale: float, length: int) -> tuple[slice, Tensor]:
    """Weights of a one-dimensional resize for outputs ``first … first + size − 1``.

    ``scale`` is input pixels per output pixel. Returns the inputs needed and (size, inputs)
    weights: a triangle as wide as an output pixel's share of the input, at least one pixel to each
    side, normalised within the image.
    """
    support = max(scale, 1.0)
    centre = (torch.arange(first, first + size, dtype=torch.float64) + 0.5) * scale
    start = max(0, math.floor(centre[0].item() - support))
    stop = min(length, math.ceil(centre[-1].item() + support))
    inputs = torch.arange(start, stop, dtype=torch.float64) + 0.5
    weights = (1 - (inputs - centre[:, None]).abs() / support).clamp_min(0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return slice(start, stop), weights.float()
