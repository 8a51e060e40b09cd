"""The blur's kernel against float64: on CUDA, else interpreted; first and second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sincut.kernels import blur as module
from sincut.kernels.blur import (
    blur,
    blur_reference,
    blur_triton,
    transposed_reference,
    transposed_triton,
)

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []

HOWS = [(2, 1, 1.0), (1, 1, 4.0), (1, 2, 1.0), (0, 2, 1.0)]  # padding, stride, gain
# What rounding the result costs, at most: half of the last place. The interpreter cuts bf16 off.
ROUNDING = {
    torch.float32: 1e-6,
    torch.float16: 2**-11,
    torch.bfloat16: 2**-8 if DEVICE == "cuda" else 2**-7,
}


def picture(channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(channels)
    image = torch.randn(2, channels, height, width, generator=random).to(dtype)
    return image.to(DEVICE, memory_format=torch.channels_last)


def close(actual: Tensor, exact: Tensor, dtype: torch.dtype) -> bool:
    off = (actual.double() - exact).abs()
    return bool((off <= ROUNDING[dtype] * exact.abs() + 1e-6).all())


@pytest.mark.sampled(5)
@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize(("padding", "stride", "gain"), HOWS)
@pytest.mark.parametrize("channels", [1, 3, 8, 40])
def test_filter_and_transpose(
    channels: int, padding: int, stride: int, gain: float, dtype: torch.dtype
) -> None:
    for sides in ((6, 34), (9, 7)):
        image = picture(channels, *sides, dtype)
        how = padding, stride, gain
        exact = blur_reference(image.double(), *how)
        result = blur_triton(image, *how)
        assert result.shape == exact.shape
        assert result.dtype == dtype
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert close(result, exact, dtype)
        slope = picture(channels, *exact.shape[2:], dtype)
        exact = transposed_reference(slope.double(), *how, sides)
        assert close(transposed_triton(slope, *how, sides), exact, dtype)


@pytest.mark.parametrize(("padding", "stride", "gain"), HOWS)
def test_the_transpose_on_a_cpu(padding: int, stride: int, gain: float) -> None:
    """In bf16 it is another computation: of the image with zeros between its pixels."""
    for sides in ((6, 34), (9, 7), (8, 8)):
        how = padding, stride, gain
        whole = torch.zeros(2, 3, *sides, dtype=torch.float64, requires_grad=True)
        filtered = blur_reference(whole, *how)
        slope = picture(3, *filtered.shape[2:], torch.bfloat16).cpu()
        (exact,) = torch.autograd.grad(filtered, whole, slope.double())
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            found = transposed_reference(slope.to(dtype), *how, sides)
            assert (found.dtype, found.shape) == (dtype, exact.shape)
            limit = 2**-8 if dtype == torch.bfloat16 else 1e-6
            assert ((found - exact).abs() <= limit * exact.abs() + 1e-6).all()


@pytest.mark.parametrize(("padding", "stride", "gain"), HOWS)
def test_derivatives_through_the_kernels(
    padding: int, stride: int, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As R1 takes them: of the squared gradient of something that is not linear."""
    monkeypatch.setattr(module, "served", lambda image: image.dtype != torch.float64)
    results = []
    for dtype in (torch.float64, torch.float32):
        image = picture(5, 8, 6, torch.float64).to(dtype).requires_grad_()
        out = blur(image, padding=padding, stride=stride, gain=gain)
        (slope,) = torch.autograd.grad(out.pow(3).sum(), image, create_graph=True)
        (curve,) = torch.autograd.grad(slope.square().sum(), image)
        results.append([each.detach().double() for each in (out, slope, curve)])
    for exact, fused in zip(*results, strict=True):
        assert (fused - exact).norm() < 1e-5 * exact.norm()


def test_nothing_uninitialised_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    for padding, stride, gain in HOWS:
        assert blur_triton(picture(3, 7, 50), padding, stride, gain).isfinite().all()
        sides = (20, 30)
        small = blur_triton(picture(3, *sides), padding, stride, gain)
        assert transposed_triton(small, padding, stride, gain, sides).isfinite().all()


@pytest.mark.parametrize("stride", [1, 2])
def test_an_infinite_pixel_stays_where_the_filter_reaches(stride: int) -> None:
    image = picture(3, 12, 12)
    image[:, :, 5, 5] = torch.inf
    expected = blur_reference(image.cpu(), 1, stride, 1.0)
    assert torch.equal(blur_triton(image, 1, stride, 1.0).cpu().isfinite(), expected.isfinite())


def test_memory_order_does_not_matter() -> None:
    image = picture(4, 10, 12)
    rows = image.contiguous()
    assert not rows.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(blur_triton(rows, 1, 1, 1.0), blur_triton(image, 1, 1, 1.0))
