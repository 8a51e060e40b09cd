"""What a training is fed with: what every kind of data can be asked for."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sincut.compute.processes import ALONE, Processes
from sincut.config.training import TrainConfig
from sincut.data.random_numbers import RandomNumbers


class Feed(Protocol):
    """Crops for the steps of one configuration, on its device."""

    @property
    def waited(self) -> float:
        """Seconds in which steps waited for images so far."""
        ...

    def prepare(self, step: int) -> None:
        """What has to be done on the host before a step, and is no part of its recording."""
        ...

    def draw(self, draws: RandomNumbers) -> tuple[Tensor, Tensor]:
        """The crops of a step: x of the content, y of the style, (batch, 3, crop, crop)."""
        ...

    def recoloured(self, x: Tensor) -> Tensor:
        """Crops of the content in the style's colours: what the warm start aims at."""
        ...


class TrainingData(Protocol):
    """Images of a content and of a style."""

    def feed(self, config: TrainConfig, *, warm: bool, processes: Processes = ALONE) -> Feed:
        """Crops for the steps of a resolved configuration; ``warm``: also of its warm start.

        Each of several ``processes`` gets its own part of a step's.
        """
        ...
