"""What a training is fed with: what every kind of data can be asked for."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sincut.config.training import TrainConfig
from sincut.data.random_numbers import RandomNumbers


class Feed(Protocol):
    """Crops for the steps of one configuration, on its device."""

    def draw(self, draws: RandomNumbers) -> tuple[Tensor, Tensor]:
        """The crops of a step: x of the content, y of the style, (batch, 3, crop, crop)."""
        ...

    def recoloured(self, x: Tensor) -> Tensor:
        """Crops of the content in the style's colours: what the warm start aims at."""
        ...


class TrainingData(Protocol):
    """Images of a content and of a style."""

    def feed(self, config: TrainConfig, *, warm: bool) -> Feed:
        """Crops for the steps of a resolved configuration; ``warm``: also of its warm start."""
        ...

    def colours(self) -> tuple[Tensor, Tensor]:
        """The affine map of colours in [-1, 1] from content to style: (3, 3) and (3,) float32."""
        ...

    def style_crops(self, config: TrainConfig) -> Tensor:
        """(N, 3, crop, crop) crops that tell what the style's textures are like."""
        ...
