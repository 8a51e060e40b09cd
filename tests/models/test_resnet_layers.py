"""Layers of the ResNet: on a window they give what the whole image gives; norms lose no digits."""

from __future__ import annotations

import pytest
import torch

from sincut.models.resnet_layers import (
    Convolution,
    Doubling,
    Halving,
    Layer,
    TransposedConvolution,
    instance_norm,
    pieces,
)

LAYERS: list[Layer] = [
    Convolution(2, 3, 7, border="reflect"),
    Convolution(2, 3, 3),
    Convolution(2, 3, 3, stride=2),
    TransposedConvolution(2, 3),
    Halving(),
    Doubling(),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("height", [8, 12])
def test_a_window_is_a_part_of_the_whole(layer: Layer, height: int) -> None:
    """Every window along one axis, with the other axis at all of its borders."""
    image = torch.randn(1, 2, height, 8)
    whole = layer(image)
    rows, width = whole.shape[-2:]
    assert (layer.outputs(height), layer.outputs(8)) == (rows, width)
    for first in range(rows):
        for last in range(first, rows):
            down, top, bottom = pieces([layer], first, last, height)
            for left, right in ((0, width - 1), (1, 1), (width - 1, width - 1)):
                across, start, stop = pieces([layer], left, right, 8)
                window = image[..., top : bottom + 1, start : stop + 1]
                got = layer.windowed(window, down[0], across[0])
                expected = whole[..., first : last + 1, left : right + 1]
                assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_a_norm_over_many_places_loses_no_digits(count: int, layout: torch.memory_format) -> None:
    image = torch.randn(count, 3, 700, 700).add_(2).to(memory_format=layout)
    exact = instance_norm(image.double())
    assert (instance_norm(image) - exact).abs().max() < 2e-6
