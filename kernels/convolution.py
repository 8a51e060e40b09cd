"""Convolutions that can be differentiated twice at the speed of convolutions.

For y = w ∗ x, with ¯ the derivative of what follows, x̄ = wᵀ ∗ ȳ and w̄ = corr(x, ȳ) are linear in ȳ.
R1 differentiates x̄ once more. With ẋ the derivative by x̄, and ẇ by w̄::

    by ȳ:  w ∗ ẋ + ẇ ∗ x        by w:  corr(ẋ, ȳ)        by x:  ẇᵀ ∗ ȳ

which are the three operations again, so a derivative of any order is. PyTorch's own second
derivative writes corr as a convolution of transposed copies, whose filter is as large as the image:
on a GPU cuDNN then takes Fourier transforms and other algorithms that are made for small filters.

What R1 differentiates first is D by its input. Nobody reads the derivatives by weights on that way;
:func:`only_of_images` leaves them out. A function in Python costs a tenth of a millisecond, so
these are for passes that are :func:`differentiated_twice`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# For all threads: on a GPU gradients are worked out in another.
_only_of_images = False
_twice = False


@contextlib.contextmanager
def differentiated_twice() -> Iterator[None]:
    """Inside, convolutions expect that a gradient of theirs is differentiated."""
    global _twice
    before, _twice = _twice, True
    try:
        yield
    finally:
        _twice = before


@contextlib.contextmanager
def only_of_images() -> Iterator[None]:
    """Inside, gradients of layers by weights and biases may be missing: for a caller that asks for
    those by images alone, and for a graph of them. It holds for all threads of the process."""
    global _only_of_images
    before, _only_of_images = _only_of_images, True
    try:
        yield
    finally:
        _only_of_images = before


def of_weights_wanted() -> bool:
    """Whether a layer's backward pass has to give the gradients of weights and biases."""
    return not _only_of_images


def convolution(
    image: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """``F.conv2d``; inside :func:`differentiated_twice` with other second derivatives.

    Args:
        image: (N, C_in, H, W).
        weight: (C_out, C_in, K, K).
        bias: (C_out,).
        padding: zeros around the image.

    Returns:
        (N, C_out, (H + 2·padding − K) // stride + 1, …), with derivatives of any order; under
        autocast, and for a compiler, those of ``F.conv2d``.
    """
    plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(image.device.type)
    if plain or not (_twice and torch.is_grad_enabled() and image.requires_grad):
        return F.conv2d(image, weight, bias, stride, padding)
    result: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        image, weight, bias, stride, padding
    )
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        image: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        return F.conv2d(image, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, weight, _, *ctx.how = inputs
        ctx.save_for_backward(image, weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        wanted = _wanted(*ctx.needs_input_grad[:3])
        found = _Derivatives.apply(slope, image, weight, wanted, *ctx.how)  # type: ignore[no-untyped-call]
        return *found, None, None


class _Derivatives(torch.autograd.Function):
    """ȳ → x̄, w̄ and the bias's, as far as they are wanted."""

    @staticmethod
    def forward(
        slope: Tensor,
        image: Tensor,
        weight: Tensor,
        wanted: tuple[bool, bool, bool],
        stride: int,
        padding: int,
    ) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            slope, image, weight, [len(weight)], [stride] * 2, [padding] * 2, [1, 1], False,
            [0, 0], 1, wanted,
        )  # fmt: skip
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        slope, image, weight, _, *ctx.how = inputs
        ctx.save_for_backward(slope, image, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, of_image: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        slope, image, weight = ctx.saved_tensors
        by_slope: list[Tensor] = []
        by_image, by_weight = None, None
        if of_image is not None:
            by_slope.append(_Convolution.apply(of_image, weight, None, *ctx.how))  # type: ignore[no-untyped-call]
            if ctx.needs_input_grad[2]:
                wanted = _wanted(False, True, False)
                by_weight = _Derivatives.apply(slope, of_image, weight, wanted, *ctx.how)[1]  # type: ignore[no-untyped-call]
        if of_weight is not None:
            by_slope.append(_Convolution.apply(image, of_weight, None, *ctx.how))  # type: ignore[no-untyped-call]
            if ctx.needs_input_grad[1]:
                wanted = True, False, False
                by_image = _Derivatives.apply(slope, image, of_weight, wanted, *ctx.how)[0]  # type: ignore[no-untyped-call]
        if of_bias is not None:
            by_slope.append(of_bias[:, None, None].expand_as(slope))
        total = functools.reduce(torch.add, by_slope) if by_slope else None
        return total, by_image, by_weight, None, None, None


def _wanted(image: bool, weight: bool, bias: bool) -> tuple[bool, bool, bool]:
    return image, weight and of_weights_wanted(), bias and of_weights_wanted()
