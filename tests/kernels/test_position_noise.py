"""Noise as a function of place."""

from __future__ import annotations

import pytest
import torch

from sincut.kernels.position_noise import position_noise


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 1), (-7, -5), (10, 2), (1, 4)])
def test_a_window_is_a_part_of_the_plane(top: int, left: int) -> None:
    plane = position_noise(7, 0, -10, -10, 40, 40)
    window = position_noise(7, 0, top, left, 9, 13)
    assert torch.equal(window, plane[..., top + 10 : top + 19, left + 10 : left + 23])


def test_it_is_standard_normal() -> None:
    noise = position_noise(0, 0, 0, 0, 500, 500).double().flatten()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    below = (noise < torch.tensor([-1.0, 0.0, 1.0])[:, None]).double().mean(dim=1)
    assert torch.allclose(below, torch.tensor([0.1587, 0.5, 0.8413]).double(), atol=0.005)


def test_neighbours_seeds_and_levels_are_independent() -> None:
    noise = position_noise(0, 0, 0, 0, 300, 300)[0, 0]
    others = [
        noise.roll(1, 0),
        noise.roll(1, 1),
        noise.roll(2, 1),
        position_noise(1, 0, 0, 0, 300, 300)[0, 0],
        position_noise(2**32, 0, 0, 0, 300, 300)[0, 0],
        position_noise(0, 1, 0, 0, 300, 300)[0, 0],
    ]
    for other in others:
        assert abs((noise * other).mean()) < 0.02
