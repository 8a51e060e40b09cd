"""Which values of an image are black and white, as its pixels tell. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from sincut.errors import SincutError
from sincut.images.profiles import sparse
from sincut.images.reading.asked import AskedValues
from sincut.images.reading.samples import unknown
from sincut.images.reading.source import Source

_PERCENTILES = (0.1, 99.9)  # ours: a few hot pixels and glints do not count
_COLUMNS = 4096  # of a row that are looked at, at most


def found_range(source: Source) -> AskedValues:
    """The range of a source's valid pixels: what is unknown, transparent or no number does not
    count. It is read once, some rows of it are looked at.

    Raises:
        SincutError: there are no two values.
    """
    step, across = sparse(source.height), max(1, source.width // _COLUMNS)
    parts = []
    for top in range(0, source.height, step):
        row = source.unchecked_rows(top, top + 1)[0, ::across]
        valid = np.isfinite(row[:, :3]).all(axis=-1)
        if source.nodata is not None:
            valid &= ~unknown(row[:, :3], source.nodata)
        if source.alpha:
            valid &= row[:, 3] > 0
        parts.append(row[valid, :3].ravel())
    values: Any = np.concatenate(parts)
    if values.size and values.min() < values.max():
        low = np.percentile(values, _PERCENTILES[0], method="lower")
        high = np.percentile(values, _PERCENTILES[1], method="higher")
        if low < high:
            why = f", the percentiles {_PERCENTILES[0]} and {_PERCENTILES[1]} of its valid pixels"
            return AskedValues((low.item(), high.item()), why=why)
    raise SincutError(
        f"{source.path} has no two different valid values of which a range could be found; give "
        "--range LOW,HIGH"
    )
