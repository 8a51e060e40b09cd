"""Random words, and normal numbers, as a function of their place in a grid: Philox-4x32 with ten
rounds, and the transform of Box and Muller.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Counter and key
go in, four 32-bit words come out; nothing is remembered, so the same words can be drawn again
anywhere, in any order, on any device, and inside a CUDA graph. For row r and column c of a grid::

    counter = (first_column + c, first_row + r, stream, salt),    key = (seed mod 2³², seed div 2³²)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sincut.kernels.launch import jit, on_device_of, tl, triton

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def random_words(
    seed: int, first_row: Tensor, rows: int, first_column: int, columns: int, stream: int, salt: int
) -> Tensor:
    """The words of a grid of counters; CUDA tensors go through the kernel.

    Args:
        seed: 0 … 2^64 − 1.
        first_row: () int64 on the device where the words are wanted. Like ``first_column`` it is
            taken modulo 2^32.
        rows, columns: size of the grid.
        stream, salt: the last two words of the counter, to tell purposes apart.

    Returns:
        (4, rows, columns) int64 from 0 to 2^32 − 1.
    """
    if first_row.is_cuda:
        return random_words_triton(seed, first_row, rows, first_column, columns, stream, salt)
    return random_words_reference(seed, first_row, rows, first_column, columns, stream, salt)


def random_words_reference(
    seed: int, first_row: Tensor, rows: int, first_column: int, columns: int, stream: int, salt: int
) -> Tensor:
    """The formula as written, for any device. As :func:`random_words`."""
    device = first_row.device
    shape = (rows, columns)
    row = (first_row + torch.arange(rows, device=device)) & _MASK
    column = torch.arange(first_column, first_column + columns, device=device) & _MASK
    counter = (
        column.expand(shape),
        row[:, None].expand(shape),
        torch.full(shape, stream & _MASK, dtype=torch.int64, device=device),
        torch.full(shape, salt & _MASK, dtype=torch.int64, device=device),
    )
    return torch.stack(philox(counter, (seed & _MASK, seed >> 32 & _MASK)))


def random_words_triton(
    seed: int, first_row: Tensor, rows: int, first_column: int, columns: int, stream: int, salt: int
) -> Tensor:
    """The kernel, always (CPU tensors need Triton's interpreter). As :func:`random_words`."""
    words = torch.empty((4, rows, columns), dtype=torch.int64, device=first_row.device)
    _launch(words, seed, first_row, first_column, stream, salt)
    return words


def normal_numbers(
    seed: int, first_row: Tensor, rows: int, first_column: int, columns: int, stream: int, salt: int
) -> Tensor:
    """Standard normal numbers, :func:`normal_pairs` of the words of a grid; CUDA tensors go through
    the kernel, whose logarithm, sine and cosine may differ in the last bits.

    Arguments as of :func:`random_words`.

    Returns:
        (4, rows, columns) float32.
    """
    if first_row.is_cuda:
        return normal_numbers_triton(seed, first_row, rows, first_column, columns, stream, salt)
    words = random_words_reference(seed, first_row, rows, first_column, columns, stream, salt)
    return normal_pairs(words)


def normal_numbers_triton(
    seed: int, first_row: Tensor, rows: int, first_column: int, columns: int, stream: int, salt: int
) -> Tensor:
    """The kernel, always (CPU tensors need Triton's interpreter). As :func:`normal_numbers`."""
    numbers = torch.empty((4, rows, columns), dtype=torch.float32, device=first_row.device)
    _launch(numbers, seed, first_row, first_column, stream, salt)
    return numbers


def _launch(
    result: Tensor, seed: int, first_row: Tensor, first_column: int, stream: int, salt: int
) -> None:
    """Fill (4, rows, columns) with words, or with normal numbers where it is of floats."""
    rows, columns = result.shape[1:]
    key = [_signed(seed), _signed(seed >> 32)]
    constant = [_signed(first_column), _signed(stream), _signed(salt)]
    options = {"SIZE": BLOCK, "ROUNDS": ROUNDS, "NORMAL": result.dtype.is_floating_point}
    with on_device_of(result):
        generate[(triton.cdiv(rows * columns, BLOCK),)](
            result, first_row, rows * columns, columns, *constant, *key, **options
        )


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four int64 tensors of 32-bit words in, four out, of the same shape."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def normal_pairs(words: Tensor) -> Tensor:
    """Standard normal numbers from words (4, …) by two Box-Muller transforms: (4, …) float32."""
    # (0, 1]: the logarithm must not see 0, nor round it away, so radii are taken in float64.
    radii = torch.log((words[0::2].double() + 1) / 2.0**32).mul_(-2).sqrt_().float()
    angles = (words[1::2].double() * (2 * math.pi / 2.0**32)).float()
    return torch.stack([radii * torch.cos(angles), radii * torch.sin(angles)], dim=1).flatten(0, 1)


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low half of a 32 × 32 bit product.

    Its 64 bits may overflow int64's sign, which wraps; masked, both halves are right all the same.
    """
    product = word * factor
    return product >> 32 & _MASK, product & _MASK


def _signed(value: int) -> int:
    """The low 32 bits as a signed number: the arguments keep one type, whatever their values."""
    return (value & _MASK ^ 1 << 31) - (1 << 31)


ROUNDS = 10
BLOCK = 512  # counters per program
_PER_WORD = tl.constexpr(2.0**-32) if triton else None
_ANGLE_PER_WORD = tl.constexpr(2 * math.pi / 2.0**32) if triton else None


@jit(sizes=("count", "columns", "first_column", "stream", "salt", "low_key", "high_key"))
def generate(  # type: ignore[no-untyped-def]
    result_ptr,
    first_row_ptr,
    count,
    columns,
    first_column,
    stream,
    salt,
    low_key,
    high_key,
    SIZE: tl.constexpr,
    ROUNDS: tl.constexpr,
    NORMAL: tl.constexpr,
):
    """A block of counters, ten rounds in registers; with ``NORMAL`` what :func:`normal_pairs`
    makes of the words."""
    index = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    row = (tl.load(first_row_ptr) + index // columns).to(tl.int32)
    column = first_column + index % columns
    low = low_key.to(tl.uint32, bitcast=True).to(tl.uint64)
    high = high_key.to(tl.uint32, bitcast=True).to(tl.uint64)
    zero = tl.zeros_like(index)
    c0, c1, c2, c3 = tl.philox(high << 32 | low, column, row, zero + stream, zero + salt, ROUNDS)
    if NORMAL:
        c0, c1 = normal_pair(c0, c1)
        c2, c3 = normal_pair(c2, c3)
    inside = index < count
    place = result_ptr + index.to(tl.int64)
    number = result_ptr.dtype.element_ty
    tl.store(place, c0.to(number), mask=inside)
    tl.store(place + count, c1.to(number), mask=inside)
    tl.store(place + 2 * count, c2.to(number), mask=inside)
    tl.store(place + 3 * count, c3.to(number), mask=inside)


@jit()
def normal_pair(first, second):  # type: ignore[no-untyped-def]
    """Two words as two normal numbers, like :func:`normal_pairs`."""
    radius = tl.sqrt(tl.log((first.to(tl.float64) + 1) * _PER_WORD) * -2).to(tl.float32)
    angle = (second.to(tl.float64) * _ANGLE_PER_WORD).to(tl.float32)
    return radius * tl.cos(angle), radius * tl.sin(angle)
