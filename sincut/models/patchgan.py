"""D of CUT: a PatchGAN, which judges an image patch by patch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sincut.models.discriminator import Discriminator
from sincut.models.resnet_layers import (
    NEGATIVE_SLOPE,
    Convolution,
    Halving,
    instance_norm,
    not_rounded,
)


class PatchDiscriminator(Discriminator):
    """Three halvings behind 4×4 convolutions, then two more convolutions to one channel.

    A logit sees 84 pixels (70 gave the published network its name; its blurs widen that), and
    through the norms the whole image.

    Args:
        channels: width at full resolution, doubled up to eightfold (published: 64).
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        d = channels
        self.first = Convolution(3, d, 4, padding=1)
        self.second = Convolution(d, 2 * d, 4, padding=1, biased=False)
        self.third = Convolution(2 * d, 4 * d, 4, padding=1, biased=False)
        self.fourth = Convolution(4 * d, 8 * d, 4, padding=1, biased=False)
        self.logits = Convolution(8 * d, 1, 4, padding=1)
        self.halving = Halving()

    def forward(self, tiles: Tensor) -> Tensor:
        """(N, 3, H, W), sides from 32 → (N, 1, h, w) logits, float32, about an eighth as large."""
        features = self.halving(F.leaky_relu_(self.first(tiles), NEGATIVE_SLOPE))
        for layer in (self.second, self.third):
            features = F.leaky_relu_(instance_norm(layer(features)), NEGATIVE_SLOPE)
            features = self.halving(features)
        features = F.leaky_relu_(instance_norm(self.fourth(features)), NEGATIVE_SLOPE)
        return not_rounded(self.logits(features))
