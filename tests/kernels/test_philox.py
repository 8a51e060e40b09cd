"""Random words: known answers, the kernel against the reference."""

from __future__ import annotations

import pytest
import torch

from sincut.kernels.philox import (
    normal_numbers,
    normal_numbers_triton,
    normal_pairs,
    philox,
    random_words,
    random_words_reference,
    random_words_triton,
)
from tests.conftest import on_the_kernels_device


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


GRIDS = pytest.mark.parametrize(
    ("seed", "row", "rows", "column", "columns", "stream"),
    [
        (0, 0, 1, 0, 1, 0),
        (7, -3, 5, -2, 11, 1),
        (2**64 - 1, 2**32 - 2, 4, 2**32 - 1, 3, 2**32 - 1),
        (2**40 + 5, 2**31 - 1, 2, 2**31 - 2, 700, 23),
    ],
)


@on_the_kernels_device
@GRIDS
def test_the_kernel_draws_the_same_words(
    seed: int, row: int, rows: int, column: int, columns: int, stream: int
) -> None:
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = (rows, column, columns, stream, 0xC0DE)
    expected = random_words_reference(seed, torch.tensor(row), *place)
    got = random_words_triton(seed, torch.tensor(row, device=device), *place)
    assert torch.equal(got.cpu(), expected)
    assert got.shape == (4, rows, columns)


@on_the_kernels_device
@GRIDS
def test_the_kernel_makes_the_same_normal_numbers(
    seed: int, row: int, rows: int, column: int, columns: int, stream: int
) -> None:
    """But for the last bits: radius, sine and cosine are each right to a unit or two in the last
    place, which is at most 1.2·10⁻⁷ of a number."""
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = (rows, column, columns, stream, 0xC0DE)
    expected = normal_numbers(seed, torch.tensor(row), *place)
    assert torch.equal(
        expected, normal_pairs(random_words_reference(seed, torch.tensor(row), *place))
    )
    got = normal_numbers_triton(seed, torch.tensor(row, device=device), *place)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.cpu(), expected, rtol=5e-7, atol=0)


def test_a_window_of_the_grid_has_the_grids_words() -> None:
    plane = random_words(3, torch.tensor(-5), 20, -7, 30, 2, 1)
    window = random_words(3, torch.tensor(1), 4, 2, 9, 2, 1)
    assert torch.equal(window, plane[:, 6:10, 9:18])


def test_words_differ_by_every_part_of_the_counter_and_key() -> None:
    def word(seed: int = 0, row: int = 0, column: int = 0, stream: int = 0, salt: int = 0) -> int:
        return int(random_words(seed, torch.tensor(row), 1, column, 1, stream, salt)[0])

    changed = [word(seed=1), word(seed=2**32), word(row=1), word(column=1), word(stream=1)]
    assert len({word(), *changed, word(salt=1)}) == 7


def test_words_become_normal_numbers() -> None:
    words = torch.tensor([[0, 2**32 - 1], [0, 0], [2**31, 5], [2**30 - 1, 2**31 - 1]])
    numbers = normal_pairs(words)
    assert numbers.dtype == torch.float32
    assert numbers.isfinite().all()
    # A radius of √(−2 ln ½) at a quarter of the circle, and the largest word: a radius of 0.
    assert torch.allclose(numbers[2:, 0], torch.tensor([0.0, 1.1774]), atol=1e-4)
    assert numbers[0, 1] == 0
