"""Gaussian noise that is a function of (seed, level, absolute y, absolute x) and nothing else.

A pixel gets the same number whichever tile it is computed in, on every device. The generator is
Philox-4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
the counter is (x // 4, y, level, 0), the key the seed, and each counter's four 32-bit words become
the four neighbours x, x + 1, x + 2, x + 3 by two Box-Muller transforms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def position_noise(
    seed: int,
    level: int,
    top: int,
    left: int,
    height: int,
    width: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise for a window of the plane.

    Args:
        seed: 0 … 2^64 − 1.
        level: which noise image, for networks with several.
        top, left: absolute position of the window's first pixel; negative values wrap at 2^32.
        height, width: size of the window in pixels.

    Returns:
        (1, 1, height, width) float32.
    """
    # Whole groups of four columns are drawn and the window is cut out of them.
    first, last = left // 4, (left + width - 1) // 4
    x = torch.arange(first, last + 1, device=device) & _MASK
    y = torch.arange(top, top + height, device=device) & _MASK
    shape = (height, len(x))
    counter = (
        x.expand(shape),
        y[:, None].expand(shape),
        torch.full(shape, level, dtype=torch.int64, device=device),
        torch.zeros(shape, dtype=torch.int64, device=device),
    )
    words = philox(counter, (seed & _MASK, seed >> 32 & _MASK))
    # (0, 1]: the logarithm below must not see 0.
    u = [(word.double() + 1) / 2.0**32 for word in words]
    pairs = []
    for radius, angle in (u[:2], u[2:]):
        radius = torch.sqrt(-2 * torch.log(radius))
        pairs += [radius * torch.cos(2 * math.pi * angle), radius * torch.sin(2 * math.pi * angle)]
    noise = torch.stack(pairs, dim=-1).flatten(1)
    offset = left - 4 * first
    return noise[None, None, :, offset : offset + width].float()


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four int64 tensors of 32-bit words in, four out, of the same shape."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low half of a 32 × 32 bit product, in int64 arithmetic that cannot overflow."""
    by_low, by_high = word * (factor & 0xFFFF), word * (factor >> 16)  # each below 2^48
    middle = by_high + (by_low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | by_low & 0xFFFF
