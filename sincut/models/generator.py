"""G: what every generator can be asked for, whatever it is built of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.kernels.position_noise import position_noise
from sincut.models.brushwork import Brushwork


class Reading(Protocol):
    """A layer that tells what it reads."""

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The inputs that outputs ``first … last`` of one axis depend on (both inclusive)."""
        ...


class Generator(nn.Module, ABC):
    """G = decoder ∘ encoder, whose layers are numbered from 0 on; the feature of a layer is its
    output, and PatchNCE compares those of the encoder's.

    Attributes:
        channels: c, the width at full resolution.
        normalises: whether it normalises over the whole image, so that an output pixel depends on
            all of it. Otherwise it depends on a window, which :attr:`halo` tells.
        kept_bytes: per pixel and channel, at the peak, for what the decoder's end reads of earlier
            layers.
        borders: of layers whose features reach over the image, by how many on each side.
        brushwork: what a model that was read lays on the output; the network's own methods do not.
    """

    channels: int
    normalises: bool = False
    kept_bytes: int = 0
    borders: Mapping[int, int] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()
        self.brushwork: Brushwork | None = None

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What the generator was made with."""

    @property
    @abstractmethod
    def alignment(self) -> int:
        """Windows of the image must start at, and be as long as, a multiple of this."""

    @property
    @abstractmethod
    def path(self) -> Sequence[Reading]:
        """The layers from the input to the output, in the order in which they read each other."""

    @property
    def halo(self) -> int:
        """Input pixels on each side of an output pixel that it can depend on, from the layers; of a
        generator that normalises, beside the statistics of the whole image."""
        reach = 0
        for phase in range(self.alignment):
            first = last = phase
            for layer in reversed(self.path):
                first, last = layer.reads(first, last)
            reach = max(reach, phase - first, last - phase)
        return reach

    @property
    @abstractmethod
    def layer_channels(self) -> dict[int, int]:
        """Channels of the encoder layers that have features, by number, in rising order."""

    @property
    @abstractmethod
    def strides(self) -> dict[int, int]:
        """Pixels of the image from one feature to the next, of the same layers."""

    def encode(self, image: Tensor, layers: Collection[int]) -> list[Tensor]:
        """Features of the named encoder layers, in rising order; stops at the last one named."""
        passed = self._encode(image, layers, stop=max(layers))[1]
        return [passed[layer] for layer in sorted(layers)]

    @abstractmethod
    def _encode(
        self, image: Tensor, layers: Collection[int], stop: int
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The output of encoder layer ``stop``, and those of ``layers`` on the way by number."""

    @abstractmethod
    def generate(
        self,
        image: Tensor,
        noise: Sequence[Tensor] | None = None,
        layers: Collection[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Translate, and hand out the encoder features passed on the way.

        ``image`` is (N, 3, H, W) with sides that are multiples of :attr:`alignment`; ``noise`` as
        :meth:`position_noise` makes it, or fresh numbers of :meth:`noise_shapes`.
        """

    def forward(self, image: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """(N, 3, H, W) of about [-1, 1] → the same shape, any size of at least 1.

        Sides that are not a multiple of :attr:`alignment` are extended by their last row or
        column and cut again.
        """
        height, width = image.shape[-2:]
        bottom, right = (self.extended(side) - side for side in (height, width))
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom), mode="replicate")
        return self.generate(image, noise)[0][..., :height, :width]

    def extended(self, side: int) -> int:
        """The side of the image that the network works on, for one of ``side`` pixels."""
        return side + -side % self.alignment

    @property
    def noise_shrinks(self) -> list[int]:
        """How much smaller than the image each noise image is: one for every layer with noise."""
        return []

    def position_noise(
        self, seed: int, top: int, left: int, height: int, width: int, device: torch.device
    ) -> list[Tensor]:
        """Noise for a window at absolute (top, left), the same wherever the window's edges are."""
        return [
            position_noise(seed, level, top // s, left // s, height // s, width // s, device)
            for level, s in enumerate(self.noise_shrinks)
        ]

    def noise_shapes(self, images: Tensor) -> list[tuple[int, int, int, int]]:
        """The noise that a batch of (N, 3, H, W) crops takes."""
        count, _, height, width = images.shape
        return [(count, 1, height // s, width // s) for s in self.noise_shrinks]
