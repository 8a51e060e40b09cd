"""Fixed filters in networks that are differentiated twice.

The derivative of a convolution's derivative, as PyTorch works it out, always includes the filter's
own gradient, of a grouped one channel by channel: for R1 a thousand convolutions a step whose
results nobody reads. A filter that does not learn needs none of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def filtered(image: Tensor, kernel: Tensor, padding: int, stride: int) -> Tensor:
    """Every channel of (N, C, H, W) through one filter (K, K), with zeros around it.

    The filter must be the same turned upside down and the other way round, and gets no gradient.
    Sides become ``(H + 2 · padding − K) // stride + 1``; ``padding`` is below K.
    """
    # A compiler leaves out by itself what nobody reads, and loses second derivatives of the other.
    if torch.is_grad_enabled() and image.requires_grad and not torch.compiler.is_compiling():
        result: Tensor = _Filtered.apply(  # type: ignore[no-untyped-call]
            image, kernel, padding, stride
        )
        return result
    return _depthwise(image, kernel, padding, stride)


class _Filtered(torch.autograd.Function):
    """The filter; its derivative is its transpose."""

    @staticmethod
    def forward(image: Tensor, kernel: Tensor, padding: int, stride: int) -> Tensor:
        return _depthwise(image, kernel, padding, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, kernel, ctx.padding, ctx.stride = inputs
        ctx.sides = tuple(image.shape[2:])
        ctx.save_for_backward(kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        passed: Tensor = _Transposed.apply(  # type: ignore[no-untyped-call]
            gradient, kernel, ctx.padding, ctx.stride, ctx.sides
        )
        return passed, None, None, None


class _Transposed(torch.autograd.Function):
    """The transpose; its derivative is the filter again."""

    @staticmethod
    def forward(
        image: Tensor, kernel: Tensor, padding: int, stride: int, sides: tuple[int, int]
    ) -> Tensor:
        if stride == 1:
            return _depthwise(image, kernel, len(kernel) - 1 - padding, 1)
        missing = [
            side + 2 * padding - len(kernel) - (small - 1) * stride
            for side, small in zip(sides, image.shape[2:], strict=True)
        ]
        filters, channels = _per_channel(image, kernel), image.shape[1]
        return F.conv_transpose2d(image, filters, None, stride, padding, missing, channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, kernel, ctx.padding, ctx.stride, _ = inputs
        ctx.save_for_backward(kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        passed: Tensor = _Filtered.apply(  # type: ignore[no-untyped-call]
            gradient, kernel, ctx.padding, ctx.stride
        )
        return passed, None, None, None, None


def _depthwise(image: Tensor, kernel: Tensor, padding: int, stride: int) -> Tensor:
    filters, channels = _per_channel(image, kernel), image.shape[1]
    return F.conv2d(image, filters, None, stride, padding, groups=channels)


def _per_channel(image: Tensor, kernel: Tensor) -> Tensor:
    return kernel.to(image.dtype).expand(image.shape[1], 1, *kernel.shape)
