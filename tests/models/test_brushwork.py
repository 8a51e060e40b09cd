"""What a network makes, in patches of the style."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sincut.demo import render_style
from sincut.kernels.position_noise import position_noise
from sincut.models.brushwork import REACH, Brushwork, Pixels

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def style() -> Pixels:
    return render_style(144, 108)


@pytest.fixture(scope="module")
def brushwork(style: Pixels) -> Brushwork:
    return Brushwork.of(style, style[::2, ::2])


def plane(height: int, width: int, seed: int = 0) -> Tensor:
    """Something smooth, as a network makes it: (1, 3, height, width)."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.manual_seed(seed)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def slow(brushwork: Brushwork, image: Tensor, top: int, left: int, seed: int) -> Floats:
    """The same in loops of float64: (h, w, 3)."""
    style = brushwork.style.numpy().astype(np.float64) / 127.5 - 1
    units = brushwork.units.numpy().astype(np.float64)
    image = image[0].permute(1, 2, 0).numpy().astype(np.float64)

    def halved(pixels: Floats) -> Floats:
        rows, columns = (side // 2 * 2 for side in pixels.shape[:2])
        part = pixels[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, 3)
        return part.mean(axis=(1, 3))

    def phases(y: int, x: int) -> list[float]:
        turns = 2 * np.pi * y / 16, 2 * np.pi * x / 16
        return [f(turn) for turn in turns for f in (np.cos, np.sin)]

    half, known = halved(image), halved(style)
    # Noise: normal numbers at the middles of cells of 8 pixels, straight lines between them.
    cells = [side // 8 + 3 for side in half.shape[:2]]
    first = top // 16 - 1, left // 16 - 1
    grid = [position_noise(seed, 256 + c, *first, *cells)[0, 0].numpy() for c in range(3)]
    at = [(np.arange(side) + 8.5) / 8 - 0.5 for side in half.shape[:2]]
    for c in range(3):
        down = np.array([np.interp(at[0], np.arange(cells[0]), column) for column in grid[c].T]).T
        half[..., c] += 0.1 * np.array([np.interp(at[1], np.arange(cells[1]), row) for row in down])
    places = [
        (y, x) for y in range(0, known.shape[0] - 7, 2) for x in range(0, known.shape[1] - 7, 2)
    ]
    keys = np.array([[*known[y : y + 8, x : x + 8].ravel(), *phases(y, x)] for y, x in places])
    bell = np.exp(-((np.arange(16) - 7.5) ** 2) / (2 * (16 / 3.5) ** 2))
    weights = np.outer(bell, bell)[..., None]
    total, shares = np.zeros_like(image), np.zeros_like(image)
    for y in range(0, half.shape[0] - 7, 4):
        for x in range(0, half.shape[1] - 7, 4):
            wanted = [*half[y : y + 8, x : x + 8].ravel(), *phases(y + top // 2, x + left // 2)]
            distances = ((keys - wanted) ** 2).sum(axis=1) / units
            nearest = np.argsort(distances)[:4]
            share = np.exp(-(distances[nearest] - distances.min()) / (0.002 * distances.min()))
            for place, part in zip(nearest, share / share.sum(), strict=True):
                r, c = (2 * each for each in places[place])
                into = np.s_[2 * y : 2 * y + 16, 2 * x : 2 * x + 16]
                total[into] += part * weights * style[r : r + 16, c : c + 16]
                shares[into] += part * weights
    return total / shares


@pytest.mark.parametrize(("top", "left"), [(0, 0), (-16, 32), (4096, 160)])
def test_it_is_what_it_says(brushwork: Brushwork, top: int, left: int) -> None:
    image = plane(48, 64)
    got = brushwork(image, top, left, 3)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - slow(brushwork, image, top, left, 3)).max() < 2e-4


def test_a_keys_unit_is_how_near_it_comes(style: Pixels) -> None:
    far = np.full_like(style, 255)
    near, other = Brushwork.of(style, style[::2, ::2]), Brushwork.of(style, far[::2, ::2])
    assert (near.units >= 0.02 * 192).all()
    assert near.units.median() < 0.5 * other.units.median()


def test_the_style_stays_itself(style: Pixels, brushwork: Brushwork) -> None:
    height, width = (side // 16 * 16 for side in style.shape[:2])
    image = torch.tensor(style[:height, :width]).permute(2, 0, 1)[None] / 127.5 - 1
    made = brushwork(image, 0, 0, 0)
    inside = np.s_[..., REACH:-REACH, REACH:-REACH]
    assert (made - image)[inside].abs().mean() < 0.12
    grey = torch.full_like(image, image.mean())
    assert (grey - image)[inside].abs().mean() > 0.25


def test_a_window_is_a_part_of_the_whole(brushwork: Brushwork) -> None:
    image = plane(160, 192)
    whole = brushwork(image, 0, 0, 7)
    part = brushwork(image[..., 48:128, 64:176], 48, 64, 7)
    inside = part[..., REACH:-REACH, REACH:-REACH]
    expected = whole[..., 48 + REACH : 128 - REACH, 64 + REACH : 176 - REACH]
    assert torch.allclose(inside, expected, atol=1e-4)


def test_it_is_continuous(style: Pixels, brushwork: Brushwork) -> None:
    """A network's output differs in its last digits by tile; what is laid may not jump."""
    image, generator = plane(16, 16), torch.manual_seed(0)  # of a single patch
    keys, _, _ = brushwork._keys()
    wanted = brushwork._wanted(torch.nn.functional.avg_pool2d(image, 2), 0, 0, 0)
    distances = (keys - wanted).square().sum(dim=1)
    one, other = distances.topk(2, largest=False).indices
    units = torch.full_like(brushwork.units, 1e-3)
    units[one], units[other] = distances[one], distances[other]  # as near as each other
    tied = Brushwork(brushwork.style, units)
    before = tied(image, 0, 0, 0)
    patches = [
        Brushwork(tied.style, units * (1 + (torch.arange(len(units)) == which)))(image, 0, 0, 0)
        for which in (one, other)
    ]
    assert (patches[0] - patches[1]).abs().max() > 0.3  # what a hard choice would jump by
    for _ in range(20):
        noise = 1e-6 * torch.randn(image.shape, generator=generator)
        assert (tied(image + noise, 0, 0, 0) - before).abs().max() < 1 / 255


def test_nothing_is_laid_again_and_again(brushwork: Brushwork) -> None:
    """A flat sky asks for the same patch everywhere; places and noise tell its patches apart."""
    flat = brushwork(torch.zeros(1, 3, 128, 128) + 0.1, 0, 0, 0)[..., 16:-16, 16:-16]
    again = (flat[..., 8:, :] - flat[..., :-8, :]).abs().mean()
    assert again > 0.5 * (flat - flat.mean(dim=(2, 3), keepdim=True)).abs().mean()


def test_another_seed_is_another_brushwork(brushwork: Brushwork) -> None:
    image = plane(64, 64)
    assert not torch.equal(brushwork(image, 0, 0, 0), brushwork(image, 0, 0, 1))
    assert torch.equal(brushwork(image, 0, 0, 1), brushwork(image, 0, 0, 1))


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (300, 16)])
def test_any_style_and_painting(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    style = random.integers(0, 256, (*size, 3), np.uint8)
    for painting in ((1, 1), (5, 30), (9, 9)):
        made = Brushwork.of(style, random.integers(0, 256, (*painting, 3), np.uint8))
        laid = made(torch.zeros(1, 3, 32, 48), 0, 0, 0)
        assert laid.shape == (1, 3, 32, 48)
        assert laid.isfinite().all()


def test_few_keys_of_a_large_style() -> None:
    style = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    made = Brushwork.of(style, style[:64:2, :64:2])
    assert 2**14 < len(made.units) <= 2**15
