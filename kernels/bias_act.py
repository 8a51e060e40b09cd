"""What follows a convolution, in one pass over its output: bias, noise, leaky ReLU.

For an image x (N, C, H, W), a bias b (C,) and noise z (N or 1, 1, H, W)::

    v = x + bias_scale · b + strength · z
    y = max(v, slope · v)

    m = 1 where y > 0, else slope;   v̄ = ȳ · m
    x̄ = v̄,   b̄ = bias_scale · Σ_nhw v̄,   strength̄ = Σ v̄ · z

with ¯ the derivative of what follows. v̄ is linear in ȳ, and m is constant almost everywhere, so the
derivative of a derivative (R1) is the same mask once more.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.kernels.launch import (
    interpreted,
    jit,
    on_device_of,
    rounded,
    served,
    tl,
    triton,
    unit_of,
)

SLOPE = 0.2


def bias_act_(
    image: Tensor,
    bias: Tensor,
    *,
    bias_scale: float = 1.0,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
) -> Tensor:
    """Add bias and noise to an image, and take the leaky ReLU, in place; on CUDA by kernels.

    Args:
        image: (N, C, H, W), floating point, channels last in memory on CUDA; it may be overwritten.
        bias: (C,) float.
        bias_scale: the bias's factor.
        noise: (N or 1, 1, H, W) float32, without a gradient; needs ``strength``.
        strength: () float, the noise's factor.

    Returns:
        (N, C, H, W) of the image's type; derivatives of any order with respect to image, bias and
        strength.

    Raises:
        ValueError: a noise of another shape, or one of noise and strength alone.
    """
    if (noise is None) != (strength is None):
        raise ValueError("noise and strength go together, got one of them")
    if noise is not None:
        count, _, *sides = image.shape
        if tuple(noise.shape) not in ((count, 1, *sides), (1, 1, *sides)):
            raise ValueError(
                f"noise must be ({count} or 1, 1, {sides[0]}, {sides[1]}), got {tuple(noise.shape)}"
            )
    run = bias_act_triton if served(image) else bias_act_reference
    return run(image, bias, bias_scale, noise, strength)


def bias_act_reference(
    image: Tensor,
    bias: Tensor,
    bias_scale: float,
    noise: Tensor | None,
    strength: Tensor | None,
) -> Tensor:
    """The formula as written, for any device, not in place."""
    value = image + (bias * bias_scale).to(image.dtype)[:, None, None]
    if noise is not None and strength is not None:
        value = value + (strength * noise).to(image.dtype)
    return F.leaky_relu(value, SLOPE)


def bias_act_triton(
    image: Tensor,
    bias: Tensor,
    bias_scale: float,
    noise: Tensor | None,
    strength: Tensor | None,
) -> Tensor:
    """The kernels, always: for CPU tensors they need Triton's interpreter."""
    image = image.contiguous(memory_format=torch.channels_last)
    result: Tensor = _BiasAct.apply(  # type: ignore[no-untyped-call]
        image, bias, noise, strength, bias_scale
    )
    return result


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(
        image: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        strength: Tensor | None,
        bias_scale: float,
    ) -> Tensor:
        channels = image.shape[1]
        pixels = image.numel() // channels
        programs, wide, rounds = _grid(pixels, channels)
        unit = unit_of(channels)
        given = image if noise is None else noise.contiguous()
        with on_device_of(image):
            add_and_activate[(programs, wide)](
                image, bias, given, bias if strength is None else strength, pixels,
                pixels if noise is None else given.numel(), channels // unit, rounds, bias_scale,
                UNIT=unit, WITH_NOISE=noise is not None, SLOPE=SLOPE, ROWS=ROWS,
                WIDTH=WIDTH, INTERPRETED=interpreted(add_and_activate),
            )  # fmt: skip
        return image

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, _, noise, _, ctx.bias_scale = inputs
        ctx.mark_dirty(image)
        ctx.save_for_backward(output, noise)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        output, noise = ctx.saved_tensors
        of_image, of_bias, of_strength = _Derivative.apply(  # type: ignore[no-untyped-call]
            slope, output, noise, ctx.bias_scale
        )
        return of_image, of_bias, None, of_strength, None


class _Derivative(torch.autograd.Function):
    """ȳ → x̄, b̄ and strength̄; its own derivative with respect to ȳ is the mask again."""

    @staticmethod
    def forward(
        slope: Tensor, output: Tensor, noise: Tensor | None, bias_scale: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        slope = slope.contiguous(memory_format=torch.channels_last)
        channels = output.shape[1]
        pixels = output.numel() // channels
        programs, wide, rounds = _grid(pixels, channels)
        unit = unit_of(channels)
        result = torch.empty_like(output)
        sums = output.new_empty((programs, channels), dtype=torch.float32)
        noise_sums = sums
        if noise is not None:
            noise = noise.contiguous()
            noise_sums = sums.new_empty((programs, wide))
        with on_device_of(output):
            mask_and_sum[(programs, wide)](
                slope, output, output if noise is None else noise, result, sums, noise_sums,
                pixels, pixels if noise is None else noise.numel(), channels // unit, rounds,
                bias_scale, UNIT=unit, WITH_NOISE=noise is not None, SLOPE=SLOPE,
                ROWS=ROWS, WIDTH=WIDTH, INTERPRETED=interpreted(mask_and_sum),
            )  # fmt: skip
        return result, sums.sum(dim=0), noise_sums.sum() if noise is not None else None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        _, activated, noise, ctx.bias_scale = inputs
        ctx.save_for_backward(activated, noise)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, of_image: Tensor | None, of_bias: Tensor | None, of_strength: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        output, noise = ctx.saved_tensors
        if of_bias is None and of_strength is None and of_image is not None:
            again, _, _ = _Derivative.apply(  # type: ignore[no-untyped-call]
                of_image, output, noise, ctx.bias_scale
            )
            return again, None, None, None
        # Nothing of the project comes here; whoever differentiates a bias's gradient does.
        mask = torch.where(output > 0, 1.0, SLOPE)
        back = torch.zeros_like(mask)
        if of_image is not None:
            back = back + of_image
        if of_bias is not None:
            back = back + ctx.bias_scale * of_bias[:, None, None]
        if of_strength is not None and noise is not None:
            back = back + of_strength * noise
        return (back * mask).to(output.dtype), None, None, None


# --- The kernels --------------------------------------------------------------------------------

WIDTH = 64  # channels of a program
ROWS = 32  # pixels that a program looks at at once
MOST_ROUNDS = 16  # as many of them in turn, where there are more than the GPU has room for

_PROGRAMS = 1024  # about what fills the largest GPUs


def _grid(pixels: int, channels: int) -> tuple[int, int, int]:
    """Programs for pixels and for channels, and the rounds of each."""
    tiles, wide = triton.cdiv(pixels, ROWS), triton.cdiv(channels, WIDTH)
    rounds = max(1, min(MOST_ROUNDS, tiles * wide // _PROGRAMS))
    return triton.cdiv(tiles, rounds), wide, rounds


@jit(sizes=("pixels", "noise_pixels", "units", "rounds"))
def add_and_activate(  # type: ignore[no-untyped-def]
    image_ptr,
    bias_ptr,
    noise_ptr,
    strength_ptr,
    pixels,
    noise_pixels,
    units,
    rounds,
    bias_scale,
    UNIT: tl.constexpr,
    WITH_NOISE: tl.constexpr,
    SLOPE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """In place on some pixels and channels of an image that is channels last.

    There are units · UNIT channels: where UNIT is 8, reads are of 16 bytes.
    """
    channels = units * UNIT
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    bias = tl.load(bias_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)
    for index in range(rounds):
        pixel = (tl.program_id(0) * rounds + index).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        place = image_ptr + pixel[:, None] * channels + channel[None, :]
        image = tl.load(place, mask=inside, other=0.0)
        value = image.to(tl.float32) + (bias * bias_scale)[None, :]
        if WITH_NOISE:
            noise = tl.load(noise_ptr + pixel % noise_pixels, mask=pixel < pixels, other=0.0)
            value += (tl.load(strength_ptr).to(tl.float32) * noise.to(tl.float32))[:, None]
        value = tl.where(value > 0.0, value, SLOPE * value)
        tl.store(place, rounded(value, image.dtype, INTERPRETED), mask=inside)


@jit(sizes=("pixels", "noise_pixels", "units", "rounds"))
def mask_and_sum(  # type: ignore[no-untyped-def]
    slope_ptr,
    output_ptr,
    noise_ptr,
    result_ptr,
    sums_ptr,
    noise_sums_ptr,
    pixels,
    noise_pixels,
    units,
    rounds,
    bias_scale,
    UNIT: tl.constexpr,
    WITH_NOISE: tl.constexpr,
    SLOPE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """x̄ of some pixels and channels, and what they add to b̄ and to strength̄."""
    channels = units * UNIT
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    sums = tl.zeros((WIDTH,), tl.float32)
    of_noise = tl.zeros((ROWS,), tl.float32)
    for index in range(rounds):
        pixel = (tl.program_id(0) * rounds + index).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        place = pixel[:, None] * channels + channel[None, :]
        slope = tl.load(slope_ptr + place, mask=inside, other=0.0)
        output = tl.load(output_ptr + place, mask=inside, other=0.0).to(tl.float32)
        value = slope.to(tl.float32)
        value = tl.where(output > 0.0, value, SLOPE * value)
        result = rounded(value, slope.dtype, INTERPRETED)
        tl.store(result_ptr + place, result, mask=inside)
        sums += tl.sum(value, axis=0)
        if WITH_NOISE:
            noise = tl.load(noise_ptr + pixel % noise_pixels, mask=pixel < pixels, other=0.0)
            of_noise += tl.sum(value, axis=1) * noise.to(tl.float32)
    start = sums_ptr + tl.program_id(0).to(tl.int64) * channels
    tl.store(start + channel, sums * bias_scale, mask=channel < channels)
    if WITH_NOISE:
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(noise_sums_ptr + program, tl.sum(of_noise, axis=0))
