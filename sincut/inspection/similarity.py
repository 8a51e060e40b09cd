"""What PatchNCE sees: similarities of a point of the output to the input, principal components of
the features, and how often the right place is recognised (the analyses of the CUT paper).

x is the image, ŷ = G(x); E_l are the features of encoder layer l, H_l its projection head, and rows
are L2-normalised. Everything is computed tile by tile, in two passes over both images: the first
takes the features at the query points and at places sampled from the whole image, the second fills
the maps. Projected features, hundreds of numbers for every place, are never held for a whole image.
What is held: some 20 bytes a pixel of the image, and of each layer four maps of components and one
per point, in float32 and reduced to the size of the pictures.

A *place* of layer l is what one feature stands for: a square of ``stride`` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import gammaln
from torch import Tensor, nn

from sincut.compute.devices import chosen_device, convolutions, limit_threads
from sincut.compute.memory import out_of_memory
from sincut.config.training import PairConfig, TrainConfig, training_config
from sincut.config.translating import InspectConfig, TranslateConfig
from sincut.errors import SincutError
from sincut.images.identity import image_digest
from sincut.images.reading.asked import WHOLE, AskedPart, AskedValues
from sincut.images.reading.open import read_picture
from sincut.inspection.findings import Floats, Inspection, LayerFindings, Match, Pixels, Point
from sincut.models.generator import Generator
from sincut.models.model_file import Model, load_model
from sincut.models.projector import PatchProjector
from sincut.pages.heat_maps import ReducedMap, reduced, reduced_size
from sincut.translation.learned import learned_values
from sincut.translation.pixels import as_network, as_pixels
from sincut.translation.tiles import plan_tiles, translate_tile, window_of
from sincut.translation.tiling import Tile, tiles

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
OnProgress = Callable[[str, int, int], None]

NEGATIVES = (15, 63, 255, 1023)
MOST_POINTS = 32  # of one page
_SAMPLE = 4096  # places of a layer, for PCA and for the accuracy
_TIED = 1e-6  # cosines so near to each other are told apart by rounding errors alone
_ROWS = 16_384  # projected at a time: 16 MB at a width of 256
_SHOWN = (2.0, 98.0)  # percentiles of a principal component that become 0 and 1


def _asked(model: Model, image: Path) -> tuple[AskedValues, AskedPart]:
    """How the image's values are taken, as the model learned; of its own content also which bands
    and which part are read."""
    asked, header = learned_values(model.header), model.header
    config = training_config(header["config"]) if header.get("config") else None
    if not isinstance(config, PairConfig) or not image.exists():
        return asked, WHOLE
    bands, part = AskedValues.of(config).bands, AskedPart.of(config)
    if not (bands or part != WHOLE) or image_digest(image) != header["content"]["sha256"]:
        return asked, WHOLE
    return replace(asked, bands=bands), part


def _prepared(
    run: Path | str, image: Path | str, points: Sequence[Point | str]
) -> tuple[Model, PatchProjector, Pixels, tuple[Point, ...], tuple[str, ...]]:
    """Everything that an inspection reads: model, heads, (H, W, 3) uint8, points, notices."""
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
    asked, part = _asked(model, Path(image))
    picture = read_picture(Path(image), asked=asked, part=part)
    notices = list(picture.notices)
    if part != WHOLE:
        notices.append(f"it is the {part.described()} that the model learned on")
    rgb = picture.rgb
    if model.generator.normalises:  # what it is extended by would count in its norms
        step = model.generator.alignment
        rgb = rgb[: len(rgb) // step * step, : rgb.shape[1] // step * step]
        if rgb.shape != picture.rgb.shape:
            notices.append(f"it is cut to {rgb.shape[1]}×{rgb.shape[0]}, multiples of {step}")
    height, width = rgb.shape[:2]
    for x, y in pairs:
        if not (0 <= x < width and 0 <= y < height):
            raise SincutError(
                f"--at {x},{y} is outside {image}, whose pixels are 0,0 to {width - 1},"
                f"{height - 1}; try --at {width // 2},{height // 2}"
            )
        if pairs.count((x, y)) > 1:
            raise SincutError(f"--at {x},{y} is given twice; give every point once")
    if picture.alpha is not None:
        notices.append("its alpha channel is not looked at")
    return model, model.projector, rgb, tuple(pairs), tuple(notices)


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
    but neither clamped nor rounded, as PatchNCE has it. Everything is computed in float32.

    Args:
        run: a run folder or model file.
        image: the run's content, or another image.
        points: pairs of x and y, or text such as ``"120,80"``, in pixels of the upright image.
        translating: ``tile``, ``border``, ``seed`` and ``device`` are used.
        on_progress: called with what is being done, and how many of how many parts are done.

    Raises:
        SincutError: a bad model, one without projection heads, a bad image, a malformed point, one
            outside the image or given twice, none or more than 32; there is no such device, or not
            enough memory.
    """
    model, projector, pixels, pairs, notices = _prepared(run, image, points)
    train = training_config(model.header["config"])
    if not (train.lambda_x or train.lambda_y):
        notices += ("the run was trained without PatchNCE; its projection heads are as drawn",)
    device = chosen_device(translating.device)
    if device == "cpu":
        limit_threads()
    try:
        content, result, layers = findings(
            model.generator.to(device),
            projector.to(device).eval().requires_grad_(False),
            pixels,
            pairs,
            train,
            config,
            translating.replaced(precision="fp32"),
            on_progress,
        )
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise SincutError(
            f"{image} of {pixels.shape[1]}×{pixels.shape[0]} pixels could not be inspected: memory "
            "ended; try --tile 256, a smaller --width, fewer points or a smaller image"
        ) from None
    return Inspection(
        run=Path(run),
        image=Path(image),
        header=model.header,
        size=(pixels.shape[0], pixels.shape[1]),
        points=pairs,
        temperature=train.temperature,
        seed=config.seed,
        content=content,
        result=result,
        layers=layers,
        is_content=image_digest(Path(image)) == model.header.get("content", {}).get("sha256"),
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
    plan = _plan(generator, pixels, translating)
    done, total = 0, 3 * len(plan)

    def pass_over(text: str) -> Iterator[Tile]:
        nonlocal done
        for tile in plan:
            if on_progress is not None:
                on_progress(text, done, total)
            yield tile
            done += 1

    with convolutions("fp32"):
        output = np.empty((height, width, 3), np.float32)
        rounded = np.empty((height, width, 3), np.uint8)
        for tile in pass_over("translating"):
            core = translate_tile(generator, pixels, tile, translating)
            rows, columns = (slice(span.start, span.stop) for span in (tile.rows, tile.columns))
            output[rows, columns] = core.cpu().numpy()
            seen = as_pixels(core.permute(2, 0, 1)[None], rounded.dtype)
            rounded[rows, columns] = seen.cpu().numpy()
        encoded = _Encoded(generator, {"input": pixels, "output": output}, train.layers)
        layers = [
            _Layer(number, head, (height, width), generator, points, train, config)
            for number, head in zip(train.layers, projector.heads, strict=True)
        ]
        for tile in pass_over("sampling"):
            for role, features in encoded.of(tile):
                for layer, feature in zip(layers, features, strict=True):
                    layer.sample(role, feature, tile)
        for layer in layers:
            layer.fit()
        for tile in pass_over("comparing"):
            for role, features in encoded.of(tile):
                for layer, feature in zip(layers, features, strict=True):
                    layer.fill(role, feature, tile)
    if on_progress is not None:
        on_progress("done", total, total)
    return (
        reduced(pixels, config.width),
        reduced(rounded, config.width),
        tuple(layer.found() for layer in layers),
    )


def _plan(generator: Generator, pixels: Pixels, config: TranslateConfig) -> list[Tile]:
    """The tiles; one piece for a network that normalises over all of it."""
    if not generator.normalises:
        return plan_tiles(generator, pixels, config)
    height, width = pixels.shape[:2]
    if config.tile not in ("auto", "whole"):
        raise SincutError(
            "the network normalises over the whole image and is inspected in one piece, got "
            f"--tile {config.tile}; try it without"
        )
    if min(height, width) < 8:
        raise SincutError(
            f"an image to inspect must have sides of at least 8 pixels, got {width}×{height}; try "
            "a larger one"
        )
    side = max(height, width) + generator.alignment
    return [*tiles(height, width, side, 0, generator.alignment, "zero")]


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
                    self._own(number, feature, tile)
                    for number, feature in zip(self.layers, features, strict=True)
                ],
            )

    def _own(self, number: int, feature: Tensor, tile: Tile) -> Tensor:
        border = self.generator.borders.get(number, 0)
        inside = slice(border, -border or None)
        return feature[0][:, inside, inside][:, *_core(tile, self.generator.strides[number])]


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
        self.size, self.temperature = size, train.temperature
        self.most = reduced_size(size, config.width)
        self.stride = generator.strides[number]
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
        self.maps: dict[tuple[str, str], ReducedMap] = {}

    def sample(self, role: str, feature: Tensor, tile: Tile) -> None:
        """Take the wanted features that lie in this tile."""
        here, where = self._inside(self.wanted, feature, tile)
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
                self.maps[kind, role] = ReducedMap(3, self.places, self.most, largest=False)
        self.similar = ReducedMap(len(self.points), self.places, self.most, largest=True)
        self.directions = {
            kind: [torch.from_numpy(each).float().to(device) for each in (axes.mean, axes.axes)]
            for kind, axes in self.axes.items()
        }
        self.taken.clear()

    def fill(self, role: str, feature: Tensor, tile: Tile) -> None:
        """This tile's part of the maps."""
        top, left, rows, columns = self._extent(feature, tile)
        features = feature.flatten(1).T

        def add(onto: ReducedMap, parts: list[Tensor]) -> Floats:
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
                cosines.append(projected @ self.queries.T)
        add(self.maps["projected", role], components)
        if role == "input":
            # The right place has one similarity: computed among others it may be rounded another
            # way, and would be beaten by itself.
            number, where = self._inside(self.asked, feature, tile)
            cosine = torch.cat(cosines)
            cosine[where, number] = self.right[number]
            cosines = [cosine]
            self.above += (cosine > self.right + _TIED).sum(dim=0)
            self.level += ((cosine - self.right).abs() <= _TIED).sum(dim=0)
            block = add(self.similar, cosines).reshape(len(self.points), -1)
            best = block.argmax(axis=1)
            value = block[np.arange(len(best)), best]
            better = value > self.best
            place = (top + best // columns) * self.places[1] + left + best % columns
            self.best_place = np.where(better, place, self.best_place)
            self.best = np.where(better, value, self.best)

    def found(self) -> LayerFindings:
        """What there is after the last tile."""
        similarities = self.similar.result()  # in place: with many points it is the largest array
        similarities -= self.best[:, None, None]
        similarities /= np.float32(self.temperature)
        np.exp(similarities, out=similarities)
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
        above = int(self.above[number])
        place = int(self.best_place[number] if above else self.asked[number])
        down = place // self.places[1] - y // self.stride
        across = place % self.places[1] - x // self.stride
        return Match(
            x=min(x + across * self.stride, self.size[1] - 1),
            y=min(y + down * self.stride, self.size[0] - 1),
            distance=self.stride * math.hypot(down, across),
            similarity=float(self.right[number]),
            best=float(self.best[number]),
            rank=1 + above,
            ties=int(self.level[number]) - 1,
        )

    def _inside(self, places: Indices, feature: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
        """Which of the layer's places lie in a tile, and which of the tile's places they are."""
        top, left, rows, columns = self._extent(feature, tile)
        down, across = places // self.places[1] - top, places % self.places[1] - left
        inside = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
        which, where = np.flatnonzero(inside), (down * columns + across)[inside]
        device = feature.device
        return torch.from_numpy(which).to(device), torch.from_numpy(where).to(device)

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
    colours from the rest; the extremes where those are equal, as in a flat image with a spot.
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
        parts = exact @ axes.T
        low, high = np.percentile(parts, _SHOWN, axis=0)
        flat = low == high
        low, high = np.where(flat, parts.min(axis=0), low), np.where(flat, parts.max(axis=0), high)
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
