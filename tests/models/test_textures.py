"""The fixed filters of the discriminators: whitening, and energies of textures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sincut.models.textures import TextureEnergies, Whitening


def pink(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """(count, 3, size, size) with the falling spectrum and the related colours of photographs."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.fft.rfft2(torch.randn(count, 3, size, size, generator=random))
    down = torch.fft.fftfreq(size)[:, None]
    frequency = (down**2 + torch.fft.rfftfreq(size) ** 2).sqrt().clamp_min(1 / size)
    image = torch.fft.irfft2(noise / frequency)
    mixing = torch.tensor([[0.3, 0.1, 0.0], [0.3, -0.05, 0.05], [0.3, -0.05, -0.05]])
    return torch.einsum("ij,njhw->nihw", mixing, image / image.std()) / 2


def test_whitening_makes_fine_texture_as_strong_as_coarse() -> None:
    crops = pink(64)
    whitening = Whitening()
    whitening.fit(crops)
    seen = whitening(pink(16, seed=1))
    assert seen.shape == (16, 6, 64, 64)
    # Colours alone: unit variance, unrelated, no mean.
    colours = torch.cov(seen[:, 3:].transpose(0, 1).flatten(1))
    assert torch.allclose(colours, torch.eye(3), atol=0.15)
    assert seen[:, 3:].mean(dim=(0, 2, 3)).abs().max() < 0.15
    # Fine texture: neighbours are closely related before, and hardly afterwards.

    def related(image: Tensor) -> float:
        a, b = image[..., :-1].flatten(), image[..., 1:].flatten()
        return float(torch.corrcoef(torch.stack([a, b]))[0, 1])

    assert related(crops) > 0.7
    assert abs(related(seen[:, :3, 3:-3, 3:-3])) < 0.25
    assert seen[:, :3].std().item() == pytest.approx(1, abs=0.25)


def test_whitening_leaves_rounding_alone() -> None:
    """A style in one colour has nothing but noise: it is not blown up to the strength of one."""
    random = torch.Generator().manual_seed(0)
    flat = 0.2 + torch.randn(16, 3, 64, 64, generator=random) / 127.5 / 4  # a quarter of one level
    whitening = Whitening()
    whitening.fit(flat)
    assert whitening(flat).std() < 0.3


def test_energies_of_the_style_are_standardised() -> None:
    crops = pink(64)
    energies = TextureEnergies()
    energies.fit(crops)
    found = energies(crops)
    assert found.shape == (64 * 16, energies.count)
    assert found.mean(dim=0).abs().max() < 1e-3
    assert found.std(dim=0).min() > 0.3  # noise is nearly alike everywhere; images are not
    assert found.std(dim=0).max() < 1


def test_energies_tell_a_texture_from_another_of_the_same_colours() -> None:
    """Vertical and horizontal stripes of three pixels; and twice the contrast is twice log 2."""
    energies = TextureEnergies()
    energies.fit(pink(64))
    wave = 0.2 * torch.sin(torch.arange(64) * 2 * torch.pi / 3)
    vertical = wave.expand(1, 3, 64, 64)
    found = energies(torch.cat([vertical, vertical.mT, 2 * vertical]))
    first, turned, stronger = found.unflatten(0, (3, 16)).mean(dim=1)
    assert (first - turned).abs().max() > 3  # deviations of the style
    change = (stronger - first) * energies.deviation
    assert change.max().item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item(), rel=0.02)


def test_cells_of_one_crop_are_consecutive_and_local() -> None:
    energies = TextureEnergies()
    crops = pink(8)
    energies.fit(crops)
    before = energies(crops)
    changed = crops.clone()
    changed[3, :, 56:, 56:] += pink(1, 8)[0]  # within the last cell of the fourth crop
    moved = (energies(changed) - before).abs().amax(dim=1) > 1e-5
    assert moved[3 * 16 + 15]
    assert not moved[: 3 * 16].any()
    assert not moved[4 * 16 :].any()
    assert not moved[3 * 16 : 3 * 16 + 10].any()  # the filters at a quarter of the size reach 14


@pytest.mark.parametrize("size", [16, 24, 128])
def test_crops_of_other_sizes(size: int) -> None:
    crops = pink(8, size)
    energies, whitening = TextureEnergies(), Whitening()
    energies.fit(crops)
    whitening.fit(crops)
    assert energies(crops).shape == (8 * (size // 16) ** 2, energies.count)
    assert whitening(crops).shape == (8, 6, size, size)


def test_gradients_reach_the_image_and_not_the_filters() -> None:
    crops = pink(2)
    energies, whitening = TextureEnergies(), Whitening()
    energies.fit(crops)
    whitening.fit(crops)
    image = crops.clone().requires_grad_()
    (energies(image).sum() + whitening(image).square().sum()).backward()
    assert image.grad is not None
    assert (image.grad != 0).float().mean() > 0.99
    assert not [*energies.parameters(), *whitening.parameters()]


def test_a_grey_style_has_a_say_about_colour_and_no_scream() -> None:
    grey = pink(16).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    energies = TextureEnergies()
    energies.fit(grey)
    coloured = grey + 0.1 * torch.randn(grey.shape, generator=torch.Generator().manual_seed(0))
    found = energies(coloured)
    assert 5 < found.max() < 30
