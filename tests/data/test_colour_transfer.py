"""Colour transfer: moments, distributions, images that hardly vary."""

from __future__ import annotations

import numpy as np
import pytest

from sincut.data.colour_transfer import affine_transfer, transfer_table
from sincut.demo import render_content, render_style
from sincut.evaluation.figures import Comparison


def colours(image: np.ndarray) -> np.ndarray:
    """(n, 3) in [-1, 1]."""
    return image.reshape(-1, 3) / 127.5 - 1


def mapped(image: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The image through an affine map, as pixels."""
    moved = colours(image) @ matrix.T + offset
    pixels = np.rint((moved.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return pixels.reshape(image.shape)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    return render_content(192, 160), render_style(176, 160)


def test_mean_and_covariance_become_those_of_the_style(
    images: tuple[np.ndarray, np.ndarray],
) -> None:
    content, style = images
    matrix, offset = affine_transfer(content, style)
    moved = colours(content) @ matrix.T + offset
    assert np.allclose(moved.mean(axis=0), colours(style).mean(axis=0), atol=1e-9)
    assert np.allclose(np.cov(moved.T), np.cov(colours(style).T), atol=0.015)
    # Of all maps with these moments this one is symmetric: it moves colours least.
    assert np.allclose(matrix, matrix.T, atol=1e-9)


def test_an_image_is_mapped_to_itself_by_the_identity(
    images: tuple[np.ndarray, np.ndarray],
) -> None:
    matrix, offset = affine_transfer(images[0], images[0])
    assert np.allclose(matrix, np.eye(3), atol=1e-9)
    assert np.allclose(offset, 0, atol=1e-9)


def test_grain_of_a_grey_image_is_not_stretched(images: tuple[np.ndarray, np.ndarray]) -> None:
    random = np.random.default_rng(0)
    grey = images[0].mean(axis=2, keepdims=True).repeat(3, axis=2)
    grainy = (grey + random.integers(-1, 2, grey.shape)).clip(0, 255).astype(np.uint8)
    matrix, _ = affine_transfer(grainy, images[1])
    assert np.linalg.norm(matrix, 2) < 12
    flat = np.full((8, 8, 3), 90, np.uint8)
    matrix, offset = affine_transfer(flat, images[1])
    assert np.isfinite(matrix).all()
    assert np.allclose(mapped(flat, matrix, offset) / 255, images[1].mean((0, 1)) / 255, atol=0.01)


def test_both_transfers_bring_the_colours_closer(images: tuple[np.ndarray, np.ndarray]) -> None:
    content, style = images
    comparison = Comparison(content, style)
    affine = mapped(content, *affine_transfer(content, style))
    table = transfer_table(content, style)
    nearest = table[tuple(np.rint(content / 255 * 32).astype(int).transpose(2, 0, 1))]
    figures = [
        comparison.figures(image).S1
        for image in (content, affine, np.rint(255 * nearest).astype(np.uint8))
    ]
    assert figures[2] < figures[1] < 0.5 * figures[0]


@pytest.mark.parametrize("stretch", [0, 0.25, 1])
def test_what_is_too_weak_is_stretched_by_a_share(stretch: float) -> None:
    """Too strong along one oblique axis, too weak along another: the first is scaled whole."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(3, 3)))[0]

    def image(deviations: tuple[int, int, int], mean: int) -> np.ndarray:
        points = random.normal(size=(200, 200, 3)) * deviations @ axes.T + mean
        return points.round().clip(0, 255).astype(np.uint8)

    content, style = image((30, 10, 20), 120), image((15, 20, 20), 135)
    whole, _ = affine_transfer(content, style)
    matrix, offset = affine_transfer(content, style, stretch=stretch)
    factors, directions = np.linalg.eigh(whole)
    assert factors.min() < 0.6
    assert factors.max() > 1.7
    scaled = [min(f, 1) + stretch * max(f - 1, 0) for f in factors]
    expected = directions @ np.diag(scaled) @ directions.T
    assert np.allclose(matrix, expected)
    mean = content.mean(axis=(0, 1)) / 127.5 - 1
    assert np.allclose(matrix @ mean + offset, style.mean(axis=(0, 1)) / 127.5 - 1)
