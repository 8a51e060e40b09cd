"""D: what every discriminator can be asked for."""

from __future__ import annotations

from torch import nn


class Discriminator(nn.Module):
    """Tells tiles of the style, which are real, from tiles of translations.

    Calling it on tiles (N, 3, S, S) gives logits, float32, large for real and small for fake.

    Attributes:
        tile: side of the tiles it judges, or ``None`` where it judges whole crops.
    """

    tile: int | None = None
