"""Gain, bias, noise and activation against float64: on CUDA, else interpreted."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.kernels import bias_act
from sincut.kernels.bias_act import bias_act_, bias_act_reference, bias_act_triton
from sincut.kernels.convolution import only_of_images

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
ROUNDING = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}
NOISES = ["none", "of each image", "of all images"]
RESIDUALS = [None, 1.0, 0.7]  # their factors


def arguments(
    channels: int,
    sides: tuple[int, int],
    noise: str,
    dtype: torch.dtype,
    residual: float | None = None,
) -> Any:
    random = torch.Generator().manual_seed(channels)
    image = torch.randn(2, channels, *sides, generator=random).to(dtype).to(DEVICE)
    image = image.contiguous(memory_format=torch.channels_last)
    bias = torch.randn(channels, generator=random).to(DEVICE)
    given = [image, bias, 1.4, None, None]
    if noise != "none":
        numbers = torch.randn(2 if "each" in noise else 1, 1, *sides, generator=random).to(DEVICE)
        given[3:] = [numbers, torch.tensor(0.7, device=DEVICE)]
    if residual is not None:
        given += [torch.randn(image.shape, generator=random).to(dtype).to(DEVICE), residual]
    return tuple(given)


def derivatives(function: Any, given: Any, dtype: torch.dtype) -> list[Tensor]:
    """Output; first derivatives; and R1's: of the squared gradient with respect to the image.

    In float64 where ``dtype`` says so.
    """
    image, bias, bias_scale, noise, strength, residual, factor = (*given, None, 1.0)[:7]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    image, residual, bias, strength = (
        None if each is None else each.to(kind).requires_grad_()
        for each, kind in ((image, dtype), (residual, dtype), (bias, wide), (strength, wide))
    )
    leaves = [each for each in (image, bias, strength, residual) if each is not None]
    out = function(image * 1, bias, bias_scale, noise, strength, residual, factor)
    weight = torch.linspace(-1, 2, out.numel(), device=DEVICE).view_as(out)
    slopes = torch.autograd.grad((weight * out.to(wide) ** 2).sum(), leaves, create_graph=True)
    slope = slopes[0].to(wide) + (0 if residual is None else slopes[-1].to(wide))
    curves = torch.autograd.grad(slope.square().sum(), leaves)
    return [each.detach().double() for each in (out, *slopes, *curves)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("channels", "sides"), [(3, (5, 7)), (40, (9, 6)), (33, (64, 40)), (72, (34, 33))]
)
def test_derivatives_are_those_of_the_formula(
    channels: int, sides: tuple[int, int], noise: str, residual: float | None
) -> None:
    given = arguments(channels, sides, noise, torch.float32, residual)
    exact = derivatives(bias_act_reference, given, torch.float64)
    eager = derivatives(bias_act_reference, given, torch.float32)
    fused = derivatives(bias_act_triton, given, torch.float32)
    for want, own, got in zip(exact, eager, fused, strict=True):
        assert got.shape == want.shape
        # What float32 loses anyway, and a margin for sums in another order.
        assert (got - want).norm() <= 2 * (own - want).norm() + 2e-6 * want.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_types_are_rounded_once(dtype: torch.dtype) -> None:
    given = arguments(24, (6, 11), "of each image", dtype)
    exact = bias_act_reference(given[0].double(), *given[1:])
    out = bias_act_triton(given[0].clone(), *given[1:])
    assert out.dtype == dtype
    assert ((out.double() - exact).abs() <= ROUNDING[dtype] * exact.abs() + 1e-6).all()
    slopes = derivatives(bias_act_triton, given, dtype)
    wanted = derivatives(bias_act_reference, given, torch.float64)
    for want, got in zip(wanted[1:4], slopes[1:4], strict=True):
        assert (got - want).norm() <= 4 * ROUNDING[dtype] * want.norm()


def test_it_is_done_in_place_and_two_runs_agree() -> None:
    results = []
    for _ in range(2):
        image, *rest = arguments(40, (33, 21), "of all images", torch.float32)
        out = bias_act_triton(image, *rest)
        assert out.data_ptr() == image.data_ptr()
        results.append(derivatives(bias_act_triton, (image, *rest), torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not any(counter.any() for counter in bias_act._counters.values())


def test_gradients_that_nobody_reads_are_left_out() -> None:
    image, bias, *_ = arguments(40, (9, 6), "none", torch.float32)
    image.requires_grad_()
    for constant, inside in ((True, contextlib.nullcontext()), (False, only_of_images())):
        out = bias_act_triton(image * 1, bias.requires_grad_(not constant))
        with inside:
            slopes = torch.autograd.grad(
                out.sum(), (image, bias)[: 1 + (not constant)], allow_unused=True
            )
        expected = torch.where(image + bias[:, None, None] > 0, 1.0, bias_act.SLOPE)
        assert torch.equal(slopes[0], expected)
        assert slopes[1:] in ((), (None,))


def test_a_gradient_of_the_biass_gradient() -> None:
    given = arguments(5, (4, 6), "of each image", torch.float32)
    curves = []
    for function, dtype in (
        (bias_act_reference, torch.float64),
        (bias_act_triton, torch.float32),
    ):
        image, bias = (each.to(dtype, copy=True).requires_grad_() for each in given[:2])
        strength = given[4].to(dtype, copy=True).requires_grad_()
        out = function(image * 1, bias, 1.4, given[3], strength)
        slopes = torch.autograd.grad(out.pow(2).sum(), (bias, strength), create_graph=True)
        total = sum(slope.square().sum() for slope in slopes)
        curves.append(torch.autograd.grad(total, (image, bias, strength)))
    for want, got in zip(*curves, strict=True):
        assert (got.double() - want).norm() <= 1e-5 * want.norm()


def test_r1_alone_where_nothing_comes_from_above() -> None:
    """Then a convolution hands no gradient down, not one of zeros."""
    given = arguments(8, (6, 5), "none", torch.float64)[:2]
    found = []
    for function in (bias_act_reference, bias_act_triton):
        dtype = torch.float64 if function is bias_act_reference else torch.float32
        image, bias = (each.to(dtype).requires_grad_() for each in given)
        weights = [torch.linspace(-1, 1, 8 * 8, device=DEVICE, dtype=dtype).view(8, 8, 1, 1)]
        weights.append(weights[0][:1] + 0.5)
        first, last = (each.clone().requires_grad_() for each in weights)
        out = F.conv2d(function(F.conv2d(image, first), bias), last)
        (slope,) = torch.autograd.grad(out.sum(), image, create_graph=True)
        slope.square().sum().backward()
        found.append((first.grad.double(), last.grad.double()))
    for want, got in zip(*found, strict=True):
        assert (got - want).norm() <= 1e-5 * want.norm()


def test_noise_and_strength_must_fit() -> None:
    image, bias, *_, noise, strength = arguments(5, (4, 6), "of each image", torch.float32)
    with pytest.raises(ValueError, match="noise and strength go together, got one of them"):
        bias_act_(image, bias, noise=noise)
    with pytest.raises(ValueError, match="noise and strength go together, got one of them"):
        bias_act_(image, bias, strength=strength)
    with pytest.raises(ValueError, match=r"must be \(2 or 1, 1, 4, 6\), got \(2, 1, 4, 1\)"):
        bias_act_(image, bias, noise=noise[..., :1], strength=strength)
    with pytest.raises(
        ValueError, match=r"residual must be \(2, 5, 4, 6\) torch.float32, got \(2, 5, 4, 1\) "
    ):
        bias_act_(image, bias, residual=image[..., :1])
    with pytest.raises(ValueError, match=r"float32, got \(2, 5, 4, 6\) torch.bfloat16$"):
        bias_act_(image, bias, residual=image.bfloat16())
    exact = bias_act_reference(image, bias, 1.0, noise, strength)
    assert torch.allclose(bias_act_(image, bias, noise=noise, strength=strength), exact, atol=1e-5)
