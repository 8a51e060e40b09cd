"""Colour transfer between two images, without their content. No torch.

Iterative distribution transfer (Pitié, Kokaram, Dahyot, "N-dimensional probability density function
transfer", ICCV 2005): rotate the colours at random, match the three one-dimensional distributions
by their quantiles, rotate back, repeat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SAMPLES = 65_536
_ITERATIONS = 24
_QUANTILES = np.linspace(0, 1, 512)


def transfer_table(
    content: npt.NDArray[np.uint8], style: npt.NDArray[np.uint8], *, size: int = 33, seed: int = 0
) -> npt.NDArray[np.float32]:
    """A colour table that gives ``content`` the colours of ``style``.

    The transfer is learned on a random sample of both images' pixels and evaluated on a lattice of
    colours, so its cost does not depend on the images' size and applying it is one interpolation.

    Args:
        content, style: (H, W, 3) sRGB.
        size: lattice points per axis.

    Returns:
        (size, size, size, 3) sRGB in [0, 1], indexed by red, green, blue of the input.
    """
    random = np.random.default_rng(seed)
    source, target = (_sample(image, random) for image in (content, style))
    axis = np.linspace(0, 1, size)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    moved = np.concatenate([source, lattice])
    for _ in range(_ITERATIONS):
        rotation = np.linalg.qr(random.standard_normal((3, 3)))[0]
        turned, goal = moved @ rotation, target @ rotation
        for channel in range(3):
            ours = np.quantile(turned[: len(source), channel], _QUANTILES)
            theirs = np.quantile(goal[:, channel], _QUANTILES)
            turned[:, channel] = np.interp(turned[:, channel], ours, theirs)
        moved = turned @ rotation.T
    table = moved[len(source) :].clip(0, 1).reshape(size, size, size, 3)
    return table.astype(np.float32)


def _sample(image: npt.NDArray[np.uint8], random: np.random.Generator) -> Floats:
    """Random pixels of an image, (n, 3) in [0, 1]."""
    pixels = image.reshape(-1, 3)
    chosen: Floats = pixels[random.integers(len(pixels), size=_SAMPLES)] / 255.0
    return chosen
