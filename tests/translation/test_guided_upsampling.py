"""The look at its own scale: reduced in bands, carried back window by window, exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from sincut.translation.guided_upsampling import (
    ReducedRows,
    SmallTranslation,
    colour_maps,
    working_size,
)

# Full and small sizes: whole and odd ratios, the same, hardly smaller, thin, a single pixel.
SIZES = [
    ((120, 180), (40, 60)),
    ((157, 233), (41, 60)),
    ((150, 170), (150, 170)),
    ((150, 171), (149, 170)),
    ((130, 70), (100, 53)),
    ((300, 3), (17, 1)),
    ((1, 200), (1, 31)),
    ((90, 140), (1, 1)),
]
every_size = pytest.mark.parametrize(("full", "small"), SIZES, ids=str)


def scene(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, H, W) in [-1, 1]: smooth colours, a step, and detail of a single pixel."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, 6, 8), generator=generator) - 0.5
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    step = 0.5 * (torch.arange(width) > 0.4 * width) - 0.25
    noise = 0.1 * torch.randn((3, height, width), generator=generator)
    return (smooth + step + noise).clamp(-1, 1)


def reduced(image: Tensor, small: tuple[int, int]) -> Tensor:
    """(3, h, w): an image as :class:`ReducedRows` sees it, at once."""
    rows = ReducedRows(*image.shape[1:], *small)
    rows.add(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(rows.result()).permute(2, 0, 1)


def translated(content: Tensor, seed: int = 1) -> Tensor:
    """A look: curved colours, other per place, and strokes of its own."""
    generator = torch.Generator().manual_seed(seed)
    strokes = 0.1 * torch.randn(content.shape, generator=generator)
    place = torch.linspace(0.4, 1.2, content.shape[2])
    return torch.sin(1.5 * content.flip(0) * place) + strokes


def overlaps(large: int, small: int) -> np.ndarray:
    """(small, large): the share of each small pixel that each pixel covers, from its definition."""
    edges = np.arange(small + 1) * large / small
    pixels = np.arange(large)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return covered.clip(0) * small / large


# ------------------------------------------------------------------------ reduction


@every_size
def test_reduced_pixels_are_the_means_of_their_areas(
    full: tuple[int, int], small: tuple[int, int]
) -> None:
    image = scene(*full)
    down, across = overlaps(full[0], small[0]), overlaps(full[1], small[1])
    expected = down @ image.double().numpy() @ across.T
    np.testing.assert_allclose(reduced(image, small).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_reduction_does_not_depend_on_bands(dtype: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((157, 83, 3), np.float32) * 2 - 1
    if dtype != "float32":
        top = np.iinfo(dtype).max
        image = rng.integers(0, top + 1, image.shape, dtype)
        values = image / (top / 2) - 1
    else:
        values = image.astype(np.float64)
    down, across = overlaps(157, 40), overlaps(83, 21)
    expected = (down @ values.transpose(2, 0, 1) @ across.T).transpose(1, 2, 0)
    for cuts in ([0, 157], [0, 1, 2, 3, 70, 157], [0, 64, 65, 128, 157], list(range(158))):
        rows = ReducedRows(157, 83, 40, 21)
        for start, stop in pairwise(cuts):
            rows.add(image[start:stop])
        got = rows.result()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_an_image_of_its_own_size_is_reduced_to_itself() -> None:
    image = scene(50, 70)
    assert torch.equal(reduced(image, (50, 70)), image)


def test_misused_reduction_says_what_was_expected() -> None:
    rows = ReducedRows(10, 20, 5, 10)
    with pytest.raises(ValueError, match="got only 0"):
        rows.result()
    with pytest.raises(ValueError, match=r"must be \(n, 20, 3\)"):
        rows.add(np.zeros((2, 19, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        rows.add(np.zeros((2, 20, 3)))
    with pytest.raises(ValueError, match="has 10 rows, got 11"):
        rows.add(np.zeros((11, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="10 pixels cannot be reduced to 11"):
        ReducedRows(10, 20, 11, 10)


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((6000, 9000), 1280, (853, 1280)),
        ((768, 1024), 1280, (768, 1024)),
        ((768, 1280), 1280, (768, 1280)),
        ((3, 9000), 100, (1, 100)),
    ],
)
def test_working_size(size: tuple[int, int], width: int, expected: tuple[int, int]) -> None:
    assert working_size(*size, width) == expected


# ------------------------------------------------------------------------ the law of windows


@every_size
def test_windows_equal_the_whole(full: tuple[int, int], small: tuple[int, int]) -> None:
    height, width = full
    image = scene(height, width)
    content = reduced(image, small)
    carried = SmallTranslation(content, translated(content), height, width)
    whole = carried.window(image, 0, 0)
    assert whole.shape == image.shape
    rng = np.random.default_rng(1)
    windows = [(0, height, 0, width), (height - 1, height, width - 1, width)]
    windows += [(0, 1, 0, 1), (height // 2, height, 0, width // 2 + 1)]
    for _ in range(40):
        top, left = rng.integers(height), rng.integers(width)
        windows.append((top, rng.integers(top, height) + 1, left, rng.integers(left, width) + 1))
    for top, bottom, left, right in windows:
        got = carried.window(image[:, top:bottom, left:right], int(top), int(left))
        expected = whole[:, top:bottom, left:right]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_a_pixel_of_the_content_changes_only_itself() -> None:
    image = scene(157, 233)
    content = reduced(image, (41, 60))
    carried = SmallTranslation(content, translated(content), 157, 233)
    changed = image.clone()
    changed[:, 100, 130] += 0.5
    difference = (carried.window(changed, 0, 0) - carried.window(image, 0, 0)).abs().sum(0)
    assert difference[100, 130] > 0.1
    difference[100, 130] = 0
    assert not difference.any()


def test_a_small_pixel_reaches_no_further_than_its_neighbourhood() -> None:
    image = scene(300, 360)
    content = reduced(image, (100, 120))
    look = translated(content)
    changed = look.clone()
    changed[:, 50, 60] += 0.01
    # The map of the whole image moves by next to nothing; what is local by more.
    before, after = (
        SmallTranslation(content, y, 300, 360).window(image, 0, 0) for y in (look, changed)
    )
    difference = (after - before).abs().amax(0)
    assert difference[151, 181] > 5e-3
    difference[151 - 30 : 151 + 31, 181 - 30 : 181 + 31] = 0
    assert difference.max() < 2e-5


def test_fits_in_bands_equal_those_at_once() -> None:
    image = scene(600, 20)
    look = translated(image)
    whole = colour_maps(image, look)
    mirrored = colour_maps(image.flip(1), look.flip(1)).flip(2)  # other bands
    torch.testing.assert_close(whole, mirrored, rtol=0, atol=1e-4)


def test_colour_maps_are_the_ridge_regressions_of_their_definition() -> None:
    content = scene(40, 50)
    look = translated(content)
    x, y = (
        image.double().numpy() - image.double().numpy().mean((1, 2), keepdims=True)
        for image in (content, look)
    )

    def fitted(change: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
        centred_x = x - (x * weights).sum((1, 2), keepdims=True)
        covariance = np.einsum("ihw,jhw,hw->ij", centred_x, centred_x, weights)
        cross = np.einsum("ihw,jhw,hw->ij", change, centred_x, weights)
        return cross @ np.linalg.inv(covariance + ridge * np.eye(3))

    even = np.full((40, 50), 1 / 2000)
    best = fitted(y - x, even, 0)
    left = (y - x - np.einsum("ij,jhw->ihw", best, x)).var(axis=(1, 2)).mean()
    whole = np.eye(3) + fitted(y - x, even, 0.3 * left)
    rest = y - np.einsum("ij,jhw->ihw", whole, x)

    def pyramid(length: int) -> np.ndarray:
        near = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) <= 2
        box = near / near.sum(axis=1, keepdims=True)
        return box @ box

    got = colour_maps(content, look).numpy()
    for row, column in [(0, 0), (0, 49), (39, 3), (20, 20), (7, 48), (31, 25)]:
        weights = np.outer(pyramid(40)[row], pyramid(50)[column])
        variance = (weights * rest**2).sum((1, 2)) - (weights * rest).sum((1, 2)) ** 2
        expected = whole + fitted(rest, weights, 0.3 * variance.mean() + 1e-5)
        np.testing.assert_allclose(got[:, :, row, column], expected, atol=1e-4)


# ------------------------------------------------------------------------ what is carried


@every_size
def test_an_unchanged_small_image_gives_back_the_content(
    full: tuple[int, int], small: tuple[int, int]
) -> None:
    image = scene(*full)
    content = reduced(image, small)
    got = SmallTranslation(content, content.clone(), *full).window(image, 0, 0)
    torch.testing.assert_close(got, image, rtol=0, atol=2e-6)


def test_an_affine_change_of_colours_is_carried_exactly() -> None:
    image = scene(157, 233)
    content = reduced(image, (41, 60))
    matrix = torch.tensor([[0.6, -0.4, 0.2], [0.1, 1.3, 0.0], [-0.2, 0.3, 0.5]])
    offset = torch.tensor([0.1, -0.2, 0.3])[:, None, None]
    look = torch.einsum("ij,jhw->ihw", matrix, content) + offset
    got = SmallTranslation(content, look, 157, 233).window(image, 0, 0)
    expected = torch.einsum("ij,jhw->ihw", matrix, image) + offset
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_at_its_own_size_the_look_is_the_result() -> None:
    image = scene(150, 170)
    look = translated(image)
    got = SmallTranslation(image, look, 150, 170).window(image, 0, 0)
    torch.testing.assert_close(got, look, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("small", "bound"), [((60, 80), 0.002), ((97, 131), 0.003), ((150, 200), 0.005)], ids=str
)
def test_the_result_reduced_again_is_the_look(small: tuple[int, int], bound: float) -> None:
    """Root mean squares of .16, .26 and .42 of 1/255 were measured: U cannot show everything."""
    image = scene(240, 320)
    content = reduced(image, small)
    look = translated(content)
    again = reduced(SmallTranslation(content, look, 240, 320).window(image, 0, 0), small)
    assert (again - look).square().mean().sqrt() < bound


def test_an_edge_stays_sharp_and_gets_no_halo() -> None:
    """A look that turns light and dark round: the detail of the edge must be turned round too."""
    image = torch.full((3, 160, 160), -0.6)
    image[:, :, 81:] = 0.6  # inside a small pixel
    content = reduced(image, (40, 40))
    look = 0.1 - 0.5 * content**3  # no affine map
    got = SmallTranslation(content, look, 160, 160).window(image, 0, 0)
    left, right = 0.1 + 0.5 * 0.6**3, 0.1 - 0.5 * 0.6**3
    step = left - right
    assert (got[:, :, :78] - left).abs().max() < 0.1 * step
    assert (got[:, :, 84:] - right).abs().max() < 0.1 * step
    assert (got[:, :, 80] - got[:, :, 81]).min() > 0.7 * step
    assert got.max() < left + 0.2 * step  # a Laplacian's: 1.5 and 1.8 steps
    assert got.min() > right - 0.2 * step


def test_strokes_that_have_nothing_to_do_with_the_content_do_not_enlarge_its_noise() -> None:
    flat = 0.02 * torch.randn((3, 320, 320), generator=torch.Generator().manual_seed(3))
    content = reduced(flat, (80, 80))
    strokes = 0.3 * torch.randn(content.shape, generator=torch.Generator().manual_seed(4))
    carried = SmallTranslation(content, content + strokes, 320, 320)
    maps = carried.planes[6:].view(3, 3, 80, 80)
    assert (maps - torch.eye(3)[:, :, None, None]).abs().max() < 1
    detail = carried.window(flat, 0, 0) - carried.window(torch.zeros_like(flat), 0, 0)
    assert detail.std() < 1.5 * flat.std()


def test_plain_images_are_no_division_by_zero() -> None:
    content, look = torch.full((3, 20, 30), 0.25), torch.full((3, 20, 30), -0.5)
    image = scene(60, 90)
    got = SmallTranslation(content, look, 60, 90).window(image, 0, 0)
    torch.testing.assert_close(got, image - 0.75, rtol=0, atol=1e-5)


def test_misused_windows_say_what_was_expected() -> None:
    content = torch.zeros(3, 10, 20)
    with pytest.raises(ValueError, match=r"must both be \(3, h, w\)"):
        SmallTranslation(content, torch.zeros(3, 10, 21), 40, 80)
    with pytest.raises(ValueError, match="9 pixels cannot be reduced to 10"):
        SmallTranslation(content, content, 9, 80)
    carried = SmallTranslation(content, content, 40, 80)
    for shape, top, left in [((3, 8, 8), 33, 0), ((3, 8, 8), 0, -1), ((1, 8, 8), 0, 0)]:
        with pytest.raises(ValueError, match="inside 40 rows and 80 columns"):
            carried.window(torch.zeros(shape), top, left)
