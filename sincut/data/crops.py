"""Random zoomed crops from an image that stays in memory.

A zoom says how large the whole image would be; a crop is cut out of that imagined resized image.
So that a step's cost does not grow with the image's size, shrinking by four or more starts from a
copy of the image halved often enough to leave a factor of two to four, which is Pillow's own
``reducing_gap`` of 2. Where crops lie is drawn on the host, for many steps at once, from a
counter-based generator keyed by (seed, step), so every device cuts the same crops.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sincut.config.parts import CropSettings, zoom_range
from sincut.data.places import ANYWHERE, Places
from sincut.data.random_numbers import BOXES, RandomNumbers, below, chance
from sincut.errors import SincutError
from sincut.kernels.crops import resized_crops


class ResidentImage:
    """An image on the device, halved as often as the zooms of a configuration can need.

    Args:
        image: (H, W, 3) uint8 sRGB.
        config: its crop size and zooms decide which of the halved copies are kept.
        device: where the pixels live and crops are made.
        places: where crops may lie. ``height`` and ``width`` are those of one of its squares.
    """

    def __init__(
        self,
        image: npt.NDArray[np.uint8],
        config: CropSettings,
        device: torch.device | str = "cpu",
        places: Places = ANYWHERE,
    ) -> None:
        self.squares, self.tissue = places.count, None
        self.height, self.width = image.shape[0] // places.grid[0], image.shape[1] // places.grid[1]
        if places.tissue is not None:
            sums = np.pad(places.tissue, ((0, 0), (0, 0), (1, 0))).cumsum(axis=2)
            self.tissue = torch.from_numpy(sums)
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
        self.levels = last_level + 1 - self.first_level
        copies, table, offset = [], [], 0
        for square in _split(image, places.grid):
            for level in range(self.first_level, last_level + 1):
                copy = np.asarray(Image.fromarray(square).reduce(2**level)) if level else square
                copies.append(copy.transpose(2, 0, 1).ravel())
                table.append((offset, *copy.shape[:2]))
                offset += copy.size
        self.planes = torch.from_numpy(np.concatenate(copies)).to(device)
        self.copies = torch.tensor(table, device=device)

    def cuts(self, boxes: Tensor, squares: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Places (…, 4) int64 and scales (…, 2) float64, as :meth:`crops` takes them, for boxes
        (…, 5) as :func:`draw_boxes` makes them, in the ``squares`` (…) int64, or all in the first.
        """
        rows, columns, top, left, mirrored = boxes.unbind(-1)
        shrinks = torch.stack([self.height / rows.double(), self.width / columns.double()], dim=-1)
        # A box is rounded to whole pixels, so it may ask for a copy just outside the range kept.
        last = self.first_level + self.levels - 1
        level = halvings(shrinks.amin(dim=-1)).clamp(self.first_level, last)
        copy = level - self.first_level
        if squares is not None:
            copy = copy + self.levels * squares
        places = torch.stack([copy, top, left, mirrored], dim=-1)
        return places, shrinks / 2.0 ** level[..., None]

    def crops(self, places: Tensor, scales: Tensor, size: int) -> Tensor:
        """(N, 3, size, size) float32 in [-1, 1], channels last in memory, for ``places`` (N, 4) and
        ``scales`` (N, 2) on the image's device."""
        return resized_crops(self.planes, self.copies, places, scales, size)


def draw_boxes(
    height: int, width: int, config: CropSettings, draws: RandomNumbers, steps: int, *, stream: int
) -> Tensor:
    """Where the random crops of an image of that size lie, in the step of ``draws`` and those that
    follow: ``config.batch`` a step, this part of the whole batch.

    The zoom is never above 1: an enlarged image would teach its blur. It is also never so small
    that a crop does not fit, as in the published code. ``stream`` tells images of one step apart.

    Returns:
        (steps, batch, 5) int64 on the device of ``draws``: rows and columns of the whole resized
        image, top and left of the crop in it, and whether the crop is mirrored.
    """
    size = config.crop
    zoom_words, place_words = _words(config, draws, steps, stream)

    low, high = zoom_range(width, config)
    across, down = (low + (high - low) * word.double() / 2**32 for word in zoom_words[:2])
    if config.zoom_per == "step":
        across, down = across[:, :1].expand_as(across), down[:, :1].expand_as(down)
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
    boxes = torch.stack([rows, columns, top, left, mirrored], dim=-1)
    return boxes[:, draws.own(config.batch)]


def draw_places(
    image: ResidentImage, config: CropSettings, draws: RandomNumbers, steps: int, *, stream: int
) -> tuple[Tensor, Tensor | None]:
    """Boxes as :func:`draw_boxes` makes them, laid on tissue where the image says where that is;
    and the squares (steps, batch) int64 in which they lie, where it has several or tissue."""
    boxes = draw_boxes(image.height, image.width, config, draws, steps, stream=stream)
    if image.squares == 1 and image.tissue is None:
        return boxes, None
    # Words that boxes do not use: a grid, for which the zoom's last two are, goes with no tissue.
    own = draws.own(config.batch)
    zoom_words, place_words = (
        words[..., own].flatten(1) for words in _words(config, draws, steps, stream)
    )
    squares = below(place_words[3], image.squares)
    if image.tissue is not None:
        words = torch.stack([place_words[0], *zoom_words[2:]])
        moved = _on_tissue(boxes.flatten(0, 1), config.crop, image.tissue, squares, words)
        boxes = moved.view_as(boxes)
    return boxes, squares.view(boxes.shape[:2])


def _words(config: CropSettings, draws: RandomNumbers, steps: int, stream: int) -> list[Tensor]:
    """For zooms and for places, of the whole batch: (4, steps, parts · batch) each."""
    first, count = BOXES + 2 * stream, draws.parts * config.batch
    return [draws.words_of_steps(steps, count, first + k) for k in (0, 1)]


def _on_tissue(boxes: Tensor, size: int, sums: Tensor, squares: Tensor, words: Tensor) -> Tensor:
    """Boxes (N, 5) moved so that their centres lie in cells of tissue, each with equal chance among
    those that the crop can reach; where it reaches none they stay.

    ``sums`` (squares, h, w + 1) counts cells of tissue to the left, ``words`` (3, N) are random.
    """
    rows, columns = boxes[:, 0], boxes[:, 1]
    height, width = sums.shape[1], sums.shape[2] - 1
    top, bottom = _reachable(rows, size, height)
    first, last = _reachable(columns, size, width)
    line = torch.arange(height, device=boxes.device)
    at = squares[:, None], line[None]
    counts = sums[(*at, last[:, None] + 1)] - sums[(*at, first[:, None])]  # (N, h)
    counts = counts * ((line >= top[:, None]) & (line <= bottom[:, None]))
    until = counts.cumsum(dim=1)
    rank = below(words[0], until[:, -1])[:, None]
    y = torch.searchsorted(until, rank, right=True).clamp_max(height - 1)
    before = until.gather(1, y) - counts.gather(1, y)
    of_line = sums[squares, y[:, 0]]  # (N, w + 1)
    wanted = of_line.gather(1, first[:, None]) + rank - before
    x = torch.searchsorted(of_line, wanted, right=True) - 1
    places = []
    for cell, length, cells, word in ((y, rows, height, words[1]), (x, columns, width, words[2])):
        centre = (cell[:, 0].double() + word.double() / 2**32) * length / cells
        start = (centre - size / 2).floor().long().clamp_min(0)
        places.append(torch.minimum(start, length - size))
    moved = torch.stack([rows, columns, *places, boxes[:, 4]], dim=1)
    return torch.where(until[:, -1:] > 0, moved, boxes)


def _reachable(length: Tensor, size: int, cells: int) -> tuple[Tensor, Tensor]:
    """First and last of the cells of an axis in which centres of crops lie that fit into it."""
    first = size * cells // (2 * length)
    last = (2 * length - size) * cells // (2 * length)
    return first, last.clamp_max(cells - 1)


def _split(image: npt.NDArray[np.uint8], grid: tuple[int, int]) -> list[npt.NDArray[np.uint8]]:
    """The squares of which an image is put together, row by row."""
    return [
        np.ascontiguousarray(square)
        for row in np.split(image, grid[0])
        for square in np.split(row, grid[1], axis=1)
    ]


def halvings(shrink: Tensor) -> Tensor:
    """How often an image is halved before the filter shrinks it by the rest; int64."""
    return (shrink / 2).log2().floor().long().where(shrink >= 4, 0)
