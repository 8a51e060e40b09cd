"""KID and FID: known values, independent computations, no bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import sqrtm

from sincut.evaluation import set_distances
from sincut.evaluation.set_distances import Measured, frechet_distance, kernel_distance

Floats = npt.NDArray[np.float64]


def gaussian(seed: int, count: int, mean: float = 0.0, dimensions: int = 8) -> Floats:
    return np.random.default_rng(seed).normal(mean, 1, (count, dimensions))


def exactly_white(count: int) -> Floats:
    """Features with mean 0 and covariance 1, without chance."""
    centred = gaussian(0, count, dimensions=3)
    centred -= centred.mean(axis=0)
    return centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred.T))).T


def test_kid_by_hand() -> None:
    ours, theirs = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    # (0·1 + 1)³ + (2·3 + 1)³ − 2 · mean of 1, 1, (1·2 + 1)³, (1·3 + 1)³
    assert kernel_distance(ours, theirs) == Measured(1 + 343 - 2 * 93 / 4, None)
    # With two dimensions the product is halved.
    doubled = [np.repeat(each, 2, axis=1) for each in (ours, theirs)]
    assert kernel_distance(*doubled).mean == pytest.approx(1 + 343 - 2 * 93 / 4)


def test_kid_is_unbiased_for_few_images() -> None:
    """Of two sets of one origin; with images compared with themselves it would be far from 0."""
    values = [
        kernel_distance(gaussian(seed, 5), gaussian(1000 + seed, 6)).mean for seed in range(300)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    one = gaussian(0, 5)
    itself = set_distances._kernel(one, one).trace() / 25
    assert itself > 10 * error


def test_kid_and_its_error() -> None:
    """The deviation over halves is about what other images would change."""
    found = [
        kernel_distance(gaussian(seed, 40), gaussian(1000 + seed, 60, mean=0.5))
        for seed in range(40)
    ]
    means, stds = zip(*((each.mean, each.std) for each in found), strict=True)
    assert np.mean(means) > 2 * np.std(means)
    assert 0.6 < np.mean(stds) / np.std(means) < 1.6
    assert kernel_distance(gaussian(0, 40), gaussian(1, 60)) == kernel_distance(
        gaussian(0, 40), gaussian(1, 60)
    )


def test_kid_of_many_images_takes_some(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    kernel = set_distances._kernel

    def recorded(ours: Floats, theirs: Floats) -> Floats:
        shapes.append((len(ours), len(theirs)))
        return np.asarray(kernel(ours, theirs))

    monkeypatch.setattr(set_distances, "_kernel", recorded)
    monkeypatch.setattr(set_distances, "MOST_IMAGES", 20)
    found = kernel_distance(gaussian(0, 50), gaussian(1, 12))
    assert shapes == [(20, 20), (12, 12), (20, 12)]
    assert abs(found.mean) < 5 * (found.std or 0)


def test_fid_of_known_gaussians() -> None:
    white = exactly_white(50)
    ours, theirs = white * [1, 2, 3], exactly_white(70) * [4, 4, 3] + [1, 0, 2]
    assert frechet_distance(ours, theirs) == pytest.approx(1 + 4 + (9 + 4 + 0))
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(ours, ours + 2) == pytest.approx(3 * 4)


def test_fid_against_the_root_of_a_matrix() -> None:
    mix = gaussian(2, 8)
    ours, theirs = gaussian(0, 100) @ mix, gaussian(1, 90, mean=0.3)
    covariances = [np.cov(each.T) for each in (ours, theirs)]
    expected = (
        np.square(ours.mean(axis=0) - theirs.mean(axis=0)).sum()
        + np.trace(covariances[0] + covariances[1])
        - 2 * np.trace(sqrtm(covariances[0] @ covariances[1])).real
    )
    assert frechet_distance(ours, theirs) == pytest.approx(expected)
    assert frechet_distance(theirs, ours) == pytest.approx(expected)


def test_fid_of_fewer_images_than_features() -> None:
    ours, theirs = gaussian(0, 5, dimensions=30), gaussian(1, 7, dimensions=30)
    covariances = [np.cov(each.T) for each in (ours, theirs)]
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real
    expected = (
        np.square(ours.mean(axis=0) - theirs.mean(axis=0)).sum()
        + np.trace(covariances[0] + covariances[1])
        - 2 * np.sqrt(eigenvalues[eigenvalues > 1e-9]).sum()
    )
    assert frechet_distance(ours.astype(np.float32), theirs) == pytest.approx(expected, rel=1e-5)
