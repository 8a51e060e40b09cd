"""Colours through a table."""

from __future__ import annotations

import torch

from sincut.data.recolouring import recoloured


def test_recoloured_interpolates_the_table() -> None:
    axis = torch.linspace(0, 1, 5)
    red, green, blue = torch.meshgrid(axis, axis, axis, indexing="ij")
    table = torch.stack([0.5 * green + 0.25, blue, 1 - red], dim=-1)  # linear: exact
    image = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    unit = (image + 1) / 2
    expected = torch.stack([0.5 * unit[:, 1] + 0.25, unit[:, 2], 1 - unit[:, 0]], dim=1) * 2 - 1
    assert torch.allclose(recoloured(image, table), expected, atol=1e-5)
