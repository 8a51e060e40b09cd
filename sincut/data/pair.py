"""The data of a training on one pair: crops of the content, and of the style like them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.compute.processes import ALONE, Processes
from sincut.config.parts import zoom_range
from sincut.config.training import PairConfig, TrainConfig
from sincut.data.colour_transfer import affine_transfer, transfer_table
from sincut.data.crops import ResidentImage, draw_places
from sincut.data.painting import painted, resized, scaled
from sincut.data.places import ANYWHERE, Places
from sincut.data.random_numbers import RandomNumbers
from sincut.data.recolouring import recoloured
from sincut.data.training_data import Crops
from sincut.models.brushwork import Brushwork

Pixels = npt.NDArray[np.uint8]

_LARGEST_STYLE = 2**22  # pixels of the style that a model keeps
_AHEAD = 2048  # crops of an image that are laid out at once, which takes milliseconds


@dataclass(frozen=True, eq=False)
class Pair:
    """One content and one style image, (H, W, 3) uint8 sRGB, and where their crops may lie; a kind
    of ``TrainingData``."""

    content: Pixels
    style: Pixels
    content_places: Places = ANYWHERE
    style_places: Places = ANYWHERE
    _paintings: dict[tuple[Any, ...], Pixels] = field(default_factory=dict, repr=False)
    _brushwork: dict[int, Brushwork] = field(default_factory=dict, repr=False)

    def __iter__(self) -> Iterator[Pixels]:
        """Content and style."""
        return iter((self.content, self.style))

    def painting(self, config: PairConfig) -> Pixels:
        """The content as G is to paint it: at the largest width that training sees, made once."""
        (down, across), (height, width) = self.content_places.grid, self.content.shape[:2]
        height, width = height // down, width // across
        # As large as crops are cut: of a narrow image never so small that none fits.
        zoom = max(zoom_range(width, config)[1], config.crop / min(height, width))
        width = across * min(math.ceil(width * zoom), width)
        settings: dict[str, Any] = {
            "look": config.look,
            "stroke": config.stroke,
            "seed": config.seed,
            "device": config.device,
        }
        key = width, *settings.values()
        if key not in self._paintings:
            self._paintings[key] = painted(
                self.content, self.style, width, style_share=self._style_share, **settings
            )
        return self._paintings[key]

    @property
    def _style_share(self) -> float:
        """How much wider the style is than the content, where a square of one is as wide as a
        square of the other."""
        return self.style_places.grid[1] / self.content_places.grid[1]

    def brushwork(self, config: PairConfig) -> Brushwork:
        """What is laid on the results of a model that learned this pair, made once."""
        painting, width = self.painting(config), self.content.shape[1]
        key = id(painting)  # which is as lasting as this
        if key not in self._brushwork:
            most = math.sqrt(_LARGEST_STYLE / (self.style.shape[0] * self.style.shape[1]))
            width = min(
                int(width * self._style_share), int(self.style.shape[1] * most / config.stroke)
            )
            style = scaled(self.style, width, config.stroke)
            half = resized(painting, max(self.content.shape[1] // 2, 1))
            self._brushwork[key] = Brushwork.of(style, half, config.device)
        return self._brushwork[key]

    def feed(self, config: TrainConfig, *, warm: bool, processes: Processes = ALONE) -> PairFeed:
        """Crops for the steps of a resolved configuration; ``warm``: also of its warm start."""
        assert isinstance(config, PairConfig)
        return PairFeed(self, config, warm=warm, processes=processes)

    def colours(self) -> tuple[Tensor, Tensor]:
        """The affine map of colours in [-1, 1] from content to style: (3, 3) and (3,) float32."""
        matrix, offset = affine_transfer(self.content, self.style)
        return torch.from_numpy(matrix).float(), torch.from_numpy(offset).float()


class PairFeed:
    """Both images on the device, the painting, and where crops of a block of steps are cut out of
    them; a kind of ``Feed``.

    A recorded step finds its crops by its own counter, in a table that stays where it is.
    """

    waited = 0.0

    def __init__(
        self, pair: Pair, config: PairConfig, *, warm: bool, processes: Processes = ALONE
    ) -> None:
        self.config, self.processes = config, processes
        images = [(pair.content, pair.content_places), (pair.style, pair.style_places)]
        if config.paints:
            images.append((pair.painting(config), pair.content_places))
        self.images = [
            ResidentImage(image, config, config.device, where) for image, where in images
        ]
        self.steps = max(_AHEAD // config.batch, 1)  # of a block
        self.block: int | None = None
        size = self.steps, len(images) * config.batch * 6
        self.cuts = torch.empty(size, dtype=torch.int64, device=config.device)
        self.table: Tensor | None = None
        if warm:
            table = torch.from_numpy(transfer_table(*pair, seed=config.seed))
            self.table = table.to(config.device)

    def prepare(self, step: int) -> None:
        """Have the step's block in the table that :meth:`draw` reads."""
        block = step // self.steps
        if block != self.block:
            self.cuts.copy_(self._laid_out(block))
            self.block = block

    def draw(self, draws: RandomNumbers) -> Crops:
        """The crops of a step of the block that is prepared."""
        assert self.block is not None
        images, batch = len(self.images), self.config.batch
        row = self.cuts.index_select(0, draws.step % self.steps)[0]
        places = row[: 4 * images * batch].view(images, batch, 4)
        scales = row[4 * images * batch :].view(torch.float64).view(images, batch, 2)
        cuts = zip(self.images, places, scales, strict=True)
        return Crops(*(image.crops(at, scale, self.config.crop) for image, at, scale in cuts))

    def _laid_out(self, block: int) -> Tensor:
        """(steps, images · batch · 6) int64 on the host: of every step the places of all images,
        then the bits of their scales."""
        first = torch.tensor(block * self.steps)
        draws = RandomNumbers(self.config.seed, first, self.processes.index, self.processes.count)
        content, style = (
            draw_places(image, self.config, draws, self.steps, stream=stream)
            for stream, image in enumerate(self.images[:2])
        )
        # The painting's crops lie where those of the content do.
        drawn = zip(self.images, (content, style, content), strict=False)
        cuts = [image.cuts(*boxes) for image, boxes in drawn]
        places, scales = (torch.stack(each, dim=1).flatten(1) for each in zip(*cuts, strict=True))
        return torch.cat([places, scales.view(torch.int64)], dim=1)

    def recoloured(self, x: Tensor) -> Tensor:
        """Crops of the content in the style's colours: what the warm start aims at."""
        assert self.table is not None
        return recoloured(x, self.table)
