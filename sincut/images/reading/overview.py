"""A small picture of an image, or of a part of one, in bounded memory. No torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sincut.images.bit_depth import as_depth
from sincut.images.identity import is_zarr
from sincut.images.reading.asked import AskedPart, AskedValues, Region
from sincut.images.reading.ome_zarr import zarr_levels
from sincut.images.reading.open import open_source
from sincut.images.reading.slides import slide_levels
from sincut.images.reading.source import Source, in_srgb

_SIDE = 1024  # pixels of its longest side, at most
_BAND = 1 << 22  # pixels read at once

Pixels = npt.NDArray[np.uint8]


def overview(path: Path, part: AskedPart, asked: AskedValues) -> Pixels:
    """(h, w, 3) uint8 sRGB of means over squares of pixels, at most 1024 a side; from the smallest
    level that is as large.

    Raises:
        SincutError: as :func:`sincut.images.reading.open.open_source`.
    """
    with _opened(path, AskedPart(part.level), asked) as source:
        width, height = source.width, source.height
    region = part.region or Region(0, 0, width, height)
    levels = zarr_levels(path) if is_zarr(path) else slide_levels(path)
    for level in reversed(range(part.level + 1, levels)):
        with _opened(path, AskedPart(level), asked) as source:
            across, down = source.width / width, source.height / height
            if max(region.width * across, region.height * down) >= _SIDE:
                left, top = int(region.left * across), int(region.top * down)
                columns = min(round(region.width * across), source.width - left)
                rows = min(round(region.height * down), source.height - top)
                source.crop(Region(left, top, max(columns, 1), max(rows, 1)))
                return _reduced(source)
    with _opened(path, part, asked) as source:
        return _reduced(source)


def _opened(path: Path, part: AskedPart, asked: AskedValues) -> Source:
    return open_source(
        path,
        max_pixels=sys.maxsize,
        max_memory=sys.maxsize,
        level=part.level,
        region=part.region,
        asked=asked,
    )


def _reduced(source: Source) -> Pixels:
    shrink = -(-max(source.height, source.width) // _SIDE)
    step = max(_BAND // (source.width * shrink), 1) * shrink
    bands = []
    for top in range(0, source.height, step):
        rows = source.rows(top, min(top + step, source.height))
        pixels = as_depth(in_srgb(source, rows), np.dtype(np.uint8))
        bands.append(np.asarray(Image.fromarray(pixels).reduce(shrink)))
    return np.concatenate(bands)
