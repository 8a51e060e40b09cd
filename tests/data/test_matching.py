"""Which crops of the style are taken for which of the content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.colour_transfer import transfer_table
from sincut.data.crops import ResidentImage
from sincut.data.matching import Matcher, descriptors, recoloured
from sincut.data.random_numbers import RandomNumbers

AXIS = torch.linspace(0, 1, 5)
IDENTITY = torch.stack(torch.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), dim=-1)


def crop(level: float, contrast: float, size: int = 32) -> Tensor:
    """Grey of that level with vertical stripes."""
    stripes = torch.where(torch.arange(size) % 2 == 0, contrast, -contrast)
    return (level + stripes).expand(3, size, size)


def test_recoloured_interpolates_the_table() -> None:
    red, green, blue = IDENTITY.unbind(-1)
    table = torch.stack([0.5 * green + 0.25, blue, 1 - red], dim=-1)  # linear: exact
    image = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    unit = (image + 1) / 2
    expected = torch.stack([0.5 * unit[:, 1] + 0.25, unit[:, 2], 1 - unit[:, 0]], dim=1) * 2 - 1
    assert torch.allclose(recoloured(image, table), expected, atol=1e-5)


def test_descriptors_are_colour_and_how_it_varies() -> None:
    """Stripes within a cell are texture, and count for nothing."""
    half = torch.cat([crop(0.5, 0.25)[:, :16], crop(-0.5, 0.0)[:, :16]], dim=1)
    found = descriptors(half[None])[0]
    assert torch.allclose(found, torch.tensor([0.0] * 3 + [0.5] * 3), atol=1e-6)


def grey_squares(levels: list[list[int]]) -> np.ndarray:
    """(…, 3) uint8 of squares of 64 pixels of one grey each."""
    squares = np.array(levels, np.uint8).repeat(64, axis=0).repeat(64, axis=1)
    return squares[..., None].repeat(3, axis=2)


def settings(candidates: int) -> PairConfig:
    return train_config(
        "draft", device="cpu", crop=32, tile=32, batch=4, candidates=candidates, seed=1
    )


def levels_chosen(content: np.ndarray, style: np.ndarray, candidates: int) -> dict[int, Tensor]:
    """Mean grey of the style crops that are chosen for crops of each grey of the content."""
    config = settings(candidates)
    image = ResidentImage(style, config)
    matcher = Matcher(image, torch.from_numpy(transfer_table(content, style)), config)
    chosen = {}
    for grey in np.unique(content):
        x = torch.full((64, 3, 32, 32), int(grey) / 127.5 - 1)
        boxes = matcher.boxes(x, RandomNumbers(1, torch.tensor(0)))
        assert boxes.shape == (64, 5)
        chosen[int(grey)] = (image.crops(boxes, 32).mean(dim=(1, 2, 3)) + 1) * 127.5
    return chosen


def test_each_kind_of_place_gets_its_own_kind() -> None:
    """Colours are compared after their transfer: dark content, bright style."""
    content = grey_squares([[10, 10, 10], [90, 90, 90]])
    style = grey_squares([[160, 160, 160, 160], [240, 240, 240, 240]])
    chosen = levels_chosen(content, style, candidates=32)
    # A quarter of a crop may come from beside the one that was chosen.
    assert (chosen[10] <= 160 + 80 / 4).all()
    assert (chosen[90] >= 240 - 80 / 4).all()
    assert (chosen[10] < 165).float().mean() > 0.8 < (chosen[90] > 235).float().mean()


def test_one_candidate_is_no_choice() -> None:
    content = grey_squares([[10, 10, 10], [90, 90, 90]])
    style = grey_squares([[160, 160, 160, 160], [240, 240, 240, 240]])
    chosen = levels_chosen(content, style, candidates=1)
    assert torch.equal(chosen[10], chosen[90])
    assert abs(chosen[10].mean() - 200) < 15


def test_what_is_chosen_depends_on_the_step() -> None:
    config = settings(candidates=4)
    image = ResidentImage(np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8), config)
    matcher = Matcher(image, IDENTITY, config)
    x = image.crops(matcher.known[:8], 32)
    first, again, other = (
        matcher.boxes(x, RandomNumbers(1, torch.tensor(step))) for step in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mirror", [0.0, 0.5])
def test_the_same_choice_is_never_quite_the_same_crop(mirror: float) -> None:
    """Up to a quarter of its side away, inside the image, evenly, mirrored or not."""
    config = settings(candidates=32).replaced(mirror=mirror)
    image = ResidentImage(np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8), config)
    matcher = Matcher(image, IDENTITY, config)
    matcher.known, matcher.found = matcher.known[:1], matcher.found[:1]  # no other choice
    x = image.crops(matcher.known.expand(512, 5), 32)
    boxes = matcher.boxes(x, RandomNumbers(1, torch.tensor(0)))
    (rows, columns, top, left, _) = matcher.known[0].tolist()
    assert torch.equal(boxes[:, :2], matcher.known[:, :2].expand(512, 2))
    for found, place, furthest in (
        (boxes[:, 2], top, rows - 32),
        (boxes[:, 3], left, columns - 32),
    ):
        low, high = max(place - 8, 0), min(place + 8, furthest)
        times = found.bincount(minlength=high + 1)
        assert len(times) == high + 1
        assert times[:low].sum() == 0 < times[low:].min()
        assert times.max() < 2.5 * 512 / (high - low + 1)  # no heap at a border
    assert abs(boxes[:, 4].float().mean() - mirror) < 0.1
