"""Where a picture of a slide shows tissue, and where glass. No torch.

Tissue is stained, glass is not: pixels are told apart by their colourfulness, the largest of red,
green and blue less the smallest, at Otsu's threshold ("A threshold selection method from gray-level
histograms", IEEE Trans. SMC 1979). CLAM (Lu et al., Nature BME 2021) does so with the saturation of
HSV, of which dark dust has much. Closing, opening and a smallest size make areas of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_LOW, _HIGH = 10, 32  # of 255, for the threshold (ours): tinted glass has less, stained tissue more
_RADIUS = 2  # pixels, of closing and opening (ours)
_SMALLEST = 1 / 50  # of the largest area (ours): what is smaller is dust


def tissue_of(overview: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(h, w) of an overview (h, w, 3) uint8 sRGB of about a thousand pixels; nothing is tissue of
    a picture of one colour, all of one that is stained throughout."""
    colourful = overview.max(axis=2) - overview.min(axis=2)
    smooth = ndimage.median_filter(colourful, 2 * _RADIUS + 1, mode="nearest")
    found: npt.NDArray[np.bool_] = smooth > np.clip(_otsu(smooth), _LOW, _HIGH)
    y, x = np.ogrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1]
    disk = y * y + x * x <= _RADIUS * _RADIUS
    # What lies at the edge goes on beyond it.
    around = np.pad(found, 2 * _RADIUS, mode="edge")
    around = ndimage.binary_opening(ndimage.binary_closing(around, disk), disk)
    found = around[2 * _RADIUS : -2 * _RADIUS, 2 * _RADIUS : -2 * _RADIUS]
    areas, count = ndimage.label(found)
    if not count:
        return found
    sizes = np.bincount(areas.ravel())
    sizes[0] = 0
    kept: npt.NDArray[np.bool_] = (sizes >= max(sizes.max() * _SMALLEST, disk.sum()))[areas]
    return kept


def _otsu(values: npt.NDArray[np.uint8]) -> int:
    """The threshold with most variance between what lies up to it and above it."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    total = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (total / below - (total[-1] - total) / above) ** 2
    return int(np.nan_to_num(apart).argmax())
