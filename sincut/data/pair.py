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
from sincut.data.crops import ResidentImage, draw_crops, draw_places
from sincut.data.painting import painted, resized, scaled
from sincut.data.places import ANYWHERE, Places
from sincut.data.random_numbers import RandomNumbers
from sincut.data.recolouring import recoloured
from sincut.data.training_data import Crops
from sincut.models.brushwork import Brushwork

Pixels = npt.NDArray[np.uint8]

_LARGEST_STYLE = 2**22  # pixels of the style that a model keeps


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
        """Crops for the steps of a resolved configuration; ``warm``: also of its warm start.

        Which are those of this process, the numbers that a step draws them with say.
        """
        assert isinstance(config, PairConfig)
        return PairFeed(self, config, warm=warm)

    def colours(self) -> tuple[Tensor, Tensor]:
        """The affine map of colours in [-1, 1] from content to style: (3, 3) and (3,) float32."""
        matrix, offset = affine_transfer(self.content, self.style)
        return torch.from_numpy(matrix).float(), torch.from_numpy(offset).float()


class PairFeed:
    """Both images on the device, and what finds like crops in them; a kind of ``Feed``."""

    waited = 0.0

    def __init__(self, pair: Pair, config: PairConfig, *, warm: bool) -> None:
        self.config = config
        places = pair.content_places, pair.style_places
        self.images = [
            ResidentImage(image, config, config.device, where)
            for image, where in zip(pair, places, strict=True)
        ]
        self.painting: ResidentImage | None = None
        if config.paints:
            painting = pair.painting(config)
            self.painting = ResidentImage(painting, config, config.device, places[0])
        self.table: Tensor | None = None
        if warm:
            table = torch.from_numpy(transfer_table(*pair, seed=config.seed))
            self.table = table.to(config.device)

    def prepare(self, step: int) -> None:
        """Nothing: the images are where crops are cut."""

    def draw(self, draws: RandomNumbers) -> Crops:
        """The crops of a step."""
        (content, style), crop = self.images, self.config.crop
        boxes, squares = draw_places(content, self.config, draws, stream=0)
        x = content.crops(boxes, crop, squares)
        painting = None
        if self.painting is not None:
            painting = self.painting.crops(boxes, crop, squares)
        return Crops(x, draw_crops(style, self.config, draws, stream=1), painting)

    def recoloured(self, x: Tensor) -> Tensor:
        """Crops of the content in the style's colours: what the warm start aims at."""
        assert self.table is not None
        return recoloured(x, self.table)
