"""The generator that is written: colours of the style as a whole, the state untouched."""

from __future__ import annotations

import numpy as np
import torch

from sincut.colour import affine_transfer
from sincut.config import train_config
from sincut.example import render_content, render_style
from sincut.finish import finished, reduced, translated
from sincut.training import new_state
from tests.conftest import TINY

CONTENT, STYLE = render_content(160, 128), render_style(144, 120)


def test_the_translated_content_has_the_colours_of_the_style() -> None:
    config = train_config(**{**TINY, "correction": True})
    state = new_state(CONTENT, STYLE, config)
    with torch.no_grad():
        state.averaged_generator.offset += torch.tensor([0.3, -0.2, 0.1])  # a drift
    before = translated(CONTENT, state.averaged_generator)
    weights = [each.clone() for each in state.averaged_generator.parameters()]
    after = translated(CONTENT, finished(state, CONTENT, STYLE, config))

    def off(image: np.ndarray) -> float:
        """How far the affine transfer to the style would still move the colours."""
        matrix, offset = affine_transfer(image, STYLE)
        return float(np.abs(matrix - np.eye(3)).max() + np.abs(offset).max())

    assert off(after) < 0.1 < off(before)
    for kept, weight in zip(weights, state.averaged_generator.parameters(), strict=True):
        assert torch.equal(kept, weight)


def test_a_published_generator_is_written_as_it_is() -> None:
    config = train_config(**{**TINY, "correction": False})
    state = new_state(CONTENT, STYLE, config)
    assert finished(state, CONTENT, STYLE, config) is state.averaged_generator


def test_reduced_keeps_the_shape_of_the_image() -> None:
    config = train_config(**TINY)
    generator = new_state(CONTENT, STYLE, config).averaged_generator
    assert reduced(CONTENT, 80, generator).shape == (64, 80, 3)
    assert reduced(CONTENT, 1000, generator).shape == CONTENT.shape
