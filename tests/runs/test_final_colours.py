"""The generator that is written: colours of the style as a whole, the state untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sincut.config.presets import train_config
from sincut.data.colour_transfer import affine_transfer
from sincut.data.pair import Pair
from sincut.demo import render_content, render_style
from sincut.runs.final_colours import final_generator, translated, translated_small
from sincut.training.state import State, new_state
from tests.conftest import TINY

CONTENT, STYLE = render_content(160, 128), render_style(144, 120)
CONFIG = train_config(**{**TINY, "correction": True})


def drifted(contrast: float) -> State:
    """A new state whose output is ``contrast`` times as strong around its middle, and shifted."""
    state = new_state(Pair(CONTENT, STYLE), CONFIG)
    middle = torch.from_numpy(STYLE).float().mean(dim=(0, 1)) / 127.5 - 1
    matrix = contrast * torch.eye(3)
    with torch.no_grad():
        shift = torch.tensor([0.15, -0.1, 0.05])
        state.averaged_generator.change_colours(matrix, middle - matrix @ middle + shift)
    return state


def still_to_do(image: np.ndarray) -> tuple[float, np.ndarray]:
    """How far the mean is from the style's, and the contrasts that are missing, as factors."""
    matrix, _ = affine_transfer(image, STYLE)
    mean = np.abs(image.mean(axis=(0, 1)) - STYLE.mean(axis=(0, 1))).max() / 127.5
    return float(mean), np.linalg.eigvalsh(matrix)


def test_the_translated_content_has_the_colours_of_the_style() -> None:
    state = drifted(1.25)
    weights = [each.clone() for each in state.averaged_generator.parameters()]
    before = still_to_do(translated(CONTENT, state.averaged_generator))
    after = still_to_do(translated(CONTENT, final_generator(state, CONTENT, STYLE)))
    assert after[0] < 0.03 < 0.1 < before[0]
    assert before[1].min() < 0.88 < 0.93 < after[1].min()
    for kept, weight in zip(weights, state.averaged_generator.parameters(), strict=True):
        assert torch.equal(kept, weight)


def test_contrast_is_raised_by_a_third_of_what_is_missing() -> None:
    """The rest may be a place that the content does not have; textures would pay for it."""
    state = drifted(0.7)
    before = translated(CONTENT, state.averaged_generator)
    after = translated(CONTENT, final_generator(state, CONTENT, STYLE))
    assert still_to_do(after)[0] < 0.03 < 0.1 < still_to_do(before)[0]
    missing = still_to_do(before)[1]
    assert missing.max() > 1.2
    expected = np.where(missing > 1, missing / (1 + (missing - 1) / 3), 1)
    assert still_to_do(after)[1] == pytest.approx(expected, rel=0.05)


def test_a_published_generator_is_written_as_it_is() -> None:
    config = CONFIG.replaced(correction=False)
    state = new_state(Pair(CONTENT, STYLE), config)
    assert final_generator(state, CONTENT, STYLE) is state.averaged_generator


def test_reduced_keeps_the_shape_of_the_image() -> None:
    config = train_config(**TINY)
    generator = new_state(Pair(CONTENT, STYLE), config).averaged_generator
    assert translated_small(CONTENT, 80, generator).shape == (64, 80, 3)
    assert translated_small(CONTENT, 1000, generator).shape == CONTENT.shape
