"""How far apart two sets of images are, by the features of a network. No torch.

Features are (n, d) arrays, a row for each image, of as many images of one set as there are rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating]

FEWEST_IMAGES = 4  # of a set: two halves of two images are the least that can be compared
MOST_IMAGES = 2000  # whose kernels KID holds at once: the halves are its authors' 1000 then
_SUBSETS = 100  # as in the code of KID's authors


@dataclass(frozen=True)
class Measured:
    """A value and, where that is known, its standard deviation: over images, or by chance."""

    mean: float
    std: float | None = None


def kernel_distance(ours: Features, theirs: Features) -> Measured:
    """KID: the squared maximum mean discrepancy of two sets, with the kernel (x·y / d + 1)³.

    It is unbiased, so around 0, and at times below it, for sets of one origin, however few. The
    standard deviation is over 100 random halves of both sets, which comes near the error of the
    whole; there is none for fewer than 4 images. Of more than 2000 images, random 2000 are taken.

    Source: Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018.

    Args:
        ours, theirs: features of at least 2 images each.
    """
    random = np.random.RandomState(0)
    ours, theirs = (
        each[random.permutation(len(each))[:MOST_IMAGES]].astype(np.float64)
        for each in (ours, theirs)
    )
    kernels = _kernel(ours, ours), _kernel(theirs, theirs), _kernel(ours, theirs)
    mean = _discrepancy(*kernels)
    if min(len(ours), len(theirs)) < FEWEST_IMAGES:
        return Measured(mean)
    values = []
    for _ in range(_SUBSETS):
        a, b = (random.permutation(len(each))[: len(each) // 2] for each in (ours, theirs))
        chosen = zip(kernels, ((a, a), (b, b), (a, b)), strict=True)
        values.append(_discrepancy(*(kernel[np.ix_(*places)] for kernel, places in chosen)))
    return Measured(mean, float(np.std(values)))


def _kernel(ours: Features, theirs: Features) -> Features:
    """(n, m) values of the kernel."""
    values: Features = (ours @ theirs.T / ours.shape[1] + 1) ** 3
    return values


def _discrepancy(within_a: Features, within_b: Features, between: Features) -> float:
    """The unbiased estimate: an image is not compared with itself."""
    result = -2 * between.mean()
    for within in (within_a, within_b):
        count = len(within)
        result += (within.sum() - within.trace()) / (count * (count - 1))
    return float(result)


def frechet_distance(ours: Features, theirs: Features) -> float:
    """FID: the Fréchet distance of two Gaussians with the sets' means and covariances.

    |μ − ν|² + tr Σ + tr T − 2 tr (Σ T)^½. With centred features X and Y, so that Σ is proportional
    to Xᵀ X and T to Yᵀ Y, the last trace is the sum of the singular values of X Yᵀ: no root of a
    matrix is taken, which fails where there are fewer images than features. Few images make it
    large: it is biased upwards, the more the fewer there are.

    Source: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs Trained by a Two Time-Scale
    Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.

    Args:
        ours, theirs: features of at least 2 images each.
    """
    means = [each.mean(axis=0, dtype=np.float64) for each in (ours, theirs)]
    # The triangle of a QR decomposition has the same Xᵀ X, and never more rows than features.
    x, y = (
        np.asarray(np.linalg.qr((each - mean) / np.sqrt(len(each) - 1), mode="r"))
        for each, mean in zip((ours, theirs), means, strict=True)
    )
    traces = np.square(x).sum() + np.square(y).sum()
    root = np.linalg.norm(x @ y.T, "nuc")
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * root)
