"""What a step draws: shapes, distributions, independence of streams."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sincut.data.random_numbers import RandomNumbers


def draws(step: int = 0, seed: int = 0) -> RandomNumbers:
    return RandomNumbers(seed, torch.tensor(step))


def test_normal_numbers_of_any_shape() -> None:
    numbers = draws().normal((3, 1, 5, 7), stream=8)
    assert numbers.shape == (3, 1, 5, 7)
    assert torch.equal(numbers, draws().normal((3, 1, 5, 7), stream=8))
    many = draws().normal((40_001,), stream=8).double()
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_positions_are_different_and_every_one_is_as_likely() -> None:
    counts = torch.zeros(2, 50)
    for step in range(400):
        places = draws(step).positions(10, 50, stream=16, sets=2)
        assert places.shape == (2, 10)
        for chosen, count in zip(places, counts, strict=True):
            assert len(chosen.unique()) == 10
            count[chosen] += 1
    # 400 draws of 10 among 50: 80 each, give or take three standard deviations of 8.
    assert ((counts - 80).abs() < 27).all()
    assert not torch.equal(counts[0], counts[1])


def test_no_more_positions_than_there_are() -> None:
    assert sorted(draws().positions(99, 7, stream=16)[0].tolist()) == list(range(7))


def test_steps_seeds_and_streams_are_independent() -> None:
    base = draws().normal((20_000,), stream=8)
    others = [
        draws(step=1).normal((20_000,), stream=8),
        draws(step=-1).normal((20_000,), stream=8),
        draws(seed=1).normal((20_000,), stream=8),
        draws().normal((20_000,), stream=9),
    ]
    for other in others:
        assert abs((base * other).mean()) < 0.03


def test_parts_are_those_of_the_whole_batch() -> None:
    """Three processes with two samples each get what one with six gets."""
    whole = draws()
    parts = [RandomNumbers(0, torch.tensor(0), part, 3) for part in range(3)]

    def joined(draw: Callable[[RandomNumbers], torch.Tensor]) -> torch.Tensor:
        return torch.cat([draw(each) for each in parts])

    words = joined(lambda each: each.of_samples(2, stream=5, each=7))
    assert torch.equal(words, whole.of_samples(6, stream=5, each=7))
    noise = joined(lambda each: each.normal((2, 1, 3, 5), stream=8))
    assert torch.equal(noise, whole.normal((6, 1, 3, 5), stream=8))
    # Of x, and of y behind it.
    both = [each.normal((4, 1, 3, 5), stream=8, sets=2) for each in parts]
    expected = whole.normal((12, 1, 3, 5), stream=8, sets=2)
    assert torch.equal(torch.cat([each[:2] for each in both]), expected[:6])
    assert torch.equal(torch.cat([each[2:] for each in both]), expected[6:])
    assert torch.equal(expected, whole.normal((12, 1, 3, 5), stream=8))
    assert all(torch.equal(each.positions(4, 9, 16), whole.positions(4, 9, 16)) for each in parts)
