"""Random zoomed crops from an image that stays in memory.

A zoom says how large the whole image would be; a crop is cut out of that imagined resized image.
So that a step's cost does not grow with the image's size, shrinking by four or more starts from a
copy of the image halved often enough to leave a factor of two to four, which is Pillow's own
``reducing_gap`` of 2. Where crops lie is drawn on the image's device, from a counter-based
generator keyed by (seed, step), so the same crops are drawn on every device.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sincut.config.parts import CropSettings, zoom_range
from sincut.data.random_numbers import BOXES, RandomNumbers, below, chance
from sincut.errors import SincutError
from sincut.kernels.crops import resized_crops


class ResidentImage:
    """An image on the device, halved as often as the zooms of a configuration can need.

    Args:
        image: (H, W, 3) uint8 sRGB.
        config: its crop size and zooms decide which of the halved copies are kept.
        device: where the pixels live and crops are made.
    """

    def __init__(
        self, image: npt.NDArray[np.uint8], config: CropSettings, device: torch.device | str = "cpu"
    ) -> None:
        self.height, self.width = image.shape[:2]
        if min(self.height, self.width) < config.crop:
            side = 2 ** int(math.log2(min(self.height, self.width)))
            smaller = f"--set crop={side} --set tile={min(side, 64)} or " if side >= 16 else ""
            raise SincutError(
                f"an image must be at least as large as a crop ({config.crop}×{config.crop} "
                f"pixels), got {self.width}×{self.height}; try {smaller}a larger image"
            )
        low, high = zoom_range(self.width, config)
        fits = min(self.height, self.width) / config.crop  # no crop is shrunk by more than this
        shrinks = torch.tensor([min(1 / high, fits), min(1 / low, fits)], dtype=torch.float64)
        self.first_level, last_level = halvings(shrinks).tolist()
        copies, table, offset = [], [], 0
        for level in range(self.first_level, last_level + 1):
            copy = np.asarray(Image.fromarray(image).reduce(2**level)) if level else image
            copies.append(copy.transpose(2, 0, 1).ravel())
            table.append((offset, *copy.shape[:2]))
            offset += copy.size
        self.planes = torch.from_numpy(np.concatenate(copies)).to(device)
        self.copies = torch.tensor(table, device=device)

    def crops(self, boxes: Tensor, size: int) -> Tensor:
        """(N, 3, size, size) float32 in [-1, 1] for boxes as :func:`draw_boxes` makes them."""
        rows, columns, top, left, mirrored = boxes.unbind(1)
        shrinks = torch.stack([self.height / rows.double(), self.width / columns.double()], dim=1)
        # A box is rounded to whole pixels, so it may ask for a copy just outside the range kept.
        last = self.first_level + len(self.copies) - 1
        level = halvings(shrinks.amin(dim=1)).clamp(self.first_level, last)
        places = torch.stack([level - self.first_level, top, left, mirrored], dim=1)
        scales = shrinks / 2.0 ** level[:, None]
        return resized_crops(self.planes, self.copies, places, scales, size)


def draw_boxes(
    height: int, width: int, config: CropSettings, draws: RandomNumbers, *, stream: int = 0
) -> Tensor:
    """Where the random crops of an image of that size lie: ``config.batch``, this part of a step's.

    The zoom is never above 1: an enlarged image would teach its blur. It is also never so small
    that a crop does not fit, as in the published code. ``stream`` tells images of one step apart.

    Returns:
        (batch, 5) int64 on the device of ``draws``: rows and columns of the whole resized image,
        top and left of the crop in it, and whether the crop is mirrored.
    """
    size = config.crop
    whole = draws.parts * config.batch
    zoom_words = draws.words(whole, BOXES + 2 * stream)
    place_words = draws.words(whole, BOXES + 2 * stream + 1)

    low, high = zoom_range(width, config)
    across, down = (low + (high - low) * word.double() / 2**32 for word in zoom_words[:2])
    if config.zoom_per == "step":
        across, down = across[:1].expand_as(across), down[:1].expand_as(down)
    if config.zoom_axes == "equal":
        # One factor for both, large enough that the crop fits into the shorter side unstretched.
        across = down = across.clamp_min(size / min(height, width))
    rows = (height * down).round().long().clamp_min(size)
    columns = (width * across).round().long().clamp_min(size)

    if config.placement == "anywhere":
        top = below(place_words[0], rows - size + 1)
        left = below(place_words[1], columns - size + 1)
    else:  # one cell of a grid of crops side by side, the grid shifted at random
        top = below(place_words[0], rows % size + 1) + size * below(zoom_words[2], rows // size)
        left = below(place_words[1], columns % size + 1)
        left = left + size * below(zoom_words[3], columns // size)
    mirrored = chance(place_words[2], config.mirror)
    boxes = torch.stack([rows, columns, top, left, mirrored], dim=1)
    return boxes[draws.own(config.batch)]


def draw_crops(
    image: ResidentImage, config: CropSettings, draws: RandomNumbers, *, stream: int
) -> Tensor:
    """(batch, 3, crop, crop) float32 in [-1, 1], channels last in memory."""
    boxes = draw_boxes(image.height, image.width, config, draws, stream=stream)
    return image.crops(boxes, config.crop)


def halvings(shrink: Tensor) -> Tensor:
    """How often an image is halved before the filter shrinks it by the rest; int64."""
    return (shrink / 2).log2().floor().long().where(shrink >= 4, 0)
