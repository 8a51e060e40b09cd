"""What PatchNCE sees: similarities of a point of the output to the input, principal components of
the features, and how often the right place is recognised (the analyses of the CUT paper).

x is the image, ŷ = G(x); E_l are the features of encoder layer l, H_l its projection head, and rows
are L2-normalised. Everything is computed tile by tile, in two passes over both images: the first
takes the features at the query points and at places sampled from the whole image, the second fills
the maps. Projected features, hundreds of numbers for every place, are never held for a whole image.

A *place* of layer l is what one feature stands for: a square of ``stride`` pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from scipy.special import gammaln
from torch import Tensor, nn

from sincut import __version__
from sincut.checkpoint import Model, load_model
from sincut.config import Config, TrainConfig, TranslateConfig, option
from sincut.devices import chosen_device, convolutions, limit_threads
from sincut.engine import as_network, plan_tiles, translate_tile, window_of
from sincut.errors import SincutError
from sincut.files.images import Pixels, file_digest
from sincut.files.sources import read_picture
from sincut.networks import Generator, PatchProjector
from sincut.tiling import Tile

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Point = tuple[int, int]
OnProgress = Callable[[str, int, int], None]

NEGATIVES = (15, 63, 255, 1023)
MOST_POINTS = 32  # of one page
_SAMPLE = 4096  # places of a layer, for PCA and for the accuracy
_TIED = 1e-6  # cosines so near to each other are told apart by rounding errors alone
_ROWS = 16_384  # projected at a time: 16 MB at a width of 256
_SHOWN = (2.0, 98.0)  # percentiles of a principal component that become 0 and 1


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Config):
    """How to inspect."""

    width: int = option(
        2048,
        "longest side of the pictures in pixels; smaller images keep their size",
        low=64,
        high=16_384,
    )
    seed: int = option(0, "seed of the places that are sampled", low=0, high=2**63 - 1)


@dataclass(frozen=True)
class Match:
    """A query point of the output in one layer, against every place of the input.

    ``similarity`` is q·k⁺, the cosine with the right place, and ``best`` the largest of all.
    ``rank`` is 1 where no place is more similar than the right one; ``ties`` counts the other
    places that are as similar, to 1e-6. The best place is the right one where it is among the
    best; ``x, y`` is the pixel that lies in it as the query does in its own, and ``distance`` how
    many pixels it is away.
    """

    x: int
    y: int
    distance: float
    similarity: float
    best: float
    rank: int
    ties: int


@dataclass(frozen=True)
class LayerFindings:
    """What was found in one encoder layer.

    ``places`` are the rows and columns of its features, of ``stride`` pixels each.
    ``similarities`` (P, h, w) holds for every query point exp((q·k − max)/τ), in [0, 1] and 1 at
    the best place; where a map is smaller than the layer, an entry is the largest of what it stands
    for. ``components`` are (h, w, 3) in [0, 1]: the first three principal components of the
    features by ``encoder`` or ``projected`` and ``input`` or ``output``; entries of smaller ones
    are means. ``variance`` are the shares of the variance in those three. ``accuracy`` is, by the
    number of negatives, how often the right place wins; chance is 1/(n + 1). ``queries`` are how
    many places were asked.
    """

    layer: int
    stride: int
    places: tuple[int, int]
    matches: tuple[Match, ...]
    similarities: Floats
    components: dict[tuple[str, str], Floats]
    variance: dict[str, tuple[float, float, float]]
    accuracy: dict[int, float]
    queries: int


@dataclass(frozen=True)
class Inspection:
    """An inspection of one image.

    ``content`` and ``result`` are (H', W', 3) uint8 sRGB, reduced to the width asked for; ``size``
    are the image's own height and width. ``points`` are x, y in its pixels. ``header`` is the
    model's (see :class:`sincut.checkpoint.Model`), ``run`` and ``image`` what was given.
    """

    run: str
    image: str
    header: dict[str, Any]
    size: tuple[int, int]
    points: tuple[Point, ...]
    temperature: float
    seed: int
    content: Pixels
    result: Pixels
    layers: tuple[LayerFindings, ...]
    is_content: bool
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain values for JSON, to six digits; no arrays."""
        return {
            "sincut_version": __version__,
            "run": self.run,
            "model_sha256": self.header["sha256"],
            "step": self.header["step"],
            "image": self.image,
            "is_content": self.is_content,
            "width": self.size[1],
            "height": self.size[0],
            "temperature": self.temperature,
            "seed": self.seed,
            "notices": list(self.notices),
            "points": [
                {
                    "x": x,
                    "y": y,
                    "layers": [
                        {
                            "layer": found.layer,
                            "best_x": match.x,
                            "best_y": match.y,
                            "distance": round(match.distance, 6),
                            "right": match.distance == 0,
                            "similarity": round(match.similarity, 6),
                            "best_similarity": round(match.best, 6),
                            "rank": match.rank,
                            "ties": match.ties,
                        }
                        for found in self.layers
                        for match in [found.matches[number]]
                    ],
                }
                for number, (x, y) in enumerate(self.points)
            ],
            "layers": [
                {
                    "layer": found.layer,
                    "stride": found.stride,
                    "rows": found.places[0],
                    "columns": found.places[1],
                    "variance": {
                        kind: [round(share, 6) for share in shares]
                        for kind, shares in found.variance.items()
                    },
                    "queries": found.queries,
                    "accuracy": [
                        {
                            "negatives": negatives,
                            "accuracy": round(accuracy, 6),
                            "chance": round(1 / (negatives + 1), 6),
                        }
                        for negatives, accuracy in found.accuracy.items()
                    ],
                }
                for found in self.layers
            ],
        }


def prepared(
    run: Path | str, image: Path | str, points: Sequence[Point | str]
) -> tuple[Model, PatchProjector, Pixels, tuple[Point, ...], tuple[str, ...]]:
    """Everything that an inspection reads: model, heads, (H, W, 3) uint8, points, notices.

    Args:
        points: pairs of x and y, or text such as ``"120,80"``, in pixels of the upright image.

    Raises:
        SincutError: a bad model, one without projection heads, a bad image, a malformed point, one
            outside the image or given twice, none or more than 32.
    """
    pairs = [_point(each) for each in points]
    if not 1 <= len(pairs) <= MOST_POINTS:
        raise SincutError(
            f"give 1 to {MOST_POINTS} points of the image, got {len(pairs)}; try --at 120,80"
        )
    model = load_model(Path(run))
    if model.projector is None:
        raise SincutError(
            f"{run} has no projection heads, which PatchNCE compares with (its origin: "
            f"{model.header.get('origin', 'unknown')}); try a run of sincut train"
        )
    picture = read_picture(Path(image))
    height, width = picture.rgb.shape[:2]
    for x, y in pairs:
        if not (0 <= x < width and 0 <= y < height):
            raise SincutError(
                f"--at {x},{y} is outside {image}, whose pixels are 0,0 to {width - 1},"
                f"{height - 1}; try --at {width // 2},{height // 2}"
            )
        if pairs.count((x, y)) > 1:
            raise SincutError(f"--at {x},{y} is given twice; give every point once")
    notices = list(picture.notices)
    if picture.alpha is not None:
        notices.append("its alpha channel is not looked at")
    return model, model.projector, picture.rgb, tuple(pairs), tuple(notices)


def inspected(
    run: Path | str,
    image: Path | str,
    points: Sequence[Point | str],
    config: InspectConfig,
    translating: TranslateConfig,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """Inspect an image with a run's model.

    ŷ is what :func:`sincut.translate` would make, with its noise, of the seed in ``translating``,
    but neither clamped nor rounded, as PatchNCE has it. Convolutions are in float32.

    Args:
        run: a run folder or model file.
        image: the run's content, or another image.
        points: as for :func:`prepared`.
        translating: ``tile``, ``border``, ``seed`` and ``device`` are used.
        on_progress: called with what is being done, and how many of how many parts are done.

    Raises:
        SincutError: as :func:`prepared`; there is no such device.
    """
    model, projector, pixels, pairs, notices = prepared(run, image, points)
    train = TrainConfig.from_dict(model.header["config"])
    if not (train.lambda_x or train.lambda_y):
        notices += ("the run was trained without PatchNCE; its projection heads are as drawn",)
    device = chosen_device(translating.device)
    if device == "cpu":
        limit_threads()
    content, result, layers = findings(
        model.generator.to(device),
        projector.to(device).eval().requires_grad_(False),
        pixels,
        pairs,
        train,
        config,
        translating,
        on_progress,
    )
    return Inspection(
        run=str(run),
        image=str(image),
        header=model.header,
        size=(pixels.shape[0], pixels.shape[1]),
        points=pairs,
        temperature=train.temperature,
        seed=config.seed,
        content=content,
        result=result,
        layers=layers,
        is_content=file_digest(Path(image)) == model.header.get("content", {}).get("sha256"),
        notices=notices,
    )


@torch.inference_mode()
def findings(
    generator: Generator,
    projector: PatchProjector,
    pixels: Pixels,
    points: Sequence[Point],
    train: TrainConfig,
    config: InspectConfig,
    translating: TranslateConfig,
    on_progress: OnProgress | None = None,
) -> tuple[Pixels, Pixels, tuple[LayerFindings, ...]]:
    """Content and result, reduced to the width asked for, and what was found in every layer.

    Args:
        generator, projector: on one device.
        pixels: (H, W, 3) uint8 sRGB.
        points: x, y inside the image.
        train: ``layers`` and ``temperature`` are used.
    """
    height, width = pixels.shape[:2]
    plan = plan_tiles(generator, pixels, translating)
    done, total = 0, 3 * len(plan)

    def tiles(text: str) -> Iterator[Tile]:
        nonlocal done
        for tile in plan:
            if on_progress is not None:
                on_progress(text, done, total)
            yield tile
            done += 1

    with convolutions("fp32"):
        output = np.empty((height, width, 3), np.float32)
        for tile in tiles("translating"):
            core = translate_tile(generator, pixels, tile, translating)
            rows, columns = tile.rows, tile.columns
            output[rows.start : rows.stop, columns.start : columns.stop] = core.cpu().numpy()
        encoded = _Encoded(generator, {"input": pixels, "output": output}, train.layers)
        layers = [
            _Layer(number, head, (height, width), generator, points, train, config)
            for number, head in zip(train.layers, projector.heads, strict=True)
        ]
        for tile in tiles("sampling"):
            for role, features in encoded.of(tile):
                for layer, feature in zip(layers, features, strict=True):
                    layer.sample(role, feature, tile)
        for layer in layers:
            layer.fit()
        for tile in tiles("comparing"):
            for role, features in encoded.of(tile):
                for layer, feature in zip(layers, features, strict=True):
                    layer.fill(role, feature, tile)
    if on_progress is not None:
        on_progress("done", total, total)
    shown = ((output + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
    return (
        reduced(pixels, config.width),
        reduced(shown, config.width),
        tuple(layer.found() for layer in layers),
    )


class _Encoded:
    """Encoder features of both images, by tile."""

    def __init__(
        self, generator: Generator, images: dict[str, npt.NDArray[Any]], layers: Sequence[int]
    ) -> None:
        self.generator, self.images, self.layers = generator, images, layers
        self.device = next(generator.parameters()).device

    def of(self, tile: Tile) -> Iterator[tuple[str, list[Tensor]]]:
        """The role of an image, and (C, rows, columns) of the tile's places per layer."""
        for role, image in self.images.items():
            window = np.ascontiguousarray(window_of(image, tile, 0, image.shape[0]))
            there = torch.from_numpy(window).to(self.device)
            # The input is pixels; the output is what G gave, in [-1, 1] already.
            seen = as_network(there) if role == "input" else there.permute(2, 0, 1)[None]
            features = self.generator.encode(seen, self.layers)
            yield (
                role,
                [
                    feature[0][:, *_core(tile, stride_of(self.generator, number))]
                    for number, feature in zip(self.layers, features, strict=True)
                ],
            )


class _Layer:
    """One encoder layer on its way through both passes."""

    def __init__(
        self,
        number: int,
        head: nn.Module,
        size: tuple[int, int],
        generator: Generator,
        points: Sequence[Point],
        train: TrainConfig,
        config: InspectConfig,
    ) -> None:
        self.number, self.head, self.points = number, head, points
        self.size, self.temperature, self.longest = size, train.temperature, config.width
        self.stride = stride_of(generator, number)
        self.places = -(-size[0] // self.stride), -(-size[1] // self.stride)
        count = math.prod(self.places)
        random = np.random.default_rng([config.seed, number])
        chosen = random.choice(count, min(count, _SAMPLE), replace=False, shuffle=False)
        asked = [y // self.stride * self.places[1] + x // self.stride for x, y in points]
        # The query points are taken along behind the sample.
        self.asked: Indices = np.array(asked, dtype=np.int64)
        self.wanted: Indices = np.concatenate([chosen, self.asked])
        device = next(head.parameters()).device
        self.taken = {
            role: torch.empty(len(self.wanted), generator.layer_channels[number], device=device)
            for role in ("input", "output")
        }
        self.maps: dict[tuple[str, str], _Reduced] = {}

    def sample(self, role: str, feature: Tensor, tile: Tile) -> None:
        """Take the wanted features that lie in this tile."""
        top, left, rows, columns = self._extent(feature, tile)
        down, across = self.wanted // self.places[1] - top, self.wanted % self.places[1] - left
        inside = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
        here = torch.from_numpy(np.flatnonzero(inside)).to(feature.device)
        where = torch.from_numpy((down * columns + across)[inside]).to(feature.device)
        self.taken[role][here] = feature.flatten(1)[:, where].T

    def fit(self) -> None:
        """Principal components and accuracy from the sample; queries and maps for the rest."""
        projected = {role: _projected(self.head, rows) for role, rows in self.taken.items()}
        count = len(self.wanted) - len(self.points)
        self.axes = {
            kind: Axes.fitted(
                np.concatenate([rows[role][:count].cpu().numpy() for role in ("input", "output")])
            )
            for kind, rows in (("encoder", self.taken), ("projected", projected))
        }
        query, key = projected["output"], projected["input"]
        self.accuracy = accuracies(query[:count], key[:count])
        self.queries, device = query[count:], query.device
        self.right = (query[count:] * key[count:]).sum(dim=1)
        self.above = torch.zeros(len(self.points), dtype=torch.int64, device=device)
        self.level = torch.zeros(len(self.points), dtype=torch.int64, device=device)
        self.best = np.full(len(self.points), -np.inf, np.float32)
        self.best_place = self.asked.copy()
        for kind in ("encoder", "projected"):
            for role in ("input", "output"):
                self.maps[kind, role] = _Reduced(3, self.places, self.longest, largest=False)
        self.similar = _Reduced(len(self.points), self.places, self.longest, largest=True)
        self.directions = {
            kind: [torch.from_numpy(each).float().to(device) for each in (axes.mean, axes.axes)]
            for kind, axes in self.axes.items()
        }
        self.taken.clear()

    def fill(self, role: str, feature: Tensor, tile: Tile) -> None:
        """This tile's part of the maps."""
        top, left, rows, columns = self._extent(feature, tile)
        features = feature.flatten(1).T

        def add(onto: _Reduced, parts: list[Tensor]) -> Floats:
            block: Floats = torch.cat(parts).T.reshape(-1, rows, columns).cpu().numpy()
            onto.add(top, left, block)
            return block

        mean, axes = self.directions["encoder"]
        add(self.maps["encoder", role], [(features - mean) @ axes.T])
        mean, axes = self.directions["projected"]
        components, cosines = [], []
        for part in torch.split(features, _ROWS):
            projected = _projected(self.head, part)
            components.append((projected - mean) @ axes.T)
            if role == "input":
                cosine = projected @ self.queries.T
                self.above += (cosine > self.right + _TIED).sum(dim=0)
                self.level += ((cosine - self.right).abs() <= _TIED).sum(dim=0)
                cosines.append(cosine)
        add(self.maps["projected", role], components)
        if role == "input":
            block = add(self.similar, cosines).reshape(len(self.points), -1)
            best = block.argmax(axis=1)
            value = block[np.arange(len(best)), best]
            better = value > self.best
            place = (top + best // columns) * self.places[1] + left + best % columns
            self.best_place = np.where(better, place, self.best_place)
            self.best = np.where(better, value, self.best)

    def found(self) -> LayerFindings:
        """What there is after the last tile."""
        similarities = np.exp((self.similar.result() - self.best[:, None, None]) / self.temperature)
        return LayerFindings(
            layer=self.number,
            stride=self.stride,
            places=self.places,
            matches=tuple(self._match(number) for number in range(len(self.points))),
            similarities=similarities,
            components={
                (kind, role): self.axes[kind].scaled(each.result().transpose(1, 2, 0))
                for (kind, role), each in self.maps.items()
            },
            variance={kind: axes.variance for kind, axes in self.axes.items()},
            accuracy=self.accuracy,
            queries=len(self.wanted) - len(self.points),
        )

    def _match(self, number: int) -> Match:
        x, y = self.points[number]
        right, best = float(self.right[number]), float(self.best[number])
        place = int(self.asked[number])
        if right < best - _TIED:
            place = int(self.best_place[number])
        down = place // self.places[1] - y // self.stride
        across = place % self.places[1] - x // self.stride
        return Match(
            x=min(x + across * self.stride, self.size[1] - 1),
            y=min(y + down * self.stride, self.size[0] - 1),
            distance=self.stride * math.hypot(down, across),
            similarity=right,
            best=max(best, right),
            rank=1 + int(self.above[number]),
            ties=int(self.level[number]) - 1,
        )

    def _extent(self, feature: Tensor, tile: Tile) -> tuple[int, int, int, int]:
        """A tile's first row and column of places, and how many."""
        top, left = tile.rows.start // self.stride, tile.columns.start // self.stride
        return top, left, feature.shape[1], feature.shape[2]


@dataclass(frozen=True)
class Axes:
    """The first three principal axes of rows, and what becomes 0 and 1 along them.

    ``mean`` is (C,), ``axes`` (3, C) with rows of length 1 in falling order of variance, or 0 where
    there are fewer than three directions; the entry of largest magnitude of each is positive.
    ``low`` and ``high`` are (3,): the 2nd and 98th percentiles, so that few outliers take no
    colours from the rest.
    """

    mean: Doubles
    axes: Doubles
    variance: tuple[float, float, float]
    low: Doubles
    high: Doubles

    @classmethod
    def fitted(cls, rows: npt.NDArray[np.floating[Any]]) -> Axes:
        """Fit to (N, C) rows, in float64."""
        exact = rows.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        values, vectors = np.linalg.eigh(exact.T @ exact / len(exact))
        order = np.argsort(values)[::-1][:3]
        total = float(values.clip(0).sum())
        axes, shares = np.zeros((3, rows.shape[1])), [0.0, 0.0, 0.0]
        for place, index in enumerate(order):
            # What is left of nothing by rounding is no direction.
            if values[index] > 1e-12 * np.square(mean).sum() + 1e-30:
                axis = vectors[:, index]
                axes[place] = axis * np.sign(axis[np.abs(axis).argmax()])
                shares[place] = float(values[index]) / total
        low, high = np.percentile(exact @ axes.T, _SHOWN, axis=0)
        return cls(mean, axes, (shares[0], shares[1], shares[2]), low, high)

    def scaled(self, components: Floats) -> Floats:
        """(…, 3) components as [0, 1]; ½ where a component does not vary."""
        span = self.high - self.low
        varying = span > 0
        scaled = (components - self.low) / np.where(varying, span, 1)
        return np.where(varying, scaled, 0.5).clip(0, 1).astype(np.float32)


def accuracies(query: Tensor, key: Tensor) -> dict[int, float]:
    """How often row i of ``query`` is most similar to row i of ``key``, among n others.

    The others are drawn from the rows of ``key``; what is returned is the mean over all such draws,
    not of one: among N others, of which ``m`` are not more similar than the right one and ``t`` of
    these as similar, it wins with the probability [C(m+1, n+1) − C(m−t, n+1)] / ((t+1) C(N, n)).
    A tie is decided by lot. Numbers of others that there are not are left out.

    Args:
        query, key: (N + 1, D) normalised rows.
    """
    others = len(query) - 1
    right = (query * key).sum(dim=1)
    more, level = [], []
    for start in range(0, len(query), 512):
        part = slice(start, start + 512)
        gap = query[part] @ key.T - right[part, None]
        own = torch.arange(len(gap), device=gap.device)
        gap[own, own + start] = -torch.inf
        more.append((gap > _TIED).sum(dim=1))
        level.append((gap.abs() <= _TIED).sum(dim=1))
    m = others - torch.cat(more).cpu().numpy()
    t = torch.cat(level).cpu().numpy()
    found = {}
    for n in NEGATIVES:
        if n <= others:
            draws = _log_choose(np.array(others), n)
            chances = np.exp(_log_choose(m + 1, n + 1) - draws)
            chances -= np.exp(_log_choose(m - t, n + 1) - draws)
            found[n] = float((chances / (t + 1)).mean())
    return found


def stride_of(generator: Generator, layer: int) -> int:
    """Pixels from one feature of an encoder layer to the next."""
    return int(2 ** min(max(layer - 1, 0), generator.downsamplings))


def reduced(pixels: Pixels, longest: int) -> Pixels:
    """(H, W, 3) with its longest side at most ``longest``; the same where it is already."""
    height, width = _reduced_size(pixels.shape[:2], longest)
    if (height, width) == pixels.shape[:2]:
        return pixels
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image)


# ------------------------------------------------------------------------------------ pictures

# The heat is laid over the image in Oklab: its lightness goes from the grey that is there to
# _LIGHTEST, its hue from violet over red to yellow. Grey takes this part of the lightness.
_DARKEST_GREY, _LIGHTEST_GREY, _LIGHTEST = 0.2, 0.56, 0.93
_MIDDLE_GREY = (_DARKEST_GREY + _LIGHTEST_GREY) / 2


def heat_picture(
    inspection: Inspection,
    layer: LayerFindings,
    number: int,
    longest: int,
    *,
    inset: bool = False,
) -> Pixels:
    """The similarity map of a query point over the greyed content.

    A ring marks the query, a cross the best place where that is another. Where the picture is
    smaller than the map, a pixel shows the largest of what it stands for: the one right place of a
    sharp map would vanish in a mean.

    Args:
        longest: side of the picture in pixels, at most.
        inset: show the neighbourhood of the query, enlarged, in a corner away from it.
    """
    grey = grey_of(reduced(inspection.content, longest))
    values = enlarged(layer.similarities[number], inspection, layer)
    smaller = _Reduced(1, inspection.content.shape[:2], longest, largest=True)
    smaller.add(0, 0, values[None])
    picture = Image.fromarray(heated(grey, smaller.result()[0]))
    match, (x, y) = layer.matches[number], inspection.points[number]
    mark(picture, (x, y), inspection.size)
    if match.distance > 0:
        mark(picture, (match.x, match.y), inspection.size, cross=True)
    if inset:
        _paste_inset(picture, inspection, values, (x, y))
    return np.asarray(picture)


def component_picture(inspection: Inspection, layer: LayerFindings, kind: str, role: str) -> Pixels:
    """Principal components as red, green and blue, of the content's reduced size."""
    values = enlarged(layer.components[kind, role].transpose(2, 0, 1), inspection, layer)
    picture: Pixels = (values.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return picture


def scale_picture(width: int, height: int) -> Pixels:
    """The colours of a heat map over a middle grey, from 0 on the left to 1 on the right."""
    values: Floats = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return heated(np.full_like(values, _MIDDLE_GREY), values)


def enlarged(values: Floats, inspection: Inspection, layer: LayerFindings) -> Floats:
    """A map (…, h, w) at the size of the pictures: every pixel shows the place it lies in."""
    indices = []
    for axis in (0, 1):
        pixels, count = inspection.content.shape[axis], values.shape[axis - 2]
        middles = (np.arange(pixels) + 0.5) * inspection.size[axis] / pixels
        # The last place may reach over the image's border.
        share = middles / (layer.places[axis] * layer.stride)
        indices.append((share * count).astype(np.int64).clip(0, count - 1))
    taken: Floats = values[..., indices[0][:, None], indices[1]]
    return taken


def grey_of(pixels: Pixels) -> Floats:
    """(H, W) Oklab lightness of the greyed image, in the darker part that heat leaves to it."""
    luminance = _linear(pixels / np.float64(255)) @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.cbrt(luminance) * (_LIGHTEST_GREY - _DARKEST_GREY) + _DARKEST_GREY
    grey: Floats = lightness.astype(np.float32)
    return grey


def heated(grey: Floats, values: Floats) -> Pixels:
    """Heat of [0, 1] over grey of a lightness, both (H, W), as (H, W, 3) uint8 sRGB.

    Over the middle grey equal steps of heat are equal distances in Oklab.
    """
    way = np.interp(values, *_even_way())
    return (_srgb(_heat_lab(grey, way)) * 255).round().astype(np.uint8)


def mark(
    picture: Image.Image,
    point: Point,
    size: tuple[int, int],
    *,
    cross: bool = False,
    label: str = "",
) -> None:
    """Draw a ring or a cross, black and white, at a pixel of an image of ``size`` (H, W)."""
    draw = ImageDraw.Draw(picture)
    x, y = (
        (each + 0.5) * extent / length - 0.5
        for each, extent, length in zip(point, picture.size, size[::-1], strict=True)
    )
    radius = max(4.0, max(picture.size) / 90)
    line = max(2, round(radius / 4))
    for colour, more in (("black", line), ("white", 0)):
        if cross:
            reach, wide = radius * 0.8 + more / 2, line + more
            draw.line((x - reach, y - reach, x + reach, y + reach), colour, wide)
            draw.line((x - reach, y + reach, x + reach, y - reach), colour, wide)
        else:
            outer = radius + line / 2 + more / 2
            draw.ellipse((x - outer, y - outer, x + outer, y + outer), None, colour, line + more)
    if label:
        font = ImageFont.load_default(max(18.0, radius * 4))
        left = x < picture.width * 0.9
        draw.text(
            (x + (1.8 if left else -1.8) * radius, y),
            label,
            "white",
            font,
            anchor="lm" if left else "rm",
            stroke_width=line,
            stroke_fill="black",
        )


def _paste_inset(
    picture: Image.Image, inspection: Inspection, values: Floats, point: Point
) -> None:
    """The surroundings of a pixel, about a thirtieth of the image, at a third of the picture."""
    rows, columns = inspection.content.shape[:2]
    side = min(rows, columns, max(24, max(rows, columns) // 28))
    factor = min(picture.size) * 3 // (8 * side)
    if factor < 2:
        return  # it would show nothing that is not seen already
    first = [
        min(max(each * shown // whole - side // 2, 0), shown - side)
        for each, shown, whole in zip(point[::-1], (rows, columns), inspection.size, strict=True)
    ]
    part = slice(first[0], first[0] + side), slice(first[1], first[1] + side)
    near = Image.fromarray(heated(grey_of(inspection.content[part]), values[part]))
    near = near.resize((side * factor, side * factor), Image.Resampling.NEAREST)
    left = 4 if point[0] >= inspection.size[1] / 2 else picture.width - near.width - 4
    top = 4 if point[1] >= inspection.size[0] / 2 else picture.height - near.height - 4
    draw = ImageDraw.Draw(picture)
    for colour, more in (("black", 3), ("white", 2)):
        corners = (
            left - more,
            top - more,
            left + near.width + more - 1,
            top + near.height + more - 1,
        )
        draw.rectangle(corners, fill=colour)
    picture.paste(near, (left, top))


@functools.cache
def _even_way() -> tuple[Doubles, Doubles]:
    """Heat, and how far along the way of colours it is: by the length of the way in Oklab."""
    way = np.linspace(0, 1, 1025)
    lab = _lab(_srgb(_heat_lab(np.full_like(way, _MIDDLE_GREY, np.float32), way)))
    length = np.concatenate([[0], np.linalg.norm(np.diff(lab, axis=0), axis=1).cumsum()])
    return length / length[-1], way


def _heat_lab(grey: Floats, way: Doubles) -> Doubles:
    """Oklab (…, 3) of colours that are some way, 0 … 1, from a grey to the hottest."""
    hue = np.radians(-65 + 165 * way)
    chroma = 0.235 * way**0.6 * (1 - 0.35 * way)
    lightness = grey + way * (_LIGHTEST - grey)
    return np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)


# Björn Ottosson's Oklab, from linear sRGB over the responses of cones.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _lab(srgb: Doubles) -> Doubles:
    """(…, 3) sRGB of [0, 1] as Oklab."""
    lab: Doubles = np.cbrt(_linear(srgb) @ _CONES.T) @ _OPPONENTS.T
    return lab


def _srgb(lab: Doubles) -> Doubles:
    """(…, 3) Oklab as sRGB, clipped to [0, 1]."""
    linear = (lab @ np.linalg.inv(_OPPONENTS).T) ** 3 @ np.linalg.inv(_CONES).T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _linear(srgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


# ------------------------------------------------------------------------------------- helpers


class _Reduced:
    """A map of places that is made smaller while its tiles arrive, by means or by the largest."""

    def __init__(
        self, channels: int, places: tuple[int, int], longest: int, *, largest: bool
    ) -> None:
        self.places, self.largest = places, largest
        self.size = _reduced_size(places, longest)
        shape = (channels, *self.size)
        self.values = np.full(shape, -np.inf if largest else 0, np.float32)

    def add(self, top: int, left: int, block: Floats) -> None:
        """(channels, rows, columns) from the place (top, left) on."""
        where = [slice(None)]
        for axis, first in ((1, top), (2, left)):
            count, length, fewer = block.shape[axis], self.places[axis - 1], self.size[axis - 1]
            bins = np.arange(first, first + count) * fewer // length
            starts = np.flatnonzero(np.diff(bins, prepend=-1))
            how = np.maximum if self.largest else np.add
            block = how.reduceat(block, starts, axis=axis)
            where.append(slice(int(bins[0]), int(bins[-1]) + 1))
        there = self.values[*where]
        self.values[*where] = np.maximum(there, block) if self.largest else there + block

    def result(self) -> Floats:
        """(channels, h, w)."""
        if self.largest:
            return self.values
        rows, columns = (
            np.bincount(np.arange(length) * fewer // length)
            for length, fewer in zip(self.places, self.size, strict=True)
        )
        counts: Floats = (rows[:, None] * columns).astype(np.float32)
        return self.values / counts


def _reduced_size(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Height and width with the longest side at most ``longest``."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _core(tile: Tile, stride: int) -> tuple[slice, slice]:
    """A tile's own places, in the features of its window. Windows start at multiples of stride."""
    rows, columns = (
        slice(span.core.start // stride, -(-span.core.stop // stride))
        for span in (tile.rows, tile.columns)
    )
    return rows, columns


def _projected(head: nn.Module, rows: Tensor) -> Tensor:
    """(N, C) features → (N, D) rows of length 1; a zero row stays zero."""
    return F.normalize(head(rows), dim=1)


def _log_choose(count: npt.NDArray[np.int64], chosen: int) -> Doubles:
    """The logarithm of the binomial coefficients; −∞ where there are fewer than are chosen."""
    enough = count >= chosen
    some = np.where(enough, count, chosen).astype(np.float64)
    logarithm = gammaln(some + 1) - gammaln(chosen + 1) - gammaln(some - chosen + 1)
    return np.where(enough, logarithm, -np.inf)


def _point(given: Point | str) -> Point:
    """A pair of whole numbers, or text of two."""
    parts: Sequence[object] = given.split(",") if isinstance(given, str) else given
    try:
        x, y = (int(part) if isinstance(part, str) else part for part in parts)
        whole = all(isinstance(each, (int, np.integer)) for each in (x, y))
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise SincutError(
            f"--at must be X,Y in whole pixels of the image, got {given}; try --at 120,80"
        )
    return int(x), int(y)  # type: ignore[call-overload]
