"""The anchors against slow versions, and against the figures that others measured on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from sincut.data.colour_transfer import transfer_table
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation import anchors as module
from sincut.evaluation import figures as quality
from sincut.evaluation.anchors import anchors, blocks, idt, reinhard
from sincut.evaluation.figures import Comparison
from sincut.images.reading.pillow import decode_picture

CONTENT = render_content(150, 131)
STYLE = render_style(140, 133)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """IDT of fewer rotations."""
    monkeypatch.setattr(module, "_ITERATIONS", 8)


def slow_lab(image: np.ndarray) -> np.ndarray:
    """(n, 3) lαβ, pixel after pixel, with the paper's matrices."""
    rows = []
    for red, green, blue in image.reshape(-1, 3) / 255:
        long = np.log10(max(0.3811 * red + 0.5783 * green + 0.0402 * blue, 1 / 1020))
        medium = np.log10(max(0.1967 * red + 0.7244 * green + 0.0782 * blue, 1 / 1020))
        short = np.log10(max(0.0241 * red + 0.1288 * green + 0.8444 * blue, 1 / 1020))
        rows.append(
            (
                (long + medium + short) / np.sqrt(3),
                (long + medium - 2 * short) / np.sqrt(6),
                (long - medium) / np.sqrt(2),
            )
        )
    return np.array(rows)


def slow_blocks(image: np.ndarray, style: np.ndarray, side: int) -> np.ndarray:
    """Every block against every candidate."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % side), (0, -width % side), (0, 0)), mode="symmetric")
    part = side // 4

    def means(block: np.ndarray) -> np.ndarray:
        return np.array(
            [
                block[i : i + part, j : j + part].mean(axis=(0, 1))
                for i in range(0, side, part)
                for j in range(0, side, part)
            ]
        )

    places = [
        (top, left)
        for top in range(0, style.shape[0] - side + 1, 4)
        for left in range(0, style.shape[1] - side + 1, 4)
    ]
    candidates = np.array([means(style[t : t + side, s : s + side]) for t, s in places])
    for top in range(0, padded.shape[0], side):
        for left in range(0, padded.shape[1], side):
            wanted = means(padded[top : top + side, left : left + side])
            t, s = places[int(((candidates - wanted) ** 2).sum(axis=(1, 2)).argmin())]
            padded[top : top + side, left : left + side] = style[t : t + side, s : s + side]
    return padded[:height, :width]


def test_all_of_them_in_order(quick: None) -> None:
    found = anchors(CONTENT, STYLE)
    assert list(found) == ["copy", "Reinhard", "IDT", "IDT + 16-px blocks", "IDT + 64-px blocks"]
    for image in found.values():
        assert (image.shape, image.dtype) == (CONTENT.shape, np.uint8)
    assert len({image.tobytes() for image in found.values()}) == 5
    np.testing.assert_array_equal(found["copy"], CONTENT)
    np.testing.assert_array_equal(found["IDT + 16-px blocks"], blocks(found["IDT"], STYLE, 16))
    for name, image in anchors(CONTENT, STYLE).items():
        np.testing.assert_array_equal(image, found[name])


def test_reinhard_is_the_papers() -> None:
    content, style = CONTENT[::4, ::4], STYLE[::4, ::4]
    ours, goal = slow_lab(content), slow_lab(style)
    moved = (ours - ours.mean(axis=0)) / ours.std(axis=0) * goal.std(axis=0) + goal.mean(axis=0)
    to_log = np.array([[1, 1, 1], [1, 1, -1], [1, -2, 0]]) @ np.diag([3**-0.5, 6**-0.5, 2**-0.5])
    to_rgb = np.array(
        [[4.4679, -3.5873, 0.1193], [-1.2186, 2.3809, -0.1624], [0.0497, -0.2439, 1.2045]]
    )
    expected = (10 ** (moved @ to_log.T) @ to_rgb.T * 255).clip(0, 255).reshape(content.shape)
    # The paper's inverse matrix has four digits.
    assert np.abs(reinhard(content, style) - expected).max() < 2


def test_reinhard_takes_over_mean_and_deviation() -> None:
    goal, found = slow_lab(STYLE), slow_lab(reinhard(CONTENT, STYLE))
    # Clipping to sRGB and rounding to 8 bits move them a little.
    np.testing.assert_allclose(found.mean(axis=0), goal.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(found.std(axis=0), goal.std(axis=0), atol=0.03)


def test_reinhard_of_what_has_no_deviation() -> None:
    grey = np.full((8, 8, 3), 90, np.uint8)
    assert len(np.unique(reinhard(grey, STYLE).reshape(-1, 3), axis=0)) == 1
    odd, bold = np.full((512, 512, 3), 90, np.uint8), np.zeros((64, 64, 3), np.uint8)
    odd[0, 0], bold[:32] = 255, 255
    # Hundreds of deviations away, and these are wide: 10 to the power of that is no number.
    assert reinhard(odd, bold)[0, 0].tolist() == [255, 255, 255]
    assert np.abs(reinhard(STYLE, STYLE).astype(int) - STYLE).max() <= 1


def test_idt_is_the_table_between_its_points(quick: None) -> None:
    table = transfer_table(CONTENT, STYLE, iterations=8)
    axis = np.linspace(0, 255, 33)
    expected = RegularGridInterpolator((axis, axis, axis), table)(CONTENT) * 255
    assert np.abs(idt(CONTENT, STYLE) - expected).max() <= 0.51


def test_idt_at_the_ends_of_the_axes(quick: None) -> None:
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 255]]], np.uint8)
    table = transfer_table(corners, STYLE, iterations=8) * 255
    expected = [table[0, 0, 0], table[-1, -1, -1], table[-1, 0, -1]]
    np.testing.assert_allclose(idt(corners, STYLE)[0], expected, atol=0.51)


def test_idt_takes_over_the_colours() -> None:
    def distance(image: np.ndarray) -> float:
        u = np.linspace(0, 1, 101)
        return max(
            np.abs(np.quantile(image[..., c], u) - np.quantile(STYLE[..., c], u)).mean()
            for c in range(3)
        )

    assert distance(idt(CONTENT, STYLE)) < 5 < 10 < distance(CONTENT)


@pytest.mark.parametrize("side", [16, 64])
def test_blocks_are_the_nearest_of_all(side: int) -> None:
    found = blocks(CONTENT, STYLE, side)
    expected = slow_blocks(CONTENT, STYLE, side)
    # Two candidates may be as near as the arithmetic can tell.
    assert (found == expected).all(axis=2).mean() > 0.98


def test_blocks_of_the_style_are_found_again() -> None:
    tiles = STYLE[4:132, 8:136]
    mixed = np.concatenate([tiles[64:], tiles[:64]])
    np.testing.assert_array_equal(blocks(mixed, STYLE, 64), mixed)
    np.testing.assert_array_equal(blocks(mixed[:100, :77], STYLE, 16)[:96, :64], mixed[:96, :64])


def test_candidates_are_thinned_on_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(module._candidates(STYLE, 16)[0]) == 30 * 32
    monkeypatch.setattr(module, "_MOST_CANDIDATES", 100)
    tops, lefts, means = module._candidates(STYLE, 16)
    assert sorted(set(tops.tolist())) == list(range(0, 117, 16))
    assert sorted(set(lefts.tolist())) == list(range(0, 125, 16))
    assert means.shape == (64, 48)
    i = 19
    block = STYLE[tops[i] : tops[i] + 16, lefts[i] : lefts[i] + 16].reshape(4, 4, 4, 4, 3) / 255
    np.testing.assert_allclose(means[i], block.mean(axis=(1, 3)).ravel(), atol=1e-6)


def test_how_the_work_is_cut_does_not_matter(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = anchors(CONTENT, STYLE)
    monkeypatch.setattr(module, "_BAND", 1000)
    monkeypatch.setattr(module, "_DISTANCES", 5000)
    for name, image in anchors(CONTENT, STYLE).items():
        difference = np.abs(image.astype(int) - whole[name])
        # Sums in another order round otherwise, which may turn the odd pixel by 1 or a near block.
        assert (difference > 1).mean() < 0.02, name


def test_a_style_smaller_than_a_block() -> None:
    with pytest.raises(SincutError) as error:
        blocks(CONTENT, STYLE[:63], 64)
    assert str(error.value) == (
        "the style image must have sides of at least 64 pixels for blocks of that side, got "
        "140×63; try a larger image"
    )


def test_check_values(real_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Photograph → Monet; other implementations of the anchors are a few hundredths away."""
    monkeypatch.setattr(quality, "_FLOOR_SPLITS", 1)
    style, content = (decode_picture(path).rgb for path in real_pair)
    comparison = Comparison(content, style)
    found = anchors(content, style)
    for name, expected in {
        "Reinhard": (0.041, 0.067, 0.958, 0.942, 0.930),
        "IDT": (0.006, 0.172, 0.900, 0.798, 0.632),
        "IDT + 16-px blocks": (0.009, 0.028, 0.756, 0.753, 0.577),
        "IDT + 64-px blocks": (0.011, 0.034, 0.677, 0.331, 0.449),
    }.items():
        figures = dataclasses.asdict(comparison.figures(found[name]))
        del figures["S2_ratio"], figures["S4"]
        assert tuple(figures.values()) == pytest.approx(expected, abs=0.05), name
