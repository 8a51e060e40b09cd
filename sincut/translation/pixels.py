"""Between pixels as files have them and images as networks have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sincut.images.bit_depth import WHITE


def as_network(pixels: Tensor) -> Tensor:
    """(rows, columns, 3) of any depth → (1, 3, rows, columns) float32 of [-1, 1], channels last."""
    white = WHITE[_numpy_type(pixels)]
    return pixels.permute(2, 0, 1)[None].float() / (white / 2) - 1


def as_pixels(image: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """(1, 3, rows, columns) of about [-1, 1] → (rows, columns, 3) in a depth, clamped, rounded."""
    white = WHITE[dtype]
    pixels = ((image[0].permute(1, 2, 0) + 1) * (white / 2)).clamp(0, white)
    if dtype == np.float32:
        return pixels.float().contiguous()
    kind = torch.uint8 if dtype == np.uint8 else torch.uint16
    return pixels.round().to(torch.int32).to(kind).contiguous()


def _numpy_type(tensor: Tensor) -> np.dtype[Any]:
    kinds = {torch.uint8: np.uint8, torch.uint16: np.uint16, torch.float32: np.float32}
    return np.dtype(kinds[tensor.dtype])
