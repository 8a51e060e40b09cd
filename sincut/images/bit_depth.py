"""Pixels of 8 and 16 bits and floats: what is white, and one depth as another. No torch.

Integers go from 0 to their largest value, floats from 0 to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}
# What people call them, and what the command line does.
NAMES: dict[str, np.dtype[Any]] = {
    "8": np.dtype(np.uint8),
    "16": np.dtype(np.uint16),
    "float": np.dtype(np.float32),
}

_BLOCK = 1 << 21  # values


def as_depth(pixels: Array, dtype: np.dtype[Any]) -> Array:
    """The same brightness in another depth, rounded to the nearest; floats outside 0 … 1 clipped.

    Args:
        pixels: of any shape, uint8, uint16 or float32. Not-a-numbers become 0 in an integer depth.
        dtype: one of :data:`WHITE`. The same depth gives the array itself.
    """
    if pixels.dtype == dtype:
        return pixels
    if pixels.ndim > 1 and pixels.size > _BLOCK:  # in blocks: the floats between take much memory
        result = np.empty(pixels.shape, dtype)
        rows = max(1, _BLOCK * len(pixels) // pixels.size)
        for start in range(0, len(pixels), rows):
            result[start : start + rows] = as_depth(pixels[start : start + rows], dtype)
        return result
    if pixels.dtype == np.uint8 and dtype == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    scaled = pixels.astype(np.float32) * np.float32(WHITE[dtype] / WHITE[pixels.dtype])
    if dtype == np.float32:
        return scaled
    rounded: Array = np.nan_to_num(scaled).clip(0, WHITE[dtype]).round().astype(dtype)
    return rounded
