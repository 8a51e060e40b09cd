"""Figures for a translation that need no pretrained network. No torch.

Appearance compares the output with the style image, wherever things lie (lower is better):

- **S1**, colour: sliced Wasserstein distance of single pixels, over a pyramid.
- **S2**, texture: the same of whitened 7×7 patches without their mean colour.
- **S3**, two-sample test: how well a linear classifier tells cells of 32 pixels of the output from
  cells of the style by the strength of their textures; area under the ROC curve, 0.5 = not at all.
- **S4**, strokes: how differently shaped patches are that span 14, 28 and 56 pixels, whatever
  their colour; a thousand times the squared maximum mean discrepancy (:class:`_Strokes`).

Structure compares the output with the content, place by place (higher is better):

- **C1**: correlation of edge strength.
- **C2**: correlation of self-similarity: which places of an image look like which others.

None says enough alone. S1 is won by any colour table, C1 and C2 by copying the content; S3 is
fooled by noise, which S2 catches; S4 does not see what is finer than its patches. All are
deterministic. Images are (H, W, 3) uint8 sRGB at the size they are; the style is never resized.

Whatever is worked out of a whole image is worked out in parts, so that besides the image in float32
only a few single-channel arrays of its size exist at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, sobel
from scipy.stats import rankdata

from sincut.errors import SincutError
from sincut.translation.tiling import reflected

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SMALLEST_SIDE = 128  # pixels: below it the coarsest textures have no four folds of cells to test on

_PATCH = 7
_PATCHES = 16_384
_COMPONENTS = 24
_FLOOR_SPLITS = 7
_STROKES = 4096  # patches of S4
_SOFTNESS = 0.5
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Figures:
    """What :meth:`Comparison.figures` measures. ``S2_ratio`` is S2 over the style's own floor."""

    S1: float
    S2: float
    S2_ratio: float
    S3: float
    S4: float
    C1: float
    C2: float


class Comparison:
    """Compares outputs with one content and one style image, whose side is worked out once.

    Args:
        content: the image the structure came from.
        style: the image the look came from.

    Raises:
        SincutError: an image is too small to be measured, or the style has no texture at all.
    """

    def __init__(self, content: Pixels, style: Pixels) -> None:
        for name, image in (("content", content), ("style", style)):
            if min(image.shape[:2]) < SMALLEST_SIDE:
                raise SincutError(
                    f"the {name} image must have sides of at least {SMALLEST_SIDE} pixels to be "
                    f"measured, got {image.shape[1]}×{image.shape[0]}; try a larger image"
                )
        self.content_shape = content.shape
        unit = _unit(content)
        self._edges = list(_edge_strengths(unit))
        self._distances = _self_distances(unit)
        del unit

        pyramid = list(_pyramid(_unit(style), 4))
        self._colours = [_projected_pixels(image, level) for level, image in enumerate(pyramid[:3])]
        self._textures = [_Texture(image, level) for level, image in enumerate(pyramid)]
        self._strokes = [_Strokes(pyramid[level], level) for level in (1, 2, 3)]
        self._cells = self._cell_features(pyramid)
        self.floor = self._texture_floor(pyramid)

    def figures(self, output: Pixels) -> Figures:
        """The figures of one output, of the content's size."""
        if output.shape != self.content_shape:
            height, width = self.content_shape[:2]
            raise SincutError(
                f"an output must have the content's size, {width}×{height} pixels, got "
                f"{output.shape[1]}×{output.shape[0]}; resize it to that size first"
            )
        pyramid = list(_pyramid(_unit(output), 4))
        colour = [
            _wasserstein(_projected_pixels(image, level), self._colours[level])
            for level, image in enumerate(pyramid[:3])
        ]
        s2 = self._texture_distance(pyramid)
        return Figures(
            S1=float(np.mean(colour)),
            S2=s2,
            S2_ratio=s2 / self.floor,
            S3=_two_sample(self._cell_features(pyramid), self._cells),
            S4=1e3
            * float(np.mean([each.discrepancy(pyramid[each.level]) for each in self._strokes])),
            C1=_edge_correlation(_edge_strengths(pyramid[0]), self._edges),
            C2=_correlation(_self_distances(pyramid[0]), self._distances),
        )

    def texture_distance(self, image: Pixels) -> float:
        """S2 alone, of an image of any size from :data:`SMALLEST_SIDE`."""
        return self._texture_distance(list(_pyramid(_unit(image), 4)))

    def _texture_distance(self, pyramid: list[Floats]) -> float:
        pairs = zip(self._textures, pyramid, strict=True)
        return float(np.mean([texture.distance(image) for texture, image in pairs]))

    def _cell_features(self, pyramid: list[Floats]) -> Floats:
        """(cells, 144): log mean |r| and log mean r² of texture responses, over three levels."""
        height, width = (side // 32 for side in pyramid[0].shape[:2])
        features = []
        for texture, image, step, cell in zip(
            self._textures, pyramid, (2, 1, 1), (16, 16, 8), strict=False
        ):
            absolute, square = texture.cell_means(image, step, cell, height, width)
            features += [np.log(absolute + 1e-3), np.log(square + 1e-4)]
        return np.concatenate(features, axis=2).reshape(height * width, -1)

    def _texture_floor(self, pyramid: list[Floats]) -> float:
        """S2 between two random halves of the style's own 64-pixel blocks, the median of some."""
        height, width = (side // 64 for side in pyramid[0].shape[:2])
        random = np.random.RandomState(1)
        splits = []
        for _ in range(_FLOOR_SPLITS):
            blocks = random.permutation(height * width)
            halves = np.array_split(blocks, 2)
            splits.append(
                np.mean(
                    [
                        texture.distance_of_blocks(image, 64 >> level, width, halves, random)
                        for level, (texture, image) in enumerate(
                            zip(self._textures, pyramid, strict=True)
                        )
                    ]
                )
            )
        return float(np.median(splits))


class _Texture:
    """The style's texture at one level: how its patches are whitened, and where they lie then."""

    def __init__(self, style: Floats, level: int) -> None:
        self.level = level
        random = np.random.RandomState(100 + level)
        patches = _random_patches(style, random)
        covariance = np.cov(patches.T.astype(np.float64))
        variances, vectors = np.linalg.eigh(covariance)
        # A deviation of a hundred-thousandth is rounding, and dividing by it would measure that.
        if variances[-1] < 1e-10:
            raise SincutError(
                "the style image must have texture to be measured, got one colour everywhere at "
                f"1/{2**level} of its size; try another style"
            )
        kept = variances > 1e-6 * variances[-1]
        scale = (variances[kept] + 1e-3 * variances[-1]) ** -0.5
        self.whitening = (vectors[:, kept] * scale).astype(np.float32)
        self.directions = _directions(random, self.whitening.shape[1], 256)
        self.style = self._project(patches)

    def distance(self, image: Floats) -> float:
        """The sliced distance of an image's patches to the style's."""
        patches = _random_patches(image, np.random.RandomState(7 + self.level))
        return _wasserstein(self._project(patches), self.style)

    def distance_of_blocks(
        self,
        image: Floats,
        side: int,
        columns: int,
        halves: list[npt.NDArray[np.int64]],
        random: np.random.RandomState,
    ) -> float:
        """The distance between patches from two sets of blocks of ``image``."""
        projected = []
        for blocks in halves:
            chosen = blocks[random.randint(0, len(blocks), _PATCHES)]
            inside = random.randint(0, side - _PATCH + 1, (2, _PATCHES))
            rows, lefts = chosen // columns * side + inside[0], chosen % columns * side + inside[1]
            projected.append(self._project(_patches_at(image, rows, lefts)))
        return _wasserstein(projected[0], projected[1])

    def cell_means(
        self, image: Floats, step: int, cell: int, height: int, width: int
    ) -> tuple[Floats, Floats]:
        """Mean |r| and mean r² of the strongest responses over cells, each (height, width, 24).

        The third number is less where the style's patches span fewer dimensions.
        """
        # eigh sorts the variances upwards: the last are the largest.
        filters = self.whitening[:, -_COMPONENTS:]
        absolute = np.empty((height, width, filters.shape[1]), np.float32)
        square = np.empty_like(absolute)
        # A response at x sees x − 3 … x + 3; beyond the image lies its mirror.
        side, reach = cell * step, _PATCH // 2
        across = reflected(-reach, width * side + reach, image.shape[1])

        def measure(row: int) -> None:
            down = reflected(row * side - reach, (row + 1) * side + reach, image.shape[0])
            band = image[np.ix_(down, across)]
            windows = np.lib.stride_tricks.sliding_window_view(band, (_PATCH, _PATCH), axis=(0, 1))
            windows = windows[::step, ::step].transpose(0, 1, 3, 4, 2)
            patches = _without_mean(windows.reshape(-1, _PATCH * _PATCH * 3))
            responses = (patches @ filters).reshape(-1, width, cell, filters.shape[1])
            absolute[row] = np.abs(responses).mean(axis=(0, 2))
            square[row] = np.square(responses).mean(axis=(0, 2))

        _in_threads(measure, height)
        return absolute, square

    def _project(self, patches: Floats) -> Floats:
        """(256, quantiles) of (n, 147) patches, whitened, along the random directions."""
        return _quantiles(patches, self.whitening @ self.directions)


class _Strokes:
    """The shapes in the style's patches at one level of the pyramid, and how far others' are away.

    A patch p without its channels' means becomes p / √(|p|² + ε), ε half the median of the style's
    |p|². So it says which way and how wide light and dark lie in it, and much less how strong they
    are; where there is hardly anything it is small. Two sets of such shapes are compared by an
    unbiased estimate of the squared maximum mean discrepancy (Gretton et al., "A kernel two-sample
    test", 2012) with the kernel exp(4 (p·q − 1)).
    """

    def __init__(self, style: Floats, level: int) -> None:
        self.level = level
        patches = _random_patches(style, np.random.RandomState(100 + level), _STROKES)
        self.softness = _SOFTNESS * float(np.median(np.square(patches).sum(axis=1)))
        self.shapes = self._shapes(patches)
        self.alike = _likeness(self.shapes)

    def discrepancy(self, image: Floats) -> float:
        """The squared discrepancy of an image's shapes to the style's; about 0 where there is none,
        and by chance a little below."""
        patches = _random_patches(image, np.random.RandomState(7 + self.level), _STROKES)
        shapes = self._shapes(patches)
        between = float(np.mean(_kernel(shapes, self.shapes), dtype=np.float64))
        return _likeness(shapes) + self.alike - 2 * between

    def _shapes(self, patches: Floats) -> Floats:
        lengths = np.sqrt(np.square(patches).sum(axis=1, keepdims=True) + np.float32(self.softness))
        # Without any texture in style and image all shapes are nothing.
        shapes: Floats = patches / np.maximum(lengths, np.float32(1e-12))
        return shapes


def _kernel(a: Floats, b: Floats) -> Floats:
    similarity: Floats = np.exp(4 * (a @ b.T - 1))
    return similarity


def _likeness(shapes: Floats) -> float:
    """The kernel's mean over pairs of different shapes."""
    count = len(shapes)
    own = np.exp(4 * (np.square(shapes).sum(axis=1) - 1)).sum(dtype=np.float64)
    return float((_kernel(shapes, shapes).sum(dtype=np.float64) - own) / (count * (count - 1)))


def _unit(image: Pixels) -> Floats:
    return image.astype(np.float32) / np.float32(255)


def _pyramid(image: Floats, levels: int) -> Iterator[Floats]:
    """The image, then each time blurred with σ = 1 and every second pixel of it."""
    yield image
    for _ in range(levels - 1):
        height, width = (-(-side // 2) for side in image.shape[:2])
        smaller = np.empty((height, width, 3), np.float32)
        for channel in range(3):
            smaller[..., channel] = gaussian_filter(image[..., channel], 1)[::2, ::2]
        image = smaller
        yield image


def _directions(random: np.random.RandomState, dimensions: int, count: int) -> Floats:
    """(dimensions, count) random directions of length 1."""
    directions = random.randn(dimensions, count)
    unit: Floats = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
    return unit


def _projected_pixels(image: Floats, level: int) -> Floats:
    """(128, quantiles): the image's colours along random directions."""
    return _quantiles(image.reshape(-1, 3), _directions(np.random.RandomState(level), 3, 128))


def _quantiles(points: Floats, directions: Floats) -> Floats:
    """(k, 2048) evenly spaced quantiles of (n, d) points along the columns of (d, k) directions."""
    places = np.floor((np.arange(2048) + 0.5) / 2048 * len(points)).astype(np.int64)
    result = np.empty((directions.shape[1], 2048), np.float32)
    group = max(2**22 // len(points), 1)  # directions at a time: as many as the cache likes

    def measure(index: int) -> None:
        some = slice(index * group, (index + 1) * group)
        projected = directions[:, some].T @ points.T
        projected.sort(axis=1)
        result[some] = projected[:, places]

    _in_threads(measure, -(-len(result) // group))
    return result


def _wasserstein(ours: Floats, theirs: Floats) -> float:
    """Mean distance of two sets of sorted projections."""
    return float(np.abs(ours - theirs).mean(dtype=np.float64))


def _random_patches(image: Floats, random: np.random.RandomState, count: int = _PATCHES) -> Floats:
    """(count, 147): random 7×7 patches without the mean of each channel."""
    height, width = (side - _PATCH + 1 for side in image.shape[:2])
    tops, lefts = random.randint(0, height, count), random.randint(0, width, count)
    return _patches_at(image, tops, lefts)


def _patches_at(image: Floats, tops: npt.NDArray[np.int64], lefts: npt.NDArray[np.int64]) -> Floats:
    windows = np.lib.stride_tricks.sliding_window_view(image, (_PATCH, _PATCH), axis=(0, 1))
    return _without_mean(windows[tops, lefts].transpose(0, 2, 3, 1).reshape(len(tops), -1))


def _without_mean(patches: Floats) -> Floats:
    """(n, 7·7·3) without each channel's mean over its patch."""
    channels = patches.reshape(len(patches), -1, 3)
    centred: Floats = channels - channels.mean(axis=1, keepdims=True)
    return centred.reshape(len(patches), -1)


def _two_sample(output: Floats, style: Floats) -> float:
    """Area under the ROC curve of a shrunk linear discriminant, mean of four spatial folds."""
    both = np.concatenate([output, style]).astype(np.float64)
    mean, deviation = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-12)
    classes = [(cells - mean) / deviation for cells in (output, style)]
    folds = [np.arange(len(cells)) * 4 // len(cells) for cells in classes]
    areas = []
    for fold in range(4):
        train = [cells[at != fold] for cells, at in zip(classes, folds, strict=True)]
        within = np.mean([np.cov(cells.T) for cells in train], axis=0)
        weights = np.linalg.solve(
            within + 0.1 * np.eye(len(within)), train[0].mean(axis=0) - train[1].mean(axis=0)
        )
        scores = [cells[at == fold] @ weights for cells, at in zip(classes, folds, strict=True)]
        areas.append(_roc_area(*scores))
    return float(np.mean(areas))


def _roc_area(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> float:
    """The probability that a positive score is above a negative one; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    above = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def edge_correlation(ours: Pixels, theirs: Pixels) -> float:
    """C1 alone, of two images of one size."""
    return _edge_correlation(_edge_strengths(_unit(ours)), _edge_strengths(_unit(theirs)))


def layout_correlation(ours: Pixels, theirs: Pixels) -> float:
    """C2 alone, of two images of one size."""
    return _correlation(_self_distances(_unit(ours)), _self_distances(_unit(theirs)))


def _edge_correlation(ours: Iterable[Floats], theirs: Iterable[Floats]) -> float:
    return float(np.mean([_correlation(a, b) for a, b in zip(ours, theirs, strict=True)]))


def _edge_strengths(image: Floats) -> Iterator[Floats]:
    """(H, W) Sobel magnitude of luma at two scales."""
    luma = image @ _LUMA
    for sigma in (4, 8):
        blurred = gaussian_filter(luma, sigma)
        down, across = sobel(blurred, 0), sobel(blurred, 1)
        del blurred
        yield np.hypot(down, across, out=down)


def _self_distances(image: Floats) -> npt.NDArray[np.float64]:
    """How different each two of 24×24 places are, by local colour and its deviation."""
    height, width = image.shape[:2]
    rows, columns = (((np.arange(24) + 0.5) * side / 24).astype(int) for side in (height, width))
    numbers = []
    for sigma in (2, 4, 8):
        mean, square = _local_moments(image, sigma, rows, columns)
        numbers += [mean, np.sqrt(np.maximum(square - np.square(mean), 0))]
    points = np.concatenate(numbers, axis=2).reshape(24 * 24, -1)
    points = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-12)
    squares = np.square(points).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    distances = distances / np.maximum(distances.sum(axis=0), 1e-12)
    upper: npt.NDArray[np.float64] = distances[np.triu_indices(len(distances), 1)]
    return upper


def _local_moments(
    image: Floats,
    sigma: int,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gaussian means of colours and their squares at ``rows`` × ``columns``, (rows, columns, 3).

    What ``scipy.ndimage.gaussian_filter`` gives there, without filtering the whole image.
    """
    reach = 4 * sigma
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * np.square(offsets / sigma))
    weights /= weights.sum()
    # Its mirror stands outside the outermost pixel: … 1 0 0 1 …
    down, across = (
        np.pad(np.arange(side), reach, mode="symmetric")[places[:, None] + reach + offsets]
        for side, places in zip(image.shape[:2], (rows, columns), strict=True)
    )
    moments = []
    for power in (1, 2):
        bands = np.stack([np.tensordot(weights, image[band] ** power, 1) for band in down])
        moments.append(np.einsum("w,rcwk->rck", weights, bands[:, across]))
    return moments[0], moments[1]


def _correlation(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Pearson's; 0 where one of the two is constant."""
    a, b = a.ravel(), b.ravel()
    mean_a, mean_b = (each.mean(dtype=np.float64) for each in (a, b))
    products = np.zeros(3)
    for start in range(0, len(a), 2**20):
        part_a = a[start : start + 2**20] - mean_a
        part_b = b[start : start + 2**20] - mean_b
        products += part_a @ part_b, part_a @ part_a, part_b @ part_b
    length = np.sqrt(products[1] * products[2])
    return float(products[0] / length) if length > 0 else 0.0


def _in_threads(call: Callable[[int], None], count: int) -> None:
    """``call(0) … call(count − 1)``; numpy lets go of the interpreter's lock while it sorts."""
    # Each thread holds an array of the image's size, so not as many as a large machine could run.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(call, range(count)))
