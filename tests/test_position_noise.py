"""Noise as a function of place."""

from __future__ import annotations

import pytest
import torch

from sincut.kernels.position_noise import philox, position_noise


def test_philox_known_answers() -> None:
    """The vectors that the authors of Philox-4x32-10 publish with their library."""
    cases = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, expected in cases:
        words = philox(tuple(torch.tensor([word]) for word in counter), key)  # type: ignore[arg-type]
        assert tuple(int(word) for word in words) == expected


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
