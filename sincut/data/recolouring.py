"""Colours through a table, as :func:`sincut.data.colour_transfer.transfer_table` makes it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def recoloured(image: Tensor, table: Tensor) -> Tensor:
    """(N, 3, H, W) in [-1, 1] through a colour table (S, S, S, 3) in [0, 1], trilinear."""
    lattice = table.permute(3, 0, 1, 2)[None] * 2 - 1  # (1, 3, red, green, blue)
    where = image.clamp(-1, 1).flip(1).permute(0, 2, 3, 1)[None]  # blue, green, red as x, y, z
    return F.grid_sample(lattice, where, align_corners=True)[0].transpose(0, 1)
