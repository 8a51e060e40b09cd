"""A picture for the pages: what statistics of each tile do to a network that normalises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sincut.config.translating import TranslateConfig
from sincut.demo.landscape import render_content
from sincut.models.resnet import ResnetGenerator
from sincut.translation.tiles import translate_pixels

Pixels = npt.NDArray[Any]

_WIDTH, _HEIGHT, _TILE, _CHANNELS = 512, 384, 128, 16
_SHARE = 0.5  # of the network in the picture; the rest is the content, to be recognised
_QUALITY = 75


def untrained_generator(seed: int = 0) -> ResnetGenerator:
    """One of CUT's shape with random weights, large enough for its norms to matter."""
    torch.manual_seed(seed)
    generator = ResnetGenerator(_CHANNELS).eval().requires_grad_(False)
    for weight in generator.parameters():
        if weight.ndim == 4:
            torch.nn.init.xavier_normal_(weight, gain=0.7)
    return generator


def seams(target: Path) -> float:
    """Write content, tiles with statistics of their own, and tiles with those of the whole image.

    Returns:
        the largest difference of the last to one forward of the whole image, of 255.
    """
    content = render_content(_WIDTH, _HEIGHT)
    generator = untrained_generator()
    alone = np.empty_like(content)
    for top in range(0, _HEIGHT, _TILE):
        for left in range(0, _WIDTH, _TILE):
            place = np.s_[top : top + _TILE, left : left + _TILE]
            alone[place] = translate_pixels(
                generator, np.ascontiguousarray(content[place]), TranslateConfig(tile="whole")
            )
    whole, tiled = (
        translate_pixels(generator, content, TranslateConfig(tile=tile))
        for tile in ("whole", str(_TILE))
    )
    parts = [content]
    for output in (alone, tiled):
        mixed = content + _SHARE * (output.astype(np.float32) - content)
        parts.append(mixed.round().astype(np.uint8))
    gap = np.full((_HEIGHT, 8, 3), 255, np.uint8)
    row = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)
    Image.fromarray(row).save(target, quality=_QUALITY)
    return float(np.abs(whole.astype(int) - tiled).max())
