"""CUT's networks. That they are the published ones is in test_golden_cut.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sincut.models.patchgan import PatchDiscriminator
from sincut.models.resnet import ResnetGenerator
from sincut.models.resnet_layers import Convolution, Doubling, Halving, instance_norm

LAYOUTS = {"rows": torch.contiguous_format, "channels": torch.channels_last}


def by_formula(image: Tensor) -> Tensor:
    mean = image.mean((2, 3), keepdim=True)
    variance = (image - mean).square().mean((2, 3), keepdim=True)
    return (image - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("incoming", LAYOUTS)
def test_instance_norm_is_the_formula_in_any_layout(count: int, layout: str, incoming: str) -> None:
    random = torch.Generator().manual_seed(0)
    image, gradient = (3 * torch.randn(count, 5, 12, 16, generator=random) + 1 for _ in range(2))
    ours = image.clone(memory_format=LAYOUTS[layout]).requires_grad_()
    exact = image.double().requires_grad_()
    result = instance_norm(ours)
    expected = by_formula(exact)
    assert (result - expected).abs().max() < 1e-5
    result.backward(gradient.contiguous(memory_format=LAYOUTS[incoming]))
    expected.backward(gradient.double())
    assert ours.grad is not None
    assert exact.grad is not None
    assert (ours.grad - exact.grad).abs().max() < 1e-5 * exact.grad.abs().max()


def test_instance_norm_has_a_second_derivative() -> None:
    image = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(instance_norm, image)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 2)])
def test_halving_is_the_filter(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    filters = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    filters = (filters[:, None] * filters).expand(3, 1, 3, 3)
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    expected = F.conv2d(padded, filters, groups=3)[..., ::2, ::2]
    assert torch.allclose(Halving()(image), expected)
    # As it is computed on CUDA.
    means = F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=2)
    assert torch.allclose(means, expected)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 2), (2, 3)])
def test_halving_has_the_filters_gradients(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Halving(), image)
    assert torch.autograd.gradgradcheck(Halving(), image)


@pytest.mark.parametrize("layer", [Convolution(4, 4, 3, border="reflect"), Halving(), Doubling()])
def test_borders_and_blurs_stay_in_bf16(layer: nn.Module) -> None:
    """Autocast on a CPU would take them to float32, and back for the next convolution."""
    image = torch.rand(1, 4, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16), Types() as types:
        layer(image)
    assert types.made == {torch.bfloat16}


class Types(TorchDispatchMode):
    """Within it the types of all tensors that are made are taken down."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.made.add(result.dtype)
        return result


def test_doubling_is_the_published_transposed_convolution() -> None:
    image = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    filters = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    filters = (filters[:, None] * filters / 16).expand(3, 1, 4, 4)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    expected = F.conv_transpose2d(padded, filters, stride=2, padding=3, groups=3)
    assert torch.allclose(Doubling()(image), expected)


def test_sizes_of_the_published_networks() -> None:
    """11,378,179 and 2,764,737 with the biases that only norms read."""
    generator, discriminator = ResnetGenerator(64, 9), PatchDiscriminator(64)
    idle = 64 + 18 * 256 + 128 + 64
    assert sum(p.numel() for p in generator.parameters()) == 11_378_179 - idle
    assert sum(p.numel() for p in discriminator.parameters()) == 2_764_737 - (128 + 256 + 512)
    assert discriminator(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_start_is_xavier_with_a_gain_of_a_fiftieth() -> None:
    torch.manual_seed(0)
    weight = ResnetGenerator(64, 1).down2.weight
    expected = 0.02 * (2 / (128 * 9 + 256 * 9)) ** 0.5
    assert weight.std().item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 14), (16, 24)])
@pytest.mark.parametrize("blurs", [True, False])
def test_any_size_is_kept(size: tuple[int, int], blurs: bool) -> None:
    generator = ResnetGenerator(2, 1, blur_down=blurs, blur_up=blurs)
    assert generator(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("blurs", [True, False])
def test_features_have_the_channels_and_strides_that_are_told(blurs: bool) -> None:
    generator = ResnetGenerator(2, 6, blur_down=blurs)
    layers = tuple(generator.layer_channels)
    assert layers == (0, 4, 8, 12, 13, 14, 15, 16, 17)
    features = generator.encode(torch.zeros(1, 3, 32, 24), layers)
    assert [each.shape[1] for each in features] == [*generator.layer_channels.values()]
    assert features[0].shape[2:] == (38, 30)
    strides = [*generator.strides.values()]
    assert [32 // each.shape[2] for each in features[1:]] == strides[1:]
    _, passed = generator.generate(torch.zeros(1, 3, 32, 24), None, layers)
    for one, other in zip(features, passed, strict=True):
        assert torch.equal(one, other)


def test_batches_do_not_mix() -> None:
    torch.manual_seed(0)
    generator, images = ResnetGenerator(4, 2), torch.randn(3, 3, 16, 16)
    together = generator(images)
    for index in range(3):
        assert torch.allclose(generator(images[index : index + 1]), together[index], atol=1e-6)
