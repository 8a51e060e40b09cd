"""D of SinCUT: StyleGAN2's residual discriminator for tiles."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

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


class TileDiscriminator(Discriminator):
    """StyleGAN2's residual discriminator for ``size``×``size`` tiles, without minibatch statistics.

    Args:
        channels: width at full resolution; doubled by every downsampling up to ``max_channels``.
        size: side of a tile, a power of two of at least 8; the blocks go down to 4×4.
    """

    def __init__(self, channels: int = 32, size: int = 64, max_channels: int = 384) -> None:
        super().__init__()
        self.tile = size
        levels = int(math.log2(size)) - 2
        widths = [min(channels * 2**level, max_channels) for level in range(levels + 1)]
        self.from_rgb = ConvLayer(3, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, down=True) for a, b in pairwise(widths)))
        self.conv = ConvLayer(widths[-1], widths[-1], 3)
        self.hidden = EqualizedLinear(widths[-1] * 16, widths[-1])
        self.logit = EqualizedLinear(widths[-1], 1)

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, size, size) → (N, 1) logits, float32: large for real, small for fake."""
        features = self.conv(self.blocks(self.from_rgb(tiles)))
        hidden = F.leaky_relu(self.hidden(features.flatten(1)), NEGATIVE_SLOPE) * ACTIVATION_GAIN
        return cast(Tensor, self.logit(hidden)).float()
