"""Gaussian noise that is a function of (seed, level, absolute y, absolute x) and nothing else.

A pixel gets the same number whichever tile it is computed in, on every device. The counter of
:mod:`sincut.kernels.philox` is (x // 4, y, level, 0), the key the seed, and each counter's four
words become the four neighbours x, x + 1, x + 2, x + 3 by two Box-Muller transforms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sincut.kernels.philox import normal_numbers


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
    row = torch.full((), top, dtype=torch.int64, device=device)
    numbers = normal_numbers(seed, row, height, first, last + 1 - first, level, 0)
    noise = numbers.permute(1, 2, 0).flatten(1)
    offset = left - 4 * first
    return noise[None, None, :, offset : offset + width]
