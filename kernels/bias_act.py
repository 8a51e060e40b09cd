"""What follows a convolution, in one pass over its output: bias, noise, leaky ReLU, residual sum.

For an image x (N, C, H, W), a bias b (C,), noise z (N or 1, 1, H, W) and a residual r like x::

    v = x + bias_scale · b + strength · z
    y = max(v, slope · v) + residual_scale · r

    m = 1 where v > 0, else slope;   v̄ = ȳ · m
    x̄ = v̄,   b̄ = bias_scale · Σ_nhw v̄,   strength̄ = Σ v̄ · z,   r̄ = residual_scale · ȳ

with ¯ the derivative of what follows. v̄ is linear in ȳ, and m is constant almost everywhere, so the
derivative of a derivative (R1) is the same mask once more. All that is kept of v is a bit each.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.kernels.convolution import of_weights_wanted
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
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """Add bias and noise to an image, take the leaky ReLU and add a residual; on CUDA by kernels,
    in place.

    Args:
        image: (N, C, H, W), floating point, channels last in memory on CUDA; it may be overwritten.
        bias: (C,) float.
        bias_scale: the bias's factor.
        noise: (N or 1, 1, H, W) float32, without a gradient; needs ``strength``.
        strength: () float, the noise's factor.
        residual: (N, C, H, W) of the image's type, added after the activation.
        residual_scale: its factor.

    Returns:
        (N, C, H, W) of the image's type; derivatives of any order with respect to image, bias,
        strength and residual.

    Raises:
        ValueError: a noise or residual of another shape, a residual of another type, or one of
            noise and strength alone.
    """
    if (noise is None) != (strength is None):
        raise ValueError("noise and strength go together, got one of them")
    if noise is not None:
        count, _, *sides = image.shape
        if tuple(noise.shape) not in ((count, 1, *sides), (1, 1, *sides)):
            raise ValueError(
                f"noise must be ({count} or 1, 1, {sides[0]}, {sides[1]}), got {tuple(noise.shape)}"
            )
    if residual is not None and (residual.shape, residual.dtype) != (image.shape, image.dtype):
        raise ValueError(
            f"residual must be {tuple(image.shape)} {image.dtype}, got {tuple(residual.shape)} "
            f"{residual.dtype}"
        )
    run = bias_act_triton if served(image) else bias_act_reference
    return run(image, bias, bias_scale, noise, strength, residual, residual_scale)


def bias_act_reference(
    image: Tensor,
    bias: Tensor,
    bias_scale: float = 1.0,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """The formula as written, for any device, not in place."""
    value = image + (bias * bias_scale).to(image.dtype)[:, None, None]
    if noise is not None and strength is not None:
        value = value + (strength * noise).to(image.dtype)
    value = F.leaky_relu(value, SLOPE)
    return value if residual is None else torch.add(value, residual, alpha=residual_scale)


def bias_act_triton(
    image: Tensor,
    bias: Tensor,
    bias_scale: float = 1.0,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """The kernels, always: for CPU tensors they need Triton's interpreter."""
    image = image.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    given = image, bias, noise, strength, residual, bias_scale, residual_scale
    leaves = image, bias, strength, residual
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in leaves):
        result: Tensor = _BiasAct.apply(*given)[0]  # type: ignore[no-untyped-call]
        return result
    return _activated(*given, with_signs=False)[0]


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, Tensor | None]:
        return _activated(*given, with_signs=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        image, _, noise, _, _, ctx.bias_scale, ctx.residual_scale = inputs
        ctx.mark_dirty(image)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1], noise)

    @staticmethod
    def backward(ctx: Any, slope: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if slope is None:  # where a second derivative alone is followed, nothing comes from above
            return (None,) * 7
        signs, noise = ctx.saved_tensors
        _, bias, _, strength, residual, *_ = ctx.needs_input_grad
        with_sums = (bias or strength) and of_weights_wanted()
        scale = ctx.residual_scale if residual and ctx.residual_scale != 1 else None
        of_image, of_bias, of_strength, of_residual = _Derivative.apply(  # type: ignore[no-untyped-call]
            slope, signs, noise, ctx.bias_scale, scale, with_sums
        )
        if residual and scale is None:
            of_residual = slope
        return of_image, of_bias, None, of_strength, of_residual, None, None


class _Derivative(torch.autograd.Function):
    """ȳ → x̄, b̄, strength̄ and r̄, the last with a scale only; its own derivative with respect to ȳ
    is the mask again."""

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor | None, ...]:
        return _masked(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        slope, signs, noise, ctx.bias_scale, ctx.residual_scale, _ = inputs
        ctx.shape, ctx.dtype = slope.shape, slope.dtype
        ctx.save_for_backward(signs, noise)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any,
        of_image: Tensor | None,
        of_bias: Tensor | None,
        of_strength: Tensor | None,
        of_residual: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        signs, noise = ctx.saved_tensors
        back = of_image
        # Nothing of the project asks for these two; whoever differentiates a bias's gradient does.
        if of_bias is not None:
            more = ctx.bias_scale * of_bias[:, None, None]
            back = more if back is None else back + more
        if of_strength is not None:
            back = of_strength * noise if back is None else back + of_strength * noise
        if back is not None:
            back = back.to(ctx.dtype).expand(ctx.shape)
            back, *_ = _Derivative.apply(back, signs, noise, 1.0, None, False)  # type: ignore[no-untyped-call]
        if of_residual is not None:
            more = ctx.residual_scale * of_residual
            back = more if back is None else back + more
        return back, None, None, None, None, None


# --- The kernels --------------------------------------------------------------------------------

WIDTH = 64  # channels of a program
ROWS = 32  # pixels that a program looks at at once
MOST_ROUNDS = 16  # as many of them in turn, where there are more than the GPU has room for
SUMMED = 64  # programs whose sums are added at once

_PROGRAMS = 1024  # about what fills the largest GPUs
_COUNTERS = 1024  # 64 channels each

# For each device and stream, how many programs of the running launch are done, by channels.
_counters: dict[tuple[str, int], Tensor] = {}


def _activated(
    image: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    residual: Tensor | None,
    bias_scale: float,
    residual_scale: float,
    *,
    with_signs: bool,
) -> tuple[Tensor, Tensor | None]:
    """y in place of x; and the signs of v: (pixels, bytes of eight channels)."""
    channels = image.shape[1]
    pixels = image.numel() // channels
    programs, wide, rounds = _grid(pixels, channels)
    unit = unit_of(channels)
    signs = None
    if with_signs:
        shape = pixels, triton.cdiv(channels, 8)
        signs = torch.empty(shape, dtype=torch.uint8, device=image.device)
    noise = None if noise is None else noise.contiguous()
    with on_device_of(image):
        add_and_activate[(programs, wide)](
            image, image, bias, noise, strength, residual, signs, pixels,
            pixels if noise is None else noise.numel(), channels // unit, rounds, bias_scale,
            residual_scale, UNIT=unit, WITH_NOISE=noise is not None,
            WITH_RESIDUAL=residual is not None, WITH_SIGNS=with_signs, SLOPE=SLOPE, ROWS=ROWS,
            WIDTH=WIDTH, INTERPRETED=interpreted(add_and_activate),
        )  # fmt: skip
    return image, signs


def _masked(
    slope: Tensor,
    signs: Tensor,
    noise: Tensor | None,
    bias_scale: float,
    residual_scale: float | None,
    with_sums: bool,
) -> tuple[Tensor | None, ...]:
    """x̄, and as far as they are asked for b̄, strength̄ and r̄."""
    slope = slope.contiguous(memory_format=torch.channels_last)
    channels = slope.shape[1]
    pixels = slope.numel() // channels
    programs, wide, rounds = _grid(pixels, channels)
    unit = unit_of(channels)
    result = torch.empty_like(slope)
    residual = None if residual_scale is None else torch.empty_like(slope)
    parts = bias_sum = noise_sums = counter = None
    if with_sums:
        parts = slope.new_empty((programs, channels), dtype=torch.float32)
        bias_sum, counter = parts.new_empty(channels), _counter(slope, wide)
        noise_sums = None if noise is None else parts.new_empty((programs, wide))
    noise = noise.contiguous() if noise is not None and with_sums else None
    with on_device_of(slope):
        mask_and_sum[(programs, wide)](
            slope, signs, noise, result, residual, parts, bias_sum, noise_sums, counter, pixels,
            pixels if noise is None else noise.numel(), channels // unit, rounds, bias_scale,
            residual_scale or 0.0, UNIT=unit, WITH_NOISE=noise is not None, WITH_SUMS=with_sums,
            WITH_RESIDUAL=residual is not None, SLOPE=SLOPE, ROWS=ROWS, WIDTH=WIDTH,
            SUMMED=SUMMED, INTERPRETED=interpreted(mask_and_sum),
        )  # fmt: skip
    return result, bias_sum, None if noise_sums is None else noise_sums.sum(), residual


def _counter(image: Tensor, wide: int) -> Tensor:
    """Zeros, which a launch leaves as they were; launches of one stream follow each other."""
    assert wide <= _COUNTERS
    stream = torch.cuda.current_stream(image.device).cuda_stream if image.is_cuda else 0
    key = str(image.device), stream
    if key in _counters:
        return _counters[key]
    made = torch.zeros(_COUNTERS, dtype=torch.int32, device=image.device)
    # What is made in a recording belongs to the graph, which makes it zero in every replay.
    if not (image.is_cuda and torch.cuda.is_current_stream_capturing()):
        _counters[key] = made
    return made


def _grid(pixels: int, channels: int) -> tuple[int, int, int]:
    """Programs for pixels and for channels, and the rounds of each."""
    tiles, wide = triton.cdiv(pixels, ROWS), triton.cdiv(channels, WIDTH)
    rounds = max(1, min(MOST_ROUNDS, tiles * wide // _PROGRAMS))
    return triton.cdiv(tiles, rounds), wide, rounds


@jit(sizes=("pixels", "noise_pixels", "units", "rounds"))
def add_and_activate(  # type: ignore[no-untyped-def]
    image_ptr,
    out_ptr,
    bias_ptr,
    noise_ptr,
    strength_ptr,
    residual_ptr,
    signs_ptr,
    pixels,
    noise_pixels,
    units,
    rounds,
    bias_scale,
    residual_scale,
    UNIT: tl.constexpr,
    WITH_NOISE: tl.constexpr,
    WITH_RESIDUAL: tl.constexpr,
    WITH_SIGNS: tl.constexpr,
    SLOPE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Some pixels and channels of an image that is channels last; the output may be in its place.

    There are units · UNIT channels: where UNIT is 8, reads are of 16 bytes.
    """
    channels = units * UNIT
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    octet = tl.program_id(1) * (WIDTH // 8) + tl.arange(0, WIDTH // 8)
    octets = tl.cdiv(channels, 8)
    bias = tl.load(bias_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)
    for index in range(rounds):
        pixel = (tl.program_id(0) * rounds + index).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        place = pixel[:, None] * channels + channel[None, :]
        image = tl.load(image_ptr + place, mask=inside, other=0.0)
        value = image.to(tl.float32) + (bias * bias_scale)[None, :]
        if WITH_NOISE:
            noise = tl.load(noise_ptr + pixel % noise_pixels, mask=pixel < pixels, other=0.0)
            value += (tl.load(strength_ptr).to(tl.float32) * noise.to(tl.float32))[:, None]
        if WITH_SIGNS:
            bits = tl.reshape((value > 0.0).to(tl.int32), (ROWS, WIDTH // 8, 8))
            packed = tl.sum(bits << tl.arange(0, 8)[None, None, :], axis=2)
            whole = (pixel < pixels)[:, None] & (octet < octets)[None, :]
            start = signs_ptr + pixel[:, None] * octets + octet[None, :]
            tl.store(start, packed.to(tl.uint8), mask=whole)
        value = tl.where(value > 0.0, value, SLOPE * value)
        if WITH_RESIDUAL:
            residual = tl.load(residual_ptr + place, mask=inside, other=0.0)
            value += residual_scale * residual.to(tl.float32)
        tl.store(out_ptr + place, rounded(value, image.dtype, INTERPRETED), mask=inside)


@jit(sizes=("pixels", "noise_pixels", "units", "rounds"))
def mask_and_sum(  # type: ignore[no-untyped-def]
    slope_ptr,
    signs_ptr,
    noise_ptr,
    result_ptr,
    residual_ptr,
    parts_ptr,
    bias_sum_ptr,
    noise_sums_ptr,
    counter_ptr,
    pixels,
    noise_pixels,
    units,
    rounds,
    bias_scale,
    residual_scale,
    UNIT: tl.constexpr,
    WITH_NOISE: tl.constexpr,
    WITH_SUMS: tl.constexpr,
    WITH_RESIDUAL: tl.constexpr,
    SLOPE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    SUMMED: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """x̄ of some pixels and channels, and r̄; and what they add to b̄ and to strength̄."""
    channels = units * UNIT
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    octets = tl.cdiv(channels, 8)
    # Summed over the tile at the end only: threads wait for each other there.
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    of_noise = sums
    for index in range(rounds):
        pixel = (tl.program_id(0) * rounds + index).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        place = pixel[:, None] * channels + channel[None, :]
        slope = tl.load(slope_ptr + place, mask=inside, other=0.0)
        packed = signs_ptr + pixel[:, None] * octets + (channel // 8)[None, :]
        signs = tl.load(packed, mask=inside, other=0).to(tl.int32) >> (channel % 8)[None, :]
        value = slope.to(tl.float32)
        if WITH_RESIDUAL:
            kept = rounded(residual_scale * value, slope.dtype, INTERPRETED)
            tl.store(residual_ptr + place, kept, mask=inside)
        value = tl.where((signs & 1) != 0, value, SLOPE * value)
        tl.store(result_ptr + place, rounded(value, slope.dtype, INTERPRETED), mask=inside)
        if WITH_SUMS:
            sums += value
        if WITH_NOISE:
            noise = tl.load(noise_ptr + pixel % noise_pixels, mask=pixel < pixels, other=0.0)
            of_noise += value * noise.to(tl.float32)[:, None]
    if WITH_NOISE:
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(noise_sums_ptr + program, tl.sum(of_noise))
    if WITH_SUMS:
        add_parts(
            tl.sum(sums, axis=0) * bias_scale, parts_ptr, bias_sum_ptr, counter_ptr, channel,
            channels, SUMMED,
        )  # fmt: skip


@jit()
def add_parts(  # type: ignore[no-untyped-def]
    part, parts_ptr, total_ptr, counter_ptr, channel, channels, SUMMED: tl.constexpr
):
    """Leave this program's part of the sums of some channels; the last program of these channels to
    be done adds all parts, in a fixed order."""
    real = channel < channels
    mine = parts_ptr + tl.program_id(0).to(tl.int64) * channels
    tl.store(mine + channel, part, mask=real)
    tl.debug_barrier()  # all threads have stored before one of them says so
    programs = tl.num_programs(0)
    counter = counter_ptr + tl.program_id(1)
    if tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1:
        total = tl.zeros_like(part)
        for first in range(0, programs, SUMMED):
            left = first + tl.arange(0, SUMMED)
            start = parts_ptr + left.to(tl.int64)[:, None] * channels
            there = (left < programs)[:, None] & real[None, :]
            # Not from a multiprocessor's own cache, which may not know of the others.
            parts = tl.load(start + channel[None, :], mask=there, other=0.0, cache_modifier=".cg")
            total += tl.sum(parts, axis=0)
        tl.store(total_ptr + channel, total, mask=real)
        tl.store(counter, 0)
