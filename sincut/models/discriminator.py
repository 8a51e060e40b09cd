"""D: what every discriminator can be asked for."""

from __future__ import annotations

from torch import Tensor, nn


class Discriminator(nn.Module):
    """Tells tiles of the style, which are real, from tiles of translations.

    Calling it on tiles (N, C, S, S) gives logits, float32, large for real and small for fake.

    Attributes:
        tile: side of the tiles it judges, or ``None`` where it judges whole crops.
        fitted: whether it has fixed filters to :meth:`fit`.
    """

    tile: int | None = None
    fitted = False

    def fit(self, crops: Tensor) -> None:
        """Learn fixed filters' statistics from many crops of the style, (N, 3, S, S)."""

    def view(self, crops: Tensor) -> Tensor:
        """What tiles are cut from: the crops (N, 3, S, S) themselves, or more channels."""
        return crops

    def energies(self, crops: Tensor) -> Tensor | None:
        """What a second discriminator is given of crops (N, 3, S, S), where there is one."""
        return None
