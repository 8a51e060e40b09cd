"""H: the projection heads of PatchNCE."""

from __future__ import annotations

from collections.abc import Sequence

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
        """Features (N, C, H, W) and flat positions (P,) per layer → rows (N·P, width) per layer.

        The same positions are taken from every image; rows of one image are consecutive.
        """
        return [
            head(feature.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, where).flatten(0, 1))
            for head, feature, where in zip(self.heads, features, positions, strict=True)
        ]
