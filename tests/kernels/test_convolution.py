"""Convolutions whose second derivatives are convolutions with small filters."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sincut.kernels.convolution import (
    convolution,
    differentiated_twice,
    of_weights_wanted,
    only_of_images,
)
from sincut.models.layers import ConvLayer
from sincut.models.stylegan2_discriminator import TileDiscriminator
from sincut.training.losses import r1_penalty

SHAPES = [(3, 1, 1), (3, 2, 0), (1, 1, 0), (2, 2, 1)]  # side of the filter, stride, padding


def leaves(kernel: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    shapes = (2, 3, 7, 9), (4, 3, kernel, kernel), (4,)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
def test_derivatives_of_every_order(
    kernel: int, stride: int, padding: int, with_bias: bool
) -> None:
    inputs = leaves(kernel)[: 3 if with_bias else 2]

    def run(*given: Tensor) -> Tensor:
        with differentiated_twice():
            return convolution(*given, stride=stride, padding=padding)

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)
    found = []
    for function in (run, lambda *given: F.conv2d(*given, stride=stride, padding=padding)):
        slopes = torch.autograd.grad(function(*inputs).pow(3).sum(), inputs, create_graph=True)
        curves = torch.autograd.grad(
            sum(slope.square().sum() for slope in slopes), inputs, create_graph=True
        )
        thirds = torch.autograd.grad(sum(curve.square().sum() for curve in curves), inputs)
        found.append([*slopes, *curves, *thirds])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_plain_where_nothing_is_gained() -> None:
    image, weight, bias = leaves(3, torch.float32)
    assert convolution(image, weight, bias).grad_fn.name() == "ConvolutionBackward0"
    with differentiated_twice():
        assert convolution(image, weight, bias).grad_fn.name() == "_ConvolutionBackward"
        constant = image.detach()
        assert convolution(constant, weight, bias).grad_fn.name() == "ConvolutionBackward0"
        with torch.no_grad():
            assert convolution(image, weight).grad_fn is None
        with torch.autocast("cpu", torch.bfloat16):
            rounded = convolution(image, weight, bias)
    assert rounded.dtype == torch.bfloat16
    assert rounded.grad_fn.name() == "ConvolutionBackward0"


class Watched(TorchDispatchMode):
    """Notes convolutions: their filters' largest sides, and the derivatives that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[int] = []
        self.wanted: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default and args[-1] == 1:  # not a blur
            self.sides.append(max(args[1].shape[2:]))
        if func is torch.ops.aten.convolution_backward.default:
            self.wanted.append(args[-1])
        return func(*args, **(kwargs or {}))


def test_r1_takes_small_filters_and_no_gradient_in_vain() -> None:
    discriminator = TileDiscriminator(4, size=16, max_channels=8)
    tiles = torch.randn(2, 3, 16, 16, requires_grad=True)
    layers = sum(isinstance(module, ConvLayer) for module in discriminator.modules())
    with differentiated_twice():
        logits = discriminator(tiles)
    with Watched() as inner:
        penalty = r1_penalty(logits, tiles)
    assert inner.wanted == [[True, False, False]] * layers
    with Watched() as outer:
        penalty.backward()
    # By the output's derivative a convolution, by the weight a correlation, for every layer.
    assert len(outer.sides) == layers
    assert max(outer.sides) == 3
    # (The other backward passes carry zeros: PyTorch's leaky ReLU has a second derivative of 0.)
    assert sum(list(each) == [False, True, False] for each in outer.wanted) == layers
    assert of_weights_wanted()


def test_r1_is_that_of_pytorch() -> None:
    found = []
    for kind in (differentiated_twice(), contextlib.nullcontext()):
        torch.manual_seed(0)
        discriminator = TileDiscriminator(4, size=16, max_channels=8).double()
        tiles = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
        with kind:
            logits = discriminator(tiles)
        (r1_penalty(logits, tiles) + F.softplus(logits).mean()).backward()
        found.append([parameter.grad for parameter in discriminator.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_an_error_inside_does_not_lose_gradients() -> None:
    with pytest.raises(ZeroDivisionError), only_of_images():
        1 / of_weights_wanted()
    assert of_weights_wanted()
