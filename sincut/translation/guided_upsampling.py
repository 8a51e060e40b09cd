"""The look at the scale it was learned at, the content's detail at its own.

A generator learned its texture on images some hundred or thousand pixels wide. A much larger image
is therefore translated at a *working size*, x_s → y_s, and the change is carried back:

    y = U y_s + (U A) (x − U x_s)

U is interpolation to full size and A a colour matrix per small pixel: how the look answers to a
change of the content's colour there. What y_s shows (colours, strokes) stays as it is; what was too
fine for the working size comes from x, in the look's colours. Halos do not appear where A takes the
step of x_s at an edge to the step of y_s, which is what it is fitted to.

A pixel of y depends on x at that pixel and on the small pair near it, never on a window's
place, so tiles of any size give the same image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Floats = npt.NDArray[np.float32]

# Two box filters of this width make the window, a pyramid of 9 small pixels, that A is fitted in.
_BOX = 5
# Ridge of the fits, in units of the variance they are to explain: where strokes that have nothing
# to do with x_s agree with it by chance, A moves by no more than about 1/(2 √0.3) = 0.9.
_RIDGE = 0.3
# Added to every ridge, so that plain areas have a solution: a deviation of 0.4 of 255.
_TINY = 1e-5
# Terms of the series that undoes the blur of reducing what was interpolated.
_SHARPENINGS = 3
# Rows and columns worked on at a time: the interpolation's matrices stay small and in the cache.
_BLOCK = 64


def working_size(height: int, width: int, working_width: int) -> tuple[int, int]:
    """Rows and columns of an image at a working width; its own where it is not wider than that."""
    if working_width >= width:
        return height, width
    return max(1, round(height * working_width / width)), working_width


class ReducedRows:
    """The mean colour of every small pixel's area, from bands of rows as they are read.

    Args:
        height, width: of the image.
        reduced_height, reduced_width: of the small one, at least 1 and not above the image's.
    """

    def __init__(self, height: int, width: int, reduced_height: int, reduced_width: int) -> None:
        self.rows = _Axis(height, reduced_height)
        self.columns = _Axis(width, reduced_width)
        self.taken = 0
        self.sums = np.zeros((reduced_height, reduced_width, 3))

    def add(self, band: npt.NDArray[Any]) -> None:
        """Take the next rows: (n, width, 3) uint8, uint16, or float32 in [-1, 1].

        Raises:
            ValueError: another shape or type, or more rows than the image has.
        """
        scale = {"uint8": 127.5, "uint16": 32767.5, "float32": None}.get(str(band.dtype), 0)
        if scale == 0 or band.shape[1:] != (self.columns.large, 3):
            raise ValueError(
                f"a band must be (n, {self.columns.large}, 3) uint8, uint16 or float32, "
                f"got {band.shape} {band.dtype}"
            )
        if self.taken + len(band) > self.rows.large:
            raise ValueError(f"the image has {self.rows.large} rows, got {self.taken + len(band)}")
        for start in range(0, len(band), _BLOCK):
            part = band[start : start + _BLOCK]
            values = part.astype(np.float32)
            if scale is not None:
                values = values / np.float32(scale) - 1
            first, weights = self.rows.means(self.taken, self.taken + len(part))
            rows = (weights @ values.reshape(len(part), -1)).reshape(len(weights), -1, 3)
            self.sums[first : first + len(weights)] += self._across(rows)
            self.taken += len(part)

    def result(self) -> Floats:
        """(reduced_height, reduced_width, 3) in [-1, 1].

        Raises:
            ValueError: rows are still missing.
        """
        if self.taken != self.rows.large:
            raise ValueError(f"the image has {self.rows.large} rows, got only {self.taken}")
        return self.sums.astype(np.float32)

    def _across(self, rows: Floats) -> npt.NDArray[np.float64]:
        reduced = np.zeros((len(rows), self.columns.small, 3))
        for start in range(0, self.columns.large, _BLOCK):
            stop = min(start + _BLOCK, self.columns.large)
            first, weights = self.columns.means(start, stop)
            reduced[:, first : first + len(weights)] += weights @ rows[:, start:stop]
        return reduced


class SmallTranslation:
    """Carries the look of a small translation to the full-size image, window by window.

    Memory: 60 bytes per small pixel, and some hundred per pixel of 64 rows of a window.

    Args:
        content: x_s, (3, h, w) float32 in [-1, 1], the full image reduced (:class:`ReducedRows`).
        look: y_s, its translation, of the same shape and on the same device; not clamped.
        height, width: of the full image, not below h and w.

    Raises:
        ValueError: shapes that do not belong together.
    """

    def __init__(self, content: Tensor, look: Tensor, height: int, width: int) -> None:
        if content.shape != look.shape or content.ndim != 3 or len(content) != 3:
            raise ValueError(
                f"content and look must both be (3, h, w), got {tuple(content.shape)} and "
                f"{tuple(look.shape)}"
            )
        self.rows, self.columns = _Axis(height, content.shape[1]), _Axis(width, content.shape[2])
        # U interpolates, so the mean of U y_s over a small pixel is a blurred y_s; U of these
        # two has the means that x_s and y_s have, which keeps the strokes as sharp as they are.
        sharpened = torch.cat([look, content])
        for axis, dimension in ((self.rows, 1), (self.columns, 2)):
            sharpened = axis.sharpened(sharpened, dimension)
        self.planes = torch.cat([sharpened, colour_maps(content, look).flatten(0, 1)])

    def window(self, content: Tensor, top: int, left: int) -> Tensor:
        """The result where ``content``, (3, n, m) float32 in [-1, 1], lies in the full image.

        Returns:
            (3, n, m), about [-1, 1], not clamped.

        Raises:
            ValueError: the window is not inside the image.
        """
        channels, height, width = content.shape
        bottom, right = top + height, left + width
        inside = min(top, left) >= 0 and bottom <= self.rows.large and right <= self.columns.large
        if channels != 3 or not inside:
            raise ValueError(
                f"a window must be (3, n, m) inside {self.rows.large} rows and "
                f"{self.columns.large} columns, got {tuple(content.shape)} at {top}, {left}"
            )
        result = torch.empty_like(content)
        across = []
        for start in range(left, right, _BLOCK):
            first, weights = self.columns.interpolation(start, min(start + _BLOCK, right))
            across.append((first, weights.T.to(self.planes)))
        for start in range(top, bottom, _BLOCK):
            stop = min(start + _BLOCK, bottom)
            first, weights = self.rows.interpolation(start, stop)
            near = self.planes[:, first : first + weights.shape[1]]
            planes = torch.cat([near[:, :, at : at + len(by)] @ by for at, by in across], dim=2)
            planes = weights.to(planes) @ planes
            here = slice(start - top, stop - top)
            detail = content[:, here] - planes[3:6]
            maps = planes[6:].view(3, 3, *planes.shape[1:])
            result[:, here] = maps.mul_(detail).sum(1).add_(planes[:3])
        return result


def colour_maps(content: Tensor, look: Tensor) -> Tensor:
    """How the look answers to a change of the content's colour, around each pixel.

    One matrix for the whole image is fitted first, then in windows what differs from it. Each fit
    is a ridge regression that stays where it was unless the data speak: the first at the identity,
    those in windows at the first. Its ridge is proportional to the variance that no map of the
    whole image explains, so a look that is an affine map of colours is found exactly, and a texture
    that has nothing to do with the content changes little.

    Args:
        content, look: (3, h, w) float32.

    Returns:
        (3, 3, h, w): row i holds the derivatives of the look's channel i.
    """
    content = content - content.mean((1, 2), keepdim=True)
    look = look - look.mean((1, 2), keepdim=True)
    whole = _whole_map(content, look).to(content)
    rest = look - torch.einsum("ij,jhw->ihw", whole, content)
    maps = content.new_empty((3, 3, *content.shape[1:]))
    height, reach = content.shape[1], 2 * (_BOX // 2)
    for start in range(0, height, 4 * _BLOCK):  # in bands: a fit needs 30 planes at a time
        stop = min(start + 4 * _BLOCK, height)
        first = max(start - reach, 0)
        band = slice(first, stop + reach)
        maps[:, :, start:stop] = _window_maps(content[:, band], rest[:, band])[
            :, :, start - first : stop - first
        ]
    return maps.add_(whole[:, :, None, None])


def _whole_map(content: Tensor, look: Tensor) -> Tensor:
    """The (3, 3) float64 matrix that best takes the centred content to the centred look."""
    x, change = content.flatten(1).double(), (look - content).flatten(1).double()
    count = x.shape[1]
    covariance, cross = x @ x.T / count, change @ x.T / count
    identity = torch.eye(3).to(x)
    exact = torch.linalg.solve(covariance + _TINY**2 * identity, cross, left=False)
    unexplained = (change - exact @ x).square().mean()
    ridge = _RIDGE * unexplained + _TINY**2
    change_map: Tensor = torch.linalg.solve(covariance + ridge * identity, cross, left=False)
    return identity + change_map


def _window_maps(content: Tensor, rest: Tensor) -> Tensor:
    """(3, 3, h, w): ridge regression of ``rest`` on ``content`` in the window around each pixel."""
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    x, r = _window_means(content), _window_means(rest)
    products = torch.stack([content[i] * content[j] for i, j in pairs])
    covariance = _window_means(products) - torch.stack([x[i] * x[j] for i, j in pairs])
    cross = _window_means((rest[:, None] * content).flatten(0, 1))
    cross = cross.view(3, 3, *x.shape[1:]) - r[:, None] * x
    unexplained = (_window_means(rest.square()) - r.square()).clamp_min(0).mean(0)
    ridge = _RIDGE * unexplained + _TINY

    # maps · (covariance + ridge) = cross, by the LDLᵀ decomposition, for all pixels at once.
    xx, xy, xz, yy, yz, zz = covariance
    d0 = xx + ridge
    l10, l20 = xy / d0, xz / d0
    d1 = (yy + ridge - l10 * xy).maximum(ridge)
    l21 = (yz - l20 * xy) / d1
    d2 = (zz + ridge - l20 * xz - l21 * l21 * d1).maximum(ridge)
    c0, c1, c2 = cross.unbind(1)
    c1 = c1 - l10 * c0
    c2 = (c2 - l20 * c0 - l21 * c1) / d2
    c1 = c1 / d1 - l21 * c2
    c0 = c0 / d0 - l10 * c1 - l20 * c2
    return torch.stack([c0, c1, c2], dim=1)


def _window_means(planes: Tensor) -> Tensor:
    """Weighted means around each pixel; at the image's border of what there is."""
    for _ in range(2):
        for kernel in ((1, _BOX), (_BOX, 1)):
            padding = (kernel[0] // 2, kernel[1] // 2)
            planes = F.avg_pool2d(planes[None], kernel, 1, padding, count_include_pad=False)[0]
    return planes


class _Axis:
    """One axis: ``large`` pixels laid over ``small`` ones, edge to edge."""

    def __init__(self, large: int, small: int) -> None:
        if not 1 <= small <= large:
            raise ValueError(f"a side of {large} pixels cannot be reduced to {small}")
        self.large, self.small = large, small

    def means(self, start: int, stop: int) -> tuple[int, Floats]:
        """What pixels ``start … stop`` give to the means of the small ones.

        Returns the first small pixel and the weights, (k, stop − start).
        """
        lower, own, next_one = self.shares(start, stop)
        first, last = int(lower[0]), int(lower[-1] + (next_one[-1] > 0))
        weights = np.zeros((last - first + 1, stop - start), np.float32)
        each, over = np.arange(stop - start), next_one > 0
        weights[lower - first, each] = own
        weights[lower[over] - first + 1, each[over]] = next_one[over]
        return first, weights

    def shares(
        self, start: int, stop: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The small pixel that each of ``start … stop`` begins in, and its weight there.

        The third is its weight in the small pixel after that.
        """
        # In units of which a pixel is `small` long and a small pixel `large`: whole numbers.
        places = np.arange(start, stop, dtype=np.int64) * self.small
        lower = places // self.large
        beyond = np.maximum(places + self.small - (lower + 1) * self.large, 0)
        return lower, (self.small - beyond) / self.large, beyond / self.large

    def taps(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The four small pixels that each of ``start … stop`` is interpolated from, and weights.

        Catmull and Rom's cubic; beyond the border the outermost pixel is repeated.
        """
        places = (np.arange(start, stop) + 0.5) * (self.small / self.large) - 0.5
        lower = np.floor(places)
        t = places - lower
        weights = 0.5 * np.stack(
            [
                ((2 - t) * t - 1) * t,
                (3 * t - 5) * t * t + 2,
                ((4 - 3 * t) * t + 1) * t,
                (t - 1) * t * t,
            ],
            axis=1,
        )
        near = lower.astype(np.int64)[:, None] + np.arange(-1, 3)
        return near.clip(0, self.small - 1), weights

    def interpolation(self, start: int, stop: int) -> tuple[int, Tensor]:
        """The same as a matrix: its first small pixel, and (stop − start, k) float32."""
        near, weights = self.taps(start, stop)
        first, last = int(near.min()), int(near.max())
        matrix = np.zeros((stop - start, last - first + 1))
        np.add.at(matrix, (np.arange(stop - start)[:, None], near - first), weights)
        return first, torch.from_numpy(matrix.astype(np.float32))

    def sharpened(self, planes: Tensor, dimension: int) -> Tensor:
        """Small planes whose interpolation, reduced again along ``dimension``, gives ``planes``.

        The series Σ (1 − B)ⁿ for the inverse of B, the blur of interpolating and reducing, cut
        off: where the ratio is little above 1 some of B's values are next to zero.
        """
        reach = 2  # B mixes no pixels further apart, as large ≥ small
        bands = np.zeros((2 * reach + 1, self.small))
        near, weights = self.taps(0, self.large)
        lower, *shares = self.shares(0, self.large)
        for further, share in enumerate(shares):
            counted = share > 0
            row = (lower[counted] + further)[:, None]
            column = near[counted]
            np.add.at(bands, (column - row + reach, row), share[counted, None] * weights[counted])
        shape = [-1 if axis == dimension else 1 for axis in range(planes.ndim)]
        result = planes
        for _ in range(_SHARPENINGS):
            blurred = torch.zeros_like(planes)
            for offset, band in enumerate(bands, start=-reach):
                near = np.arange(self.small) + offset
                index = torch.from_numpy(near.clip(0, self.small - 1)).to(planes.device)
                weight = torch.from_numpy(band).to(planes).view(shape)
                blurred += result.index_select(dimension, index) * weight
            result = planes + result - blurred
        return result
