"""H: the projection heads of PatchNCE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sincut.models.weights import Linear


class PatchProjector(nn.Module):
    """H: one two-layer perceptron per encoder layer, applied at sampled positions.

    The rows are *not* normalised here; the contrastive loss does that. Weights are Xavier-normal
    with gain 0.02, biases 0, as published.
    """

    def __init__(self, layer_channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(Linear(channels, width), nn.ReLU(), Linear(width, width))
            for channels in layer_channels
        )
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.xavier_normal_(module.weight, gain=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Features (N, C, H, W) and flat positions (S, P) per layer → rows (N·P, width) per layer.

        The images are S sets of equally many, one behind the other; from each image of a set the
        same positions are taken. Rows of one image are consecutive.
        """
        return [
            head(_taken(feature, where))
            for head, feature, where in zip(self.heads, features, positions, strict=True)
        ]


def _taken(feature: Tensor, positions: Tensor) -> Tensor:
    """(N, C, H, W) at (S, P) → (N·P, C)."""
    pixels = feature.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H·W, C)
    if len(positions) == 1:
        return pixels.index_select(1, positions[0]).flatten(0, 1)
    images = torch.arange(len(pixels), device=pixels.device).view(len(positions), -1, 1)
    rows = positions[:, None] + images * pixels.shape[1]
    return pixels.flatten(0, 1).index_select(0, rows.flatten())
