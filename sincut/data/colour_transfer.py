"""Colour transfer between two images, without their content. No torch.

:func:`affine_transfer` is the linear Monge-Kantorovich map (Pitié, Kokaram, "The linear
Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007): of all
affine maps that give the content's colours the mean and covariance of the style's, the one that
moves them least.

:func:`transfer_table` is iterative distribution transfer (Pitié, Kokaram, Dahyot, "N-dimensional
probability density function transfer", ICCV 2005): rotate the colours at random, match the three
one-dimensional distributions by their quantiles, rotate back, repeat.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SAMPLES = 65_536
_QUANTILES = np.linspace(0, 1, 512)
_BLUR = (4 / 127.5) ** 2
_BAND = 2**20  # pixels worked on at a time


def transfer_table(
    content: npt.NDArray[np.uint8],
    style: npt.NDArray[np.uint8],
    *,
    size: int = 33,
    seed: int = 0,
    iterations: int = 24,
) -> npt.NDArray[np.float32]:
    """A colour table that gives ``content`` the colours of ``style``.

    The transfer is learned on a random sample of both images' pixels and evaluated on a lattice of
    colours, so its cost does not depend on the images' size and applying it is one interpolation.

    Args:
        content, style: (H, W, 3) sRGB.
        size: lattice points per axis.
        iterations: random rotations; more of them give a smoother table.

    Returns:
        (size, size, size, 3) sRGB in [0, 1], indexed by red, green, blue of the input.
    """
    random = np.random.default_rng(seed)
    source, target = (_sample(image, random) for image in (content, style))
    axis = np.linspace(0, 1, size)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    moved = np.concatenate([source, lattice])
    for _ in range(iterations):
        rotation = np.linalg.qr(random.standard_normal((3, 3)))[0]
        turned, goal = moved @ rotation, target @ rotation
        for channel in range(3):
            ours = _quantiles(turned[: len(source), channel])
            theirs = _quantiles(goal[:, channel])
            turned[:, channel] = np.interp(turned[:, channel], ours, theirs)
        moved = turned @ rotation.T
    table = moved[len(source) :].clip(0, 1).reshape(size, size, size, 3)
    return table.astype(np.float32)


def affine_transfer(
    content: npt.NDArray[np.uint8], style: npt.NDArray[np.uint8], *, stretch: float = 1.0
) -> tuple[Floats, Floats]:
    """The matrix (3, 3) and offset (3,) that move colours in [-1, 1] from content to style.

    ``content`` and ``style`` are (H, W, 3) uint8 sRGB. Both are taken to vary by 4 of 255 more than
    they do, in every direction: the little that the colours of a drawing or a grey image vary
    across their main axis is noise, and must not be stretched to the style's full width.

    Args:
        stretch: where the content varies less than the style, how far it goes towards it; 0 … 1.
    """
    (mean, ours), (target_mean, theirs) = (_moments(image) for image in (content, style))
    root, inverse = _power(ours, 0.5), _power(ours, -0.5)
    matrix = inverse @ _power(root @ theirs @ root, 0.5) @ inverse  # symmetric
    if stretch < 1:
        factors, directions = np.linalg.eigh(matrix)
        kept = np.where(factors > 1, 1 + stretch * (factors - 1), factors)
        matrix = (directions * kept) @ directions.T
    return matrix, target_mean - matrix @ mean


def _moments(image: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Mean (3,) and widened covariance (3, 3) of an image's colours in [-1, 1]."""
    pixels = image.reshape(-1, 3)
    total, products = np.zeros(3), np.zeros((3, 3))
    for start in range(0, len(pixels), _BAND):
        band = pixels[start : start + _BAND] / 127.5 - 1
        total += band.sum(axis=0)
        products += band.T @ band
    mean = total / len(pixels)
    return mean, products / len(pixels) - np.outer(mean, mean) + _BLUR * np.eye(3)


def _power(matrix: Floats, exponent: float) -> Floats:
    """A power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    power: Floats = (vectors * values**exponent) @ vectors.T
    return power


def _quantiles(values: Floats) -> Floats:
    """Evenly spaced quantiles; sorting is faster than numpy's own search for so many of them."""
    ordered = np.sort(values)
    places = _QUANTILES * (len(ordered) - 1)
    below = np.minimum(places.astype(np.intp), len(ordered) - 2)
    share = places - below
    found: Floats = ordered[below] * (1 - share) + ordered[below + 1] * share
    return found


def _sample(image: npt.NDArray[np.uint8], random: np.random.Generator) -> Floats:
    """Random pixels of an image, (n, 3) in [0, 1]."""
    pixels = image.reshape(-1, 3)
    chosen: Floats = pixels[random.integers(len(pixels), size=_SAMPLES)] / 255.0
    return chosen
