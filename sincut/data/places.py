"""Where crops of an image may lie: anywhere, on its tissue, in squares of which it is put together.
No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

_CELLS = 64  # of a square, a side: its mask
_LEAST = 0.5  # of a square that is tissue, at least


@dataclass(frozen=True, eq=False)
class Places:
    """``grid`` says of how many squares, down and across, an image is put together: no crop lies in
    two. ``tissue`` (squares, h, w) holds where the centres of crops lie, cells of equal size."""

    grid: tuple[int, int] = (1, 1)
    tissue: Mask | None = None

    @property
    def count(self) -> int:
        """Squares, row by row."""
        return self.grid[0] * self.grid[1]


ANYWHERE = Places()


def squares_of(
    size: tuple[int, int], side: int, count: int, seed: int, tissue: Mask | None
) -> tuple[list[tuple[int, int]], int]:
    """Top and left of random squares of an image of ``size`` (H, W), apart from each other, from
    the top down; and among how many they were chosen, which may be fewer than ``count``.

    ``tissue`` (h, w) of the whole image has to fill half of a square.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    shift = [int(random.integers(length % side + 1)) for length in size]
    places = [
        (top, left)
        for top in range(shift[0], size[0] - side + 1, side)
        for left in range(shift[1], size[1] - side + 1, side)
    ]
    if tissue is not None:
        places = [place for place in places if mask_of(tissue, size, place, side).mean() >= _LEAST]
    chosen = random.permutation(len(places))[:count]
    return sorted(places[index] for index in chosen), len(places)


def mask_of(tissue: Mask, size: tuple[int, int], place: tuple[int, int], side: int) -> Mask:
    """(64, 64) of the square at ``place`` (top, left) of an image of ``size`` (H, W), of whose
    whole ``tissue`` (h, w) is."""
    inside = (np.arange(_CELLS) + 0.5) * side / _CELLS
    rows, columns = (
        ((start + inside) * cells / length).astype(np.intp)
        for start, cells, length in zip(place, tissue.shape, size, strict=True)
    )
    found: Mask = tissue[np.ix_(rows, columns)]
    return found


def grid_of(count: int) -> tuple[int, int]:
    """Rows and columns of so many squares, as near to each other as they can be."""
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return rows, count // rows


def put_together(squares: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Squares (side, side, 3) as one image, row by row in the grid of :func:`grid_of`."""
    rows, columns = grid_of(len(squares))
    lines = [
        np.concatenate(squares[row * columns : (row + 1) * columns], axis=1) for row in range(rows)
    ]
    return np.concatenate(lines)
