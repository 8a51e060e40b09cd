"""Translations without learning, which a learned one has to be compared with. No torch.

They trade structure for texture: a transfer of colours keeps the content's edges and texture,
blocks of the style bring its texture and lose edges. Images are (H, W, 3) uint8 sRGB; every anchor
has the content's shape, the style is used at its own size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from sincut.data.colour_transfer import transfer_table
from sincut.errors import SincutError

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

COPY = "copy"
REINHARD = "Reinhard"
IDT = "IDT"
IDT_16 = "IDT + 16-px blocks"
IDT_64 = "IDT + 64-px blocks"
PATCHES = "patches"  # of sincut.evaluation.patch_matching, which takes torch

# RGB to the eye's cones, and their logarithms to lαβ: (4) and (6) of Reinhard and others.
_LMS = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]], np.float32
)
_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]

_ITERATIONS = 60  # of IDT: from there on the figures of the result change by some thousandths
_PARTS = 4  # blocks are compared by the means of their 4×4 parts
_GRID = 4  # pixels between candidates
_MOST_CANDIDATES = 65_536
_BAND = 2**20  # pixels worked on at a time
_DISTANCES = 2**24  # held at a time


def anchors(content: Pixels, style: Pixels) -> dict[str, Pixels]:
    """All anchors by name, from the one that keeps everything to the one that keeps the least."""
    transferred = idt(content, style)
    return {
        COPY: content,
        REINHARD: reinhard(content, style),
        IDT: transferred,
        IDT_16: blocks(transferred, style, 16),
        IDT_64: blocks(transferred, style, 64),
    }


def reinhard(content: Pixels, style: Pixels) -> Pixels:
    """The content with the style's mean and deviation of each channel of lαβ.

    Reinhard, Ashikhmin, Gooch, Shirley, "Color transfer between images", 2001. As there, lαβ is
    computed from the RGB values as they are.
    """
    mean, deviation = _lab_moments(content)
    goal_mean, goal_deviation = _lab_moments(style)
    # A channel without deviation has nothing to be stretched.
    scale = np.divide(goal_deviation, deviation, out=np.ones(3), where=deviation > 1e-6)
    back = np.linalg.inv(_LMS)
    result = np.empty(content.shape, np.uint8)
    for rows in _bands(content):
        moved = (_lab(content[rows]) - mean) * scale + goal_mean
        # Cones that answer ten times as much as to white are far outside sRGB already.
        cones = np.power(10, (moved @ np.linalg.inv(_LAB).T).clip(-4, 1))
        rgb = cones @ back.T
        result[rows] = _bytes(rgb)
    return result


def idt(content: Pixels, style: Pixels) -> Pixels:
    """The content with the style's distribution of colours, by iterative distribution transfer."""
    table = transfer_table(content, style, iterations=_ITERATIONS)
    result = np.empty(content.shape, np.uint8)
    for rows in _bands(content):
        places = content[rows].reshape(-1, 3).T * np.float32((len(table) - 1) / 255)
        # nearest: should rounding put a place beyond the last lattice point, it is not black.
        looked_up = [
            map_coordinates(table[..., channel], places, order=1, mode="nearest")
            for channel in range(3)
        ]
        result[rows] = _bytes(np.stack(looked_up, axis=-1)).reshape(result[rows].shape)
    return result


def blocks(image: Pixels, style: Pixels, side: int) -> Pixels:
    """Each ``side`` × ``side`` block of the image replaced by the nearest one of the style.

    Blocks are compared by the means of their 4×4 parts. The style's may begin at every fourth pixel
    of both axes, or at every eighth, twelfth … where that would be more than 65,536 blocks. The
    image is mirrored at its right and bottom border up to whole blocks, and cut again.

    Args:
        side: a multiple of 16.

    Raises:
        SincutError: the style is smaller than a block.
    """
    if min(style.shape[:2]) < side:
        raise SincutError(
            f"the style image must have sides of at least {side} pixels for blocks of that side, "
            f"got {style.shape[1]}×{style.shape[0]}; try a larger image"
        )
    height, width = image.shape[:2]
    beyond = ((0, -height % side), (0, -width % side), (0, 0))
    whole = np.pad(image, beyond, mode="symmetric")
    down, across = whole.shape[0] // side, whole.shape[1] // side
    parts = _means(whole, side // _PARTS).reshape(down, _PARTS, across, _PARTS, 3)
    wanted = parts.swapaxes(1, 2).reshape(down * across, -1)

    tops, lefts, candidates = _candidates(style, side)
    result = np.empty_like(whole)
    for index, best in enumerate(_nearest(wanted, candidates)):
        top, left = index // across * side, index % across * side
        from_top, from_left = tops[best], lefts[best]
        result[top : top + side, left : left + side] = style[
            from_top : from_top + side, from_left : from_left + side
        ]
    return result[:height, :width]


def _candidates(
    style: Pixels, side: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Tops, lefts and the (n, 48) means of the parts of the style's blocks."""
    fine = _means(style, _GRID)
    ratio = side // _PARTS // _GRID
    windows = np.lib.stride_tricks.sliding_window_view(fine, (ratio, ratio), axis=(0, 1))
    means = windows.mean(axis=(3, 4))  # of a part that begins there
    rows, columns = (count - (_PARTS - 1) * ratio for count in means.shape[:2])
    step = 1
    while -(-rows // step) * -(-columns // step) > _MOST_CANDIDATES:
        step += 1
    parts = [
        means[i * ratio : i * ratio + rows : step, j * ratio : j * ratio + columns : step]
        for i in range(_PARTS)
        for j in range(_PARTS)
    ]
    places = np.meshgrid(np.arange(0, rows, step), np.arange(0, columns, step), indexing="ij")
    tops, lefts = (each.ravel() * _GRID for each in places)
    return tops, lefts, np.stack(parts, axis=2).reshape(len(tops), -1)


def _nearest(wanted: Floats, candidates: Floats) -> Iterator[int]:
    """For each row of ``wanted`` the index of the nearest row of ``candidates``."""
    # |w − c|² without |w|², which is the same for all candidates of a block.
    squares = np.square(candidates).sum(axis=1)
    count = max(_DISTANCES // len(candidates), 1)
    for start in range(0, len(wanted), count):
        distances = wanted[start : start + count] @ candidates.T
        distances *= -2
        distances += squares
        yield from distances.argmin(axis=1).tolist()


def _means(image: Pixels, side: int) -> Floats:
    """(H // side, W // side, 3) means of squares, in [0, 1]; what is left over is left out."""
    height, width = (length // side for length in image.shape[:2])
    squares = image[: height * side, : width * side].reshape(height, side, width, side, 3)
    means: Floats = squares.mean(axis=(1, 3), dtype=np.float32) / 255
    return means


def _lab(image: Pixels) -> Floats:
    """lαβ of sRGB values; what has no logarithm counts as a quarter of the smallest step."""
    cones = (image.astype(np.float32) / 255) @ _LMS.T
    lab: Floats = np.log10(np.maximum(cones, np.float32(1 / 1020))) @ _LAB.T.astype(np.float32)
    return lab


def _lab_moments(image: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation of each channel of lαβ."""
    total, square = np.zeros(3), np.zeros(3)
    for rows in _bands(image):
        lab = _lab(image[rows]).reshape(-1, 3).astype(np.float64)
        total += lab.sum(axis=0)
        square += np.square(lab).sum(axis=0)
    count = image.shape[0] * image.shape[1]
    mean = total / count
    return mean, np.sqrt(np.maximum(square / count - np.square(mean), 0))


def _bands(image: Pixels) -> Iterator[slice]:
    """Rows of about a million pixels at a time."""
    height, width = image.shape[:2]
    count = max(_BAND // width, 1)
    return (slice(top, top + count) for top in range(0, height, count))


def _bytes(image: npt.NDArray[np.floating]) -> Pixels:
    """[0, 1] to 0 … 255, what lies outside cut off."""
    pixels: Pixels = (image * 255).round().clip(0, 255).astype(np.uint8)
    return pixels
