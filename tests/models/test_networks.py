"""Shapes, reach and derivatives of the networks. Their numbers are in test_golden.py."""

from __future__ import annotations

import copy

import pytest
import torch

from sincut.compute.devices import convolutions
from sincut.models.generator import Generator
from sincut.models.layers import Blur, ResidualBlock
from sincut.models.projector import PatchProjector
from sincut.models.stylegan2 import ColourCorrectingGenerator, StyleGAN2Generator
from sincut.models.stylegan2_discriminator import TileDiscriminator
from sincut.training.losses import r1_penalty


def seeded(generator: Generator, noise_weight: float = 0.3) -> Generator:
    """Random weights in double precision, with biases and noise that are not zero."""
    torch.manual_seed(0)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter)
    for layer in generator.upsampling:
        torch.nn.init.constant_(layer.noise_weight, noise_weight)
    return generator.double()


@pytest.mark.parametrize(("channels", "millions"), [(80, 3.07), (40, 0.77)])
def test_generator_has_the_published_size(channels: int, millions: float) -> None:
    count = sum(p.numel() for p in StyleGAN2Generator(channels).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_discriminator_has_the_published_size() -> None:
    discriminator = TileDiscriminator()
    assert sum(p.numel() for p in discriminator.parameters()) / 1e6 == pytest.approx(
        5.89, abs=0.005
    )
    assert discriminator.hidden.weight.shape == (384, 6144)
    assert discriminator(torch.zeros(3, 3, 64, 64)).shape == (3, 1)


def test_discriminator_can_be_narrower_than_its_first_width() -> None:
    assert TileDiscriminator(8, 16, max_channels=4)(torch.zeros(1, 3, 16, 16)).shape == (1, 1)


def test_features_have_the_shapes_of_their_layers() -> None:
    generator = StyleGAN2Generator(4)
    features = generator.encode(torch.zeros(2, 3, 32, 24), (0, 1, 2, 3, 4, 5))
    assert [feature.shape[1] for feature in features] == [*generator.layer_channels.values()]
    assert [tuple(feature.shape[2:]) for feature in features] == [(32, 24)] * 2 + [(16, 12)] * 4


def test_encoding_stops_at_the_last_layer_named() -> None:
    generator = StyleGAN2Generator(4)
    calls = []
    for number, layer in enumerate(generator.encoder, start=1):
        layer.register_forward_hook(lambda *_, number=number: calls.append(number))
    generator.encode(torch.zeros(1, 3, 16, 16), (0, 3))
    assert calls == [1, 2, 3]


def test_features_on_the_way_are_those_of_encode() -> None:
    generator = seeded(StyleGAN2Generator(4))
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for passed, encoded in zip(
        generator.generate(image, None, (0, 2, 4))[1],
        generator.encode(image, (0, 2, 4)),
        strict=True,
    ):
        assert torch.equal(passed, encoded)


@pytest.mark.parametrize(
    ("blocks", "downsamplings", "correction", "halo"),
    [
        (6, 1, False, 30),
        (2, 1, False, 14),
        (4, 1, False, 22),
        (6, 2, False, None),
        (6, 1, True, 31),
        (2, 2, True, None),
    ],
)
def test_halo_is_the_footprint_of_an_input_gradient(
    blocks: int, downsamplings: int, correction: bool, halo: int | None
) -> None:
    """Everything an output pixel depends on lies within the halo, and something at its edge."""
    generator = seeded(
        (ColourCorrectingGenerator if correction else StyleGAN2Generator)(2, blocks, downsamplings)
    )
    if halo is not None:
        assert generator.halo == halo
    alignment = generator.alignment
    side = 4 * alignment * (generator.halo // alignment + 2)
    image = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    output, _ = generator.generate(image)
    furthest = 0
    for phase in range(alignment):
        y = x = side // 2 // alignment * alignment + phase
        (gradient,) = torch.autograd.grad(output[0, :, y, x].sum(), image, retain_graph=True)
        rows, columns = gradient[0].abs().sum(dim=0).nonzero(as_tuple=True)
        reach = max((rows - y).abs().max().item(), (columns - x).abs().max().item())
        assert reach <= generator.halo
        furthest = max(furthest, int(reach))
    assert furthest == generator.halo


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (1, 6), (16, 5)])
def test_any_size_comes_out_as_it_went_in(size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size)
    assert StyleGAN2Generator(4)(image).shape == image.shape
    assert StyleGAN2Generator(4, downsamplings=2)(image).shape == image.shape


def test_output_is_not_clamped() -> None:
    generator = seeded(StyleGAN2Generator(4))
    assert generator(torch.ones(1, 3, 8, 8, dtype=torch.float64) * 5).abs().max() > 1


def test_a_correction_starts_near_the_affine_map_of_colours() -> None:
    torch.manual_seed(0)
    generator = ColourCorrectingGenerator(8)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    assert (generator(image) - image).abs().mean() < 0.25
    matrix = torch.tensor([[0.5, 0.1, 0.0], [0.0, 0.7, 0.2], [0.3, 0.0, 0.4]])
    offset = torch.tensor([0.1, -0.2, 0.3])
    generator.set_colours(matrix, offset)
    mapped = (image.permute(0, 2, 3, 1) @ matrix.T + offset).permute(0, 3, 1, 2)
    torch.nn.init.zeros_(generator.to_rgb.weight)
    assert torch.allclose(generator(image), mapped, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(generator(image), mapped, atol=1e-6)  # not rounded


def test_colours_changed_after_the_output_become_part_of_the_weights() -> None:
    generator = seeded(ColourCorrectingGenerator(4))
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    offset = torch.tensor([0.3, -0.2, 0.1]).double()
    before = generator(image)
    generator.change_colours(matrix, offset)
    expected = torch.einsum("ij,njhw->nihw", matrix, before) + offset[:, None, None]
    assert torch.allclose(generator(image), expected, atol=1e-9)


def test_features_passed_on_the_way_do_not_depend_on_the_kind_of_output() -> None:
    generator = seeded(ColourCorrectingGenerator(4))
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    passed = generator.generate(image, None, (0, 1, 3))[1]
    encoded = generator.encode(image, (3, 0, 1))
    assert [tuple(each.shape) for each in passed] == [(1, 3, 8, 8), (1, 4, 8, 8), (1, 8, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(passed, encoded, strict=True))


def test_noise_is_off_unless_given_and_weighted() -> None:
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    silent, loud = seeded(StyleGAN2Generator(4), noise_weight=0.0), seeded(StyleGAN2Generator(4))
    noise = [each.double() for each in silent.position_noise(0, 0, 0, 8, 8, torch.device("cpu"))]
    assert torch.equal(silent(image, noise), silent(image))
    assert torch.equal(loud(image), silent(image))
    assert not torch.allclose(loud(image, noise), loud(image), atol=1e-3)


def test_noise_of_a_window_belongs_to_its_place() -> None:
    generator = StyleGAN2Generator(2, downsamplings=2)
    cpu = torch.device("cpu")
    plane = generator.position_noise(3, -8, -8, 40, 40, cpu)
    window = generator.position_noise(3, 4, 8, 16, 12, cpu)
    assert [tuple(each.shape[2:]) for each in plane] == [(20, 20), (40, 40)]
    assert torch.equal(window[0], plane[0][..., 6:14, 8:14])
    assert torch.equal(window[1], plane[1][..., 12:28, 16:28])


def test_noise_has_a_shape_per_upsampling_layer() -> None:
    crops = torch.zeros(3, 3, 16, 24)
    generator = StyleGAN2Generator(2, downsamplings=2)
    shapes = generator.noise_shapes(crops)
    assert shapes == [(3, 1, 8, 12), (3, 1, 16, 24)]
    noise = [torch.randn(shape) for shape in shapes]
    assert generator.generate(crops, noise)[0].shape == crops.shape


def test_second_derivatives_through_the_discriminator() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(2, 3, down=True).double()
    image = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(block, (image,))
    discriminator = TileDiscriminator(2, 8, 4).double()
    tile = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def trunk(image: torch.Tensor) -> torch.Tensor:  # all but the logit, which is cast to float32
        return discriminator.conv(discriminator.blocks(discriminator.from_rgb(image)))

    assert torch.autograd.gradgradcheck(trunk, (tile,))


@pytest.mark.parametrize(
    ("padding", "stride", "sides"), [(2, 1, (5, 4)), (1, 2, (7, 6)), (1, 1, (4, 5))]
)
def test_derivatives_of_the_blur(padding: int, stride: int, sides: tuple[int, int]) -> None:
    blur = Blur(padding, stride=stride).double()
    torch.manual_seed(0)
    image = torch.randn(2, 3, *sides, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(blur, (image,))
    assert torch.autograd.gradgradcheck(blur, (image,))
    with torch.no_grad():
        constant = blur(image)
    assert torch.equal(blur(image), constant)


@pytest.mark.gpu
def test_networks_on_cuda_are_those_on_a_cpu() -> None:
    """There gains, biases, noise and activations are applied by kernels: outputs, gradients, R1."""
    torch.manual_seed(0)
    networks = StyleGAN2Generator(8, blocks=2), TileDiscriminator(8, 32, 16)
    for parameter in (p for network in networks for p in network.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    image, noise = torch.randn(2, 3, 32, 32), [torch.randn(2, 1, 32, 32)]

    def everything(dtype: torch.dtype, device: str) -> list[torch.Tensor]:
        generator, discriminator = (
            copy.deepcopy(network).to(device, dtype, memory_format=torch.channels_last)
            for network in networks
        )
        given = image.to(device, dtype, memory_format=torch.channels_last)
        output, features = generator.generate(given, [n.to(device, dtype) for n in noise], (1, 2))
        real = given.clone().requires_grad_()
        loss = discriminator(output).sum() + features[1].square().mean()
        loss = loss + r1_penalty(discriminator(real), real)
        loss.backward()
        gradients = [p.grad for n in (generator, discriminator) for p in n.parameters()]
        return [each.detach().double().cpu() for each in (output, loss, *gradients)]

    with convolutions("fp32"):
        exact, fused = everything(torch.float64, "cpu"), everything(torch.float32, "cuda")
    for want, got in zip(exact, fused, strict=True):
        assert (got - want).norm() <= 1e-3 * want.norm() + 1e-6


def test_r1_convolves_nothing_for_the_fixed_filters() -> None:
    """As many convolutions for wide networks as for narrow ones: none per channel."""
    counts = []
    for channels in (2, 16):
        discriminator = TileDiscriminator(channels, 16)
        tiles = torch.randn(1, 3, 16, 16, requires_grad=True)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            r1_penalty(discriminator(tiles), tiles).backward()
        counts.append(sum(event.name == "aten::convolution" for event in profile.events()))
    assert counts[0] == counts[1] > 0


def test_no_gradient_of_a_mixed_precision_forward_is_lost() -> None:
    """In bf16 every weight still gets a gradient, close to the one in float32."""
    torch.manual_seed(0)
    generator, image = StyleGAN2Generator(8), torch.randn(2, 3, 32, 32)
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output, _ = generator.generate(image)
        generator.zero_grad()
        output.float().square().mean().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in generator.parameters() if p.grad is not None])
        )
    assert len(gradients[0]) == len(gradients[1])
    assert (gradients[1] - gradients[0]).norm() < 0.1 * gradients[0].norm()


def test_projector_takes_the_same_places_of_every_image() -> None:
    torch.manual_seed(0)
    projector = PatchProjector([3, 5], 7)
    features = [torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)]
    positions = [torch.tensor([[0, 23, 7]]), torch.tensor([[5]])]
    out = projector(features, positions)
    assert [tuple(each.shape) for each in out] == [(6, 7), (2, 7)]
    by_hand = projector.heads[0](features[0][1, :, 3, 5])  # position 23 of the second image
    assert torch.allclose(out[0][4], by_hand, atol=1e-7)


def test_projector_takes_other_places_of_other_sets() -> None:
    torch.manual_seed(0)
    projector = PatchProjector([3], 7)
    feature = torch.randn(4, 3, 4, 6)
    positions = torch.tensor([[0, 23, 7], [1, 2, 5]])
    (both,) = projector([feature], [positions])
    for number, half in enumerate(feature.split(2)):
        (own,) = projector([half], [positions[number : number + 1]])
        assert torch.allclose(both[6 * number : 6 * number + 6], own, atol=1e-7)


def test_projector_is_initialised_as_published() -> None:
    torch.manual_seed(0)
    head = PatchProjector([128], 256).heads[0]
    expected = 0.02 * (2 / (128 + 256)) ** 0.5
    assert head[0].weight.std().item() == pytest.approx(expected, rel=0.03)
    assert head[0].bias.abs().max() == head[2].bias.abs().max() == 0
