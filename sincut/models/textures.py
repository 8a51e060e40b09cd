"""What the discriminators of a short run see of an image, besides its pixels (ours). Fixed filters.

In an image a pattern of two or three pixels has a tenth or less of the amplitude of what is coarse,
and R1 limits how fast D may change with the amplitude of its input. So in a short run D is all but
blind to fine texture. Two remedies, both learned from crops of the style before training starts:

- :class:`Whitening` shows D the crop with every pattern of up to seven pixels at the strength of
  one, beside its colours with a variance of one.
- :class:`TextureEnergies` are the logarithms of local energies behind a bank of filters, at three
  scales: what Heeger and Bergen matched between textures ("Pyramid-based texture
  analysis/synthesis", SIGGRAPH 1995) and a scattering transform computes in its first order (Bruna
  and Mallat, "Invariant scattering convolution networks", PAMI 2013). A discriminator of such fixed
  features learns fast, as Sauer et al. found for those of a pretrained network ("Projected GANs
  converge faster", NeurIPS 2021); these need no such network.

Crops are (N, 3, S, S) of about [-1, 1], S at least 16. Where S is no multiple of 16, what is left
over at the right and at the bottom has no energies.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.kernels.blur import blur

CELL = 16  # pixels: the side of the squares whose energies are taken

_SIDE = 7  # pixels: of patches and filters
_LEVELS = 3
_AT_ONCE = 2**17  # pixels
_LUMA_FILTERS, _CHROMA_FILTERS = 27, 9
# One of 255, squared: weaker patterns are rounding and compression, and stay weak.
_NOISE = (1 / 127.5) ** 2
_LEAST_ENERGY = 0.01  # of the style's mean; below it the logarithm would see nothing but noise


class Whitening(nn.Module):
    """The style's fine texture and colours, each with a variance of about one.

    Of a crop (N, 3, S, S) it makes (N, 6, S, S): three channels of the patches around each pixel
    after zero-phase whitening, and the three colours whitened by themselves.
    """

    filters: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.zeros(6, 3, _SIDE, _SIDE))
        self.register_buffer("shift", torch.zeros(6))

    @torch.no_grad()
    def fit(self, crops: Tensor) -> None:
        """Learn the statistics of the style's crops."""
        patches = crops.unfold(2, _SIDE, _SIDE).unfold(3, _SIDE, _SIDE)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * _SIDE**2).cpu().double()
        colours = crops.permute(0, 2, 3, 1).reshape(-1, 3).cpu().double()
        middle = torch.arange(3) * _SIDE**2 + _SIDE**2 // 2
        fine = _inverse_root(patches)[middle]
        plain = torch.zeros(3, 3, _SIDE, _SIDE, dtype=torch.float64)
        plain[:, :, _SIDE // 2, _SIDE // 2] = _inverse_root(colours)
        filters = torch.cat([fine.view(3, 3, _SIDE, _SIDE), plain])
        self.filters.copy_(filters)
        self.shift.copy_(-filters.flatten(1) @ patches.mean(dim=0))

    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S) → (N, 6, S, S), float32."""
        with torch.autocast(crops.device.type, enabled=False):
            return F.conv2d(_framed(crops.float()), self.filters, self.shift)


class TextureEnergies(nn.Module):
    """Logarithms of the energies of cells of 16 pixels, standardised by the style's.

    The filters are the discrete cosine transform of 7×7 patches without its constant, on the main
    axes of the style's colours, at full, half and quarter size.
    """

    filters: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        count = _LUMA_FILTERS + 2 * _CHROMA_FILTERS
        self.count = _LEVELS * count
        self.register_buffer("filters", torch.zeros(self.count, 3, _SIDE, _SIDE))
        self.register_buffer("mean", torch.zeros(self.count))
        self.register_buffer("deviation", torch.ones(self.count))

    @torch.no_grad()
    def fit(self, crops: Tensor) -> None:
        """Learn the statistics of the style's crops."""
        colours = crops.permute(0, 2, 3, 1).reshape(-1, 3).cpu().double()
        axes = torch.linalg.eigh(torch.cov(colours.T))[1].flip(1)  # the strongest first
        waves = _cosines()
        bank = torch.cat(
            [
                torch.einsum("fij,c->fcij", waves[:count], axes[:, axis])
                for axis, count in enumerate((_LUMA_FILTERS, _CHROMA_FILTERS, _CHROMA_FILTERS))
            ]
        ).to(crops)
        for level, image in enumerate(self._pyramid(crops)):
            energy = torch.stack(
                [
                    F.conv2d(_framed(part), bank).square().mean(dim=(0, 2, 3))
                    for part in _parts(image)
                ]
            ).mean(dim=0)
            self._of(level)[:] = bank / (energy + _NOISE).sqrt()[:, None, None, None]
        found = torch.cat([self(part) for part in _parts(crops)])
        self.mean.copy_(found.mean(dim=0))
        # What the style hardly has, such as colour in a grey one, must not shout down the rest.
        self.deviation.copy_(found.std(dim=0).clamp_min(0.5) + 0.1)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S) → (N · (S // 16)², filters), float32; cells of one crop are consecutive."""
        energies = []
        with torch.autocast(crops.device.type, enabled=False):
            for level, image in enumerate(self._pyramid(crops.float())):
                responses = F.conv2d(_framed(image), self._of(level))
                cells = F.avg_pool2d(responses.square(), CELL >> level)
                energies.append((cells + _LEAST_ENERGY).log())
        found = torch.cat(energies, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        return (found - self.mean) / self.deviation

    def _of(self, level: int) -> Tensor:
        """The filters of one scale."""
        return self.filters.chunk(_LEVELS)[level]

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """The crops and, each time blurred and halved, smaller ones."""
        levels = [image]
        while len(levels) < _LEVELS:
            framed = F.pad(levels[-1], (1, 1, 1, 1), mode="reflect")
            levels.append(blur(framed, padding=0, stride=2))
        return levels


def _inverse_root(points: Tensor) -> Tensor:
    """The symmetric matrix that gives (n, d) points a variance of one in every direction."""
    values, vectors = torch.linalg.eigh(torch.cov(points.T))
    root: Tensor = (vectors * (values.clamp_min(0) + _NOISE).rsqrt()) @ vectors.T
    return root


def _cosines() -> Tensor:
    """(48, 7, 7) patterns of the discrete cosine transform, the coarse ones first, of length 1."""
    along = torch.arange(_SIDE, dtype=torch.float64)
    waves = torch.cos(math.pi * (along + 0.5) * along[:, None] / _SIDE)
    waves = waves / waves.norm(dim=1, keepdim=True)
    order = sorted(range(1, _SIDE**2), key=lambda index: sum(divmod(index, _SIDE)))
    return torch.einsum("ui,vj->uvij", waves, waves).reshape(-1, _SIDE, _SIDE)[order]


def _parts(crops: Tensor) -> tuple[Tensor, ...]:
    """Some crops at a time: the responses of all filters to all of them would not fit anywhere."""
    return torch.split(crops, max(1, _AT_ONCE // crops[0, 0].numel()))


def _framed(image: Tensor) -> Tensor:
    """With the mirror of what lies inside around it, so that filters keep the size."""
    reach = _SIDE // 2
    return F.pad(image, (reach, reach, reach, reach), mode="reflect")
