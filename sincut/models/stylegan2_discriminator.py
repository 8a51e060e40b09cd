"""D of SinCUT: StyleGAN2's residual discriminator for tiles."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.models.discriminator import Discriminator
from sincut.models.layers import (
    ACTIVATION_GAIN,
    NEGATIVE_SLOPE,
    ConvLayer,
    EqualizedLinear,
    ResidualBlock,
)
from sincut.models.textures import TextureEnergies, Whitening

_TEXTURE_WIDTH = 64


class TileDiscriminator(Discriminator):
    """StyleGAN2's residual discriminator for ``size``×``size`` tiles, without minibatch statistics.

    Args:
        channels: width at full resolution; doubled by every downsampling up to ``max_channels``.
        size: side of a tile, a power of two of at least 8; the blocks go down to 4×4.
        whiten: whether it sees tiles through a :class:`Whitening` (ours).
    """

    def __init__(
        self,
        channels: int = 32,
        size: int = 64,
        max_channels: int = 384,
        *,
        whiten: bool = False,
    ) -> None:
        super().__init__()
        self.tile, self.fitted = size, whiten
        self.whitening = Whitening() if whiten else None
        levels = int(math.log2(size)) - 2
        widths = [min(channels * 2**level, max_channels) for level in range(levels + 1)]
        self.from_rgb = ConvLayer(6 if whiten else 3, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, down=True) for a, b in pairwise(widths)))
        self.conv = ConvLayer(widths[-1], widths[-1], 3)
        self.hidden = EqualizedLinear(widths[-1] * 16, widths[-1])
        self.logit = EqualizedLinear(widths[-1], 1)

    def fit(self, crops: Tensor) -> None:
        """As :meth:`Discriminator.fit`."""
        if self.whitening is not None:
            self.whitening.fit(crops)

    def view(self, crops: Tensor) -> Tensor:
        """As :meth:`Discriminator.view`; whitened they are (N, 6, S, S)."""
        return crops if self.whitening is None else self.whitening(crops)

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3 or 6, size, size) → (N, 1) logits, float32: large for real, small for fake."""
        features = self.conv(self.blocks(self.from_rgb(tiles)))
        hidden = F.leaky_relu(self.hidden(features.flatten(1)), NEGATIVE_SLOPE) * ACTIVATION_GAIN
        return cast(Tensor, self.logit(hidden)).float()


class TextureDiscriminator(TileDiscriminator):
    """A discriminator with a second one beside it (ours): a small perceptron, with PyTorch's own
    weights and learning rate, that judges the energies of textures."""

    def __init__(
        self,
        channels: int = 32,
        size: int = 64,
        max_channels: int = 384,
        *,
        whiten: bool = False,
    ) -> None:
        super().__init__(channels, size, max_channels, whiten=whiten)
        self.fitted = True
        self.textures = TextureEnergies()
        self.texture_head = nn.Sequential(
            nn.Linear(self.textures.count, _TEXTURE_WIDTH),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Linear(_TEXTURE_WIDTH, 1),
        )

    def fit(self, crops: Tensor) -> None:
        """As :meth:`Discriminator.fit`."""
        super().fit(crops)
        self.textures.fit(crops)

    def energies(self, crops: Tensor) -> Tensor:
        """What :meth:`judge_energies` is given: one row for each cell of crops (N, 3, S, S)."""
        return cast(Tensor, self.textures(crops))

    def judge_energies(self, energies: Tensor) -> Tensor:
        """(cells, features) → (cells, 1) logits, float32, as :meth:`forward`'s."""
        with torch.autocast(energies.device.type, enabled=False):
            return cast(Tensor, self.texture_head(energies))
