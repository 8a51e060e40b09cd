"""What a training is fed with: what every kind of data can be asked for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from sincut.compute.processes import ALONE, Processes
from sincut.config.training import TrainConfig
from sincut.data.random_numbers import RandomNumbers


class Crops(NamedTuple):
    """What a step is given, each (batch, 3, crop, crop) in [-1, 1]: ``content`` and ``style``, and
    of the :func:`sincut.data.painting.painted` content what lies where ``content`` does, where G
    learns from that."""

    content: Tensor
    style: Tensor
    painting: Tensor | None = None


class Feed(Protocol):
    """Crops for the steps of one configuration, on its device."""

    @property
    def waited(self) -> float:
        """Seconds in which steps waited for images so far."""
        ...

    def prepare(self, step: int) -> None:
        """What has to be done on the host before a step, and is no part of its recording."""
        ...

    def draw(self, draws: RandomNumbers) -> Crops:
        """The crops of a step that is prepared."""
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
