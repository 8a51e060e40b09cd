"""The low-pass filter of StyleGAN2's layers, differentiable as often as is asked for.

With the taps t = [1, 3, 3, 1] / 8, zeros around the image, padding p and stride s::

    blur(x)[y, x]        = gain · Σ_ij t_i t_j · image[s·y + i − p, s·x + j − p]
    transposed(g)[y, x]  = gain · Σ_ij t_i t_j · g[(y + p − i) / s, (x + p − j) / s]   whole places

on every channel by itself. Each is the derivative of the other, so R1 needs nothing else. Written
as a depthwise convolution in PyTorch, the derivative's derivative would also work out the filter's
own gradient, channel by channel: a thousand convolutions a step whose results nobody reads. And
cuDNN's depthwise kernels take ten times as long as the memory they move.

The filter is symmetric, so its transpose with stride 1 is itself with padding 3 − p. With stride 2
an output of the transpose has two taps an axis: (1, 3) or (3, 1), as its place is even or odd.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.kernels.launch import jit, on_device_of, served, tl, triton, unit_of

TAPS = (1.0, 3.0, 3.0, 1.0)  # of 8


def blur(image: Tensor, *, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """Filter an image; CUDA tensors go through the kernels.

    Args:
        image: (N, C, H, W), floating point; on CUDA best channels last in memory.
        padding: zeros around the image, 0 to 3.
        stride: 1 or 2.
        gain: factor of the result.

    Returns:
        (N, C, (H + 2·padding − 4) // stride + 1, …) of the same type; derivatives of any order
        with respect to the image.
    """
    # A compiler leaves out by itself what nobody reads, and loses second derivatives of the other.
    if torch.is_grad_enabled() and image.requires_grad and not torch.compiler.is_compiling():
        result: Tensor = _Blur.apply(image, padding, stride, gain)  # type: ignore[no-untyped-call]
        return result
    return _blurred(image, padding, stride, gain)


def blur_reference(image: Tensor, padding: int, stride: int, gain: float) -> Tensor:
    """The filter as a depthwise convolution, for any device."""
    channels = image.shape[1]
    return F.conv2d(image, _filters(image, gain), None, stride, padding, groups=channels)


def transposed_reference(
    image: Tensor, padding: int, stride: int, gain: float, sides: tuple[int, int]
) -> Tensor:
    """The transpose as a depthwise convolution; ``sides`` are those of the filter's input."""
    if stride == 1:
        return blur_reference(image, 3 - padding, 1, gain)
    if image.dtype == torch.bfloat16 and not image.is_cuda:
        # PyTorch's own takes five times as long on a CPU as filtering the image with zeros between.
        shape = (*image.shape[:2], *(side + 2 * padding - 3 for side in sides))
        spread = image.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        spread[..., ::2, ::2] = image
        return blur_reference(spread, 3 - padding, 1, gain)
    missing = [
        side + 2 * padding - 4 - (small - 1) * stride
        for side, small in zip(sides, image.shape[2:], strict=True)
    ]
    filters, channels = _filters(image, gain), image.shape[1]
    return F.conv_transpose2d(image, filters, None, stride, padding, missing, channels)


def blur_triton(image: Tensor, padding: int, stride: int, gain: float) -> Tensor:
    """The filter's kernel, always: for CPU tensors it needs Triton's interpreter."""
    sides = ((side + 2 * padding - 4) // stride + 1 for side in image.shape[2:])
    return _launched(image, padding, stride, gain, tuple(sides), up=False)


def transposed_triton(
    image: Tensor, padding: int, stride: int, gain: float, sides: tuple[int, int]
) -> Tensor:
    """The transpose's kernel, always: for CPU tensors it needs Triton's interpreter."""
    if stride == 1:
        return _launched(image, 3 - padding, 1, gain, sides, up=False)
    return _launched(image, padding, stride, gain, sides, up=True)


class _Blur(torch.autograd.Function):
    """The filter; its derivative is its transpose."""

    @staticmethod
    def forward(image: Tensor, padding: int, stride: int, gain: float) -> Tensor:
        return _blurred(image, padding, stride, gain)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, *ctx.how = inputs
        ctx.sides = tuple(image.shape[2:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        passed: Tensor = _Transposed.apply(  # type: ignore[no-untyped-call]
            gradient, *ctx.how, ctx.sides
        )
        return passed, None, None, None


class _Transposed(torch.autograd.Function):
    """The transpose; its derivative is the filter again."""

    @staticmethod
    def forward(
        image: Tensor, padding: int, stride: int, gain: float, sides: tuple[int, int]
    ) -> Tensor:
        run = transposed_triton if served(image) else transposed_reference
        return run(image, padding, stride, gain, sides)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, *ctx.how, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        passed: Tensor = _Blur.apply(gradient, *ctx.how)  # type: ignore[no-untyped-call]
        return passed, None, None, None, None


def _blurred(image: Tensor, padding: int, stride: int, gain: float) -> Tensor:
    run = blur_triton if served(image) else blur_reference
    return run(image, padding, stride, gain)


def _filters(image: Tensor, gain: float) -> Tensor:
    taps = torch.tensor(TAPS, dtype=image.dtype, device=image.device)
    return (gain / 64 * taps[:, None] * taps).expand(image.shape[1], 1, 4, 4)


# --- The kernel ---------------------------------------------------------------------------------


BLOCK = 1024  # entries of a row that a program makes: eight for each of its threads
ROWS = 4  # rows of the filter's that it makes, from 4 + 3 of the image with stride 1


@jit(sizes=("height", "width", "out_height", "out_width", "units", "padding"))
def filter_rows(  # type: ignore[no-untyped-def]
    image_ptr,
    out_ptr,
    height,
    width,
    out_height,
    out_width,
    units,
    padding,
    gain,
    UNIT: tl.constexpr,
    STRIDE: tl.constexpr,
    UP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Parts of some output rows, channels last: entry e is channel e % C of pixel e // C.

    In a row of pixels times channels a pixel further is C entries further, so threads need not
    know which channel they have. C is units · UNIT: where that is 8, reads are of 16 bytes.
    UP: the transpose of the filter with stride 2, of which a program makes one row. What no tap of
    an output reaches is left out, not multiplied by 0: it may be infinite.
    """
    channels = units * UNIT
    blocks = tl.cdiv(out_width * channels, BLOCK)
    lines = tl.cdiv(out_height, ROWS)
    line = tl.program_id(0) // blocks
    entry = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = entry < out_width * channels
    image = (line // lines).to(tl.int64)
    first_row = image * height
    y = line % lines * ROWS
    each = tl.arange(0, ROWS)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    if UP:
        x = entry // channels
        channel = entry % channels
        odd_y, odd_x = (y + padding) % 2, (x + padding) % 2
        for i in tl.static_range(2):
            row = (y + padding - odd_y) // 2 - i
            tap_y = tl.where(odd_y == i, 1.0, 3.0)
            for j in tl.static_range(2):
                column = (x + padding - odd_x) // 2 - j
                tap = tap_y * tl.where(odd_x == j, 1.0, 3.0)
                exists = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                place = (first_row + row) * width * channels + column * channels + channel
                value = tl.load(image_ptr + place, mask=exists, other=0.0).to(tl.float32)
                total += (tap * value)[None, :]
    else:
        middle = entry
        if STRIDE == 2:
            middle = entry + entry // channels * channels
        for i in tl.static_range(STRIDE * (ROWS - 1) + 4):  # a row, filtered once for all outputs
            row = y * STRIDE + i - padding
            row_exists = (row >= 0) & (row < height)
            start = image_ptr + (first_row + row) * width * channels
            across = tl.zeros((BLOCK,), tl.float32)
            for j in tl.static_range(4):
                place = middle + (j - padding) * channels
                exists = inside & row_exists & (place >= 0) & (place < width * channels)
                value = tl.load(start + place, mask=exists, other=0.0).to(tl.float32)
                across += (3.0 if j % 3 else 1.0) * value
            k = i - STRIDE * each  # which tap this row is of each output
            tap = tl.where((k == 1) | (k == 2), 3.0, tl.where((k == 0) | (k == 3), 1.0, 0.0))
            total += tap[:, None] * tl.where((tap > 0.0)[:, None], across[None, :], 0.0)
    out = ((image * out_height + y + each) * out_width * channels)[:, None] + entry[None, :]
    tl.store(out_ptr + out, total * gain, mask=(y + each < out_height)[:, None] & inside[None, :])


def _launched(
    image: Tensor, padding: int, stride: int, gain: float, sides: tuple[int, ...], *, up: bool
) -> Tensor:
    image = image.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = image.shape
    out = torch.empty(
        (count, channels, *sides),
        dtype=image.dtype,
        device=image.device,
        memory_format=torch.channels_last,
    )
    unit = unit_of(channels)
    rows = 1 if up else ROWS
    programs = count * triton.cdiv(sides[0], rows) * triton.cdiv(sides[1] * channels, BLOCK)
    with on_device_of(image):
        filter_rows[(programs,)](
            image, out, height, width, *sides, channels // unit, padding, gain / 64,
            UNIT=unit, STRIDE=stride, UP=up, ROWS=rows, BLOCK=BLOCK,
        )  # fmt: skip
    return out
