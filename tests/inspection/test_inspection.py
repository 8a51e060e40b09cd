"""What PatchNCE sees: against hand-made networks, numpy, and the whole image at once."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageFont
from torch import nn

from sincut.cli import main
from sincut.config.presets import folder_config
from sincut.config.training import PairConfig
from sincut.config.translating import InspectConfig, TranslateConfig
from sincut.errors import SincutError
from sincut.images.writing.png import write_png
from sincut.inspection import inspect as inspect_page
from sincut.inspection import similarity as inspection
from sincut.inspection import similarity_page
from sincut.inspection.findings import Inspection, LayerFindings, Match
from sincut.inspection.inspect import inspect, sheet
from sincut.inspection.similarity import Axes, accuracies, findings, inspected
from sincut.inspection.similarity_page import page
from sincut.inspection.similarity_pictures import (
    _CAPTION,
    component_picture,
    enlarged,
    heat_picture,
)
from sincut.models.generator import Generator
from sincut.models.model_file import load_generator, load_model, save_model
from sincut.models.projector import PatchProjector
from sincut.models.resnet import ResnetGenerator
from sincut.models.stylegan2 import ColourCorrectingGenerator, StyleGAN2Generator
from sincut.pages.heat_maps import (
    ReducedMap,
    _lab,
    grey_of,
    heated,
    reduced,
    reduced_size,
    scale_picture,
    wrapped,
)
from sincut.translation.tiles import translate_pixels
from tests.conftest import size_of

POINTS = [(20, 30), (129, 3), (64, 95)]
TRAIN = PairConfig(channels=4, layers=(0, 1, 2, 4))


def doing_nothing(channels: int = 4) -> Generator:
    """A generator with G(x) = x and a random encoder."""
    torch.manual_seed(0)
    generator = ColourCorrectingGenerator(channels).eval().requires_grad_(False)
    generator.to_rgb.weight.zero_()
    return generator


def giving_grey() -> Generator:
    """A generator whose output is the same grey everywhere, whatever it gets."""
    generator = doing_nothing()
    generator.colours.zero_()
    generator.offset.fill_(0.25)
    return generator


def heads(generator: Generator, layers: Sequence[int] = TRAIN.layers) -> PatchProjector:
    torch.manual_seed(1)
    return PatchProjector([generator.layer_channels[each] for each in layers], 16)


Looked = tuple[np.ndarray, np.ndarray, tuple[LayerFindings, ...]]


def look(
    generator: Generator,
    pixels: np.ndarray,
    points: Any = POINTS,
    tile: str = "whole",
    layers: tuple[int, ...] = TRAIN.layers,
    **how: Any,
) -> Looked:
    return findings(
        generator,
        heads(generator, layers),
        pixels,
        points,
        PairConfig(channels=4, layers=layers),
        InspectConfig(**how),
        TranslateConfig(tile=tile, device="cpu"),
    )


def message(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as error:
        call(*arguments, **options)
    return str(error.value)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """The image of the two below."""
    return np.random.default_rng(0).integers(0, 256, (96, 130, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def identical(noise: np.ndarray) -> Looked:
    """What is found where the output is the input."""
    return look(doing_nothing(), noise)


@pytest.fixture(scope="module")
def without_content(noise: np.ndarray) -> Looked:
    """What is found where the output is one grey."""
    return look(giving_grey(), noise)


@pytest.fixture(scope="module")
def small(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corner of the content: inspected in no time."""
    path = tmp_path_factory.mktemp("small") / "small.png"
    Image.open(pair[0]).crop((0, 0, 40, 40)).save(path)
    return path


@pytest.fixture(scope="module")
def made(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Inspection, Path, list[tuple[str, int, int]]]:
    """An inspection of the small run, its folder, and the progress on the way."""
    folder = tmp_path_factory.mktemp("inspection") / "new" / "out"
    steps: list[tuple[str, int, int]] = []
    found = inspect(
        tiny_run,
        pair[0],
        ["40,60", (159, 127)],
        folder,
        tile="64",
        device="cpu",
        on_progress=lambda *step: steps.append(step),
    )
    return found, folder, steps


# ------------------------------------------------------------------------------- similarities


def test_of_an_output_that_is_the_input_every_place_is_right(
    noise: np.ndarray, identical: Looked
) -> None:
    content, result, layers = identical
    assert np.array_equal(content, noise)
    assert np.array_equal(result, noise)
    assert [layer.layer for layer in layers] == [0, 1, 2, 4]
    assert [layer.stride for layer in layers] == [1, 1, 2, 2]
    assert [layer.places for layer in layers] == [(96, 130), (96, 130), (48, 65), (48, 65)]
    for layer in layers:
        for number, ((x, y), match) in enumerate(zip(POINTS, layer.matches, strict=True)):
            assert (match.x, match.y, match.distance, match.rank) == (x, y, 0, 1)
            assert match.similarity == pytest.approx(1, abs=1e-6)
            assert match.best == pytest.approx(1, abs=1e-6)
            place = y // layer.stride, x // layer.stride
            values = layer.similarities[number]
            assert values.shape == layer.places
            assert values[place] == pytest.approx(1, abs=2e-5)
            assert values.max() == pytest.approx(1, abs=2e-5)
            assert values.min() >= 0


def plain_heads(layers: int) -> PatchProjector:
    """H(x) = x for values from −1 on, in the first layer; the others are random."""
    projector = PatchProjector([3, *[4] * (layers - 1)], 3)
    one, _, two = projector.heads[0]
    for linear, shift in ((one, 1.0), (two, -1.0)):
        assert isinstance(linear, nn.Linear)
        linear.weight.data.copy_(torch.eye(3))
        linear.bias.data.fill_(shift)
    return projector.requires_grad_(False)


def test_similarities_against_numpy() -> None:
    """With heads that change nothing, layer 0 compares colours by their cosine."""
    pixels = np.random.default_rng(3).integers(0, 256, (40, 51, 3), dtype=np.uint8)
    generator = doing_nothing()
    generator.colours.copy_(torch.tensor([[0.0, 1, 0], [0, 0, -1], [1, 0, 0]])[:, :, None, None])
    train = PairConfig(channels=4, layers=(0,), temperature=0.3)
    (layer,) = findings(
        generator,
        plain_heads(1),
        pixels,
        [(7, 11), (50, 39)],
        train,
        InspectConfig(),
        TranslateConfig(tile="16", device="cpu"),
    )[2]
    rows = pixels.reshape(-1, 3) / 127.5 - 1
    keys = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for number, (x, y) in enumerate([(7, 11), (50, 39)]):
        red, green, blue = keys[y * 51 + x]
        cosine = keys @ np.array([green, -blue, red])
        expected = np.exp((cosine - cosine.max()) / 0.3).reshape(40, 51)
        assert layer.similarities[number] == pytest.approx(expected, abs=1e-5)
        match, best = layer.matches[number], int(cosine.argmax())
        assert (match.x, match.y) == (best % 51, best // 51)
        assert match.distance == pytest.approx(math.hypot(best % 51 - x, best // 51 - y))
        assert match.distance > 0
        right = cosine[y * 51 + x]
        assert (match.similarity, match.best) == pytest.approx((right, cosine.max()), abs=1e-6)
        assert match.rank == 1 + (cosine > right + 1e-6).sum()
        assert match.ties == 0


def test_ties_are_counted_and_the_right_place_is_among_the_best() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels[4, 5] = pixels[20, 21] = pixels[0, 0]
    (layer,) = findings(
        doing_nothing(),
        plain_heads(1),
        pixels,
        [(21, 20)],
        PairConfig(channels=4, layers=(0,)),
        InspectConfig(),
        TranslateConfig(device="cpu"),
    )[2]
    (match,) = layer.matches
    assert (match.x, match.y, match.distance, match.rank, match.ties) == (21, 20, 0, 1, 2)


def test_the_right_place_is_not_beaten_by_its_own_rounding(
    noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows projected twice, as for the queries and for the maps, need not agree to the last bit."""
    projected = inspection._projected

    def rough(head: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        found = projected(head, rows)
        return found + 1e-5 * torch.randn(found.shape)

    monkeypatch.setattr(inspection, "_projected", rough)
    torch.manual_seed(0)
    (layer,) = look(doing_nothing(), noise[:40, :40], [(20, 30), (3, 4)], layers=(4,))[2]
    for match in layer.matches:
        assert (match.rank, match.ties, match.distance) == (1, 0, 0)


@pytest.mark.parametrize(("tile", "width"), [("32", 64), ("50", 2048)])
def test_tiles_and_the_whole_agree(noise_image: np.ndarray, tile: str, width: int) -> None:
    """With G's noise in the output and at a size that no tile divides."""
    generator = doing_nothing()
    generator.to_rgb.weight.normal_(0, 8)
    generator.upsampling[0].noise_weight.fill_(0.3)
    pixels = noise_image[:63, :97]
    points = [(20, 30), (96, 62)]
    whole = look(generator, pixels, points, width=width)
    tiled = look(generator, pixels, points, tile=tile, width=width)
    assert np.abs(whole[1].astype(int) - tiled[1]).max() <= 1
    assert (np.abs(whole[1].astype(int) - reduced(pixels, width)) > 9).mean() > 0.2  # G did much
    for one, two in zip(whole[2], tiled[2], strict=True):
        assert two.similarities == pytest.approx(one.similarities, abs=1e-4)
        assert one.matches[0].rank == pytest.approx(two.matches[0].rank, abs=1)
        for key in one.components:
            assert two.components[key] == pytest.approx(one.components[key], abs=1e-4)
        assert two.accuracy == pytest.approx(one.accuracy, abs=1e-4)


def test_the_border_is_the_mirror_that_translation_sees() -> None:
    """Features at the corner are those of the image continued by its mirror."""
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    generator = doing_nothing()
    layer = look(generator, pixels, [(0, 0)])[2][3]
    around = np.pad(pixels, ((40, 40), (40, 40), (0, 0)), mode="reflect")
    image = torch.from_numpy(around / np.float32(127.5) - 1).permute(2, 0, 1)[None].float()
    feature = generator.encode(image, [4])[0][0, :, 20:-20, 20:-20].flatten(1).T
    keys = nn.functional.normalize(heads(generator).heads[3](feature), dim=1)
    expected = torch.exp((keys @ keys[0] - 1) / TRAIN.temperature).reshape(32, 32)
    assert layer.similarities[0] == pytest.approx(expected.detach().numpy(), abs=1e-4)


# ---------------------------------------------------------------------------------- accuracy


def test_accuracy_of_the_identity_is_one(identical: Looked) -> None:
    for layer in identical[2]:
        wanted = (15, 63, 255, 1023)
        assert layer.queries == min(4096, math.prod(layer.places))
        # Some of the random colours are so alike that layers of single pixels have them tied.
        few = 0.01 if layer.layer < 2 else 1e-4
        assert layer.accuracy == pytest.approx(dict.fromkeys(wanted, 1.0), abs=few)


def test_accuracy_of_the_same_features_everywhere_is_chance() -> None:
    flat = np.full((48, 48, 3), 90, np.uint8)
    for layer in look(doing_nothing(), flat, [(3, 3)])[2]:
        chance = {n: 1 / (n + 1) for n in (15, 63, 255, 1023) if n < math.prod(layer.places)}
        assert layer.accuracy == pytest.approx(chance, rel=1e-9)


def test_accuracy_of_an_output_without_content_is_chance(without_content: Looked) -> None:
    """All queries are equal, so every place of the input is the best of some draws."""
    for layer in without_content[2]:
        for n, accuracy in layer.accuracy.items():
            assert accuracy == pytest.approx(1 / (n + 1), rel=0.02)


def test_accuracy_of_random_rows_is_chance() -> None:
    torch.manual_seed(0)
    query, key = (nn.functional.normalize(torch.randn(4096, 32), dim=1) for _ in range(2))
    found = accuracies(query, key)
    for n, accuracy in found.items():  # three standard errors
        assert accuracy == pytest.approx(1 / (n + 1), abs=3 * math.sqrt(1 / (n + 1) / 4096))


def test_accuracy_counts_as_drawing_does() -> None:
    """Against draws one by one, with ties among them."""
    random = np.random.default_rng(0)
    # Unit vectors in the plane at whole multiples of an angle: many are equal.
    angles = random.integers(0, 12, (2, 40)) * 0.3
    query, key = (np.stack([np.cos(a), np.sin(a)], axis=1) for a in angles)
    found = accuracies(torch.from_numpy(query), torch.from_numpy(key))
    assert list(found) == [15]  # there are only 39 others
    wins, rounds = 0, 4000
    similarity = (query @ key.T).round(9)
    for _ in range(rounds):
        i = random.integers(40)
        others = random.choice(np.delete(np.arange(40), i), 15, replace=False)
        values = similarity[i, others]
        if (values <= similarity[i, i]).all():
            wins += random.integers((values == similarity[i, i]).sum() + 1) == 0
    assert 0.05 < found[15] < 0.6
    assert found[15] == pytest.approx(wins / rounds, abs=0.025)


def test_the_sample_follows_the_seed_and_covers_the_image(noise_image: np.ndarray) -> None:
    generator = doing_nothing()
    generator.to_rgb.weight.normal_(0, 8)
    first, again, other = (
        look(generator, noise_image, layers=(0,), seed=seed)[2][0].accuracy for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert first == pytest.approx(other, abs=0.05)


# --------------------------------------------------------------------------------------- PCA


def test_axes_against_the_singular_values() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 8)) * [9, 1, 5, 0.1, 2, 0.5, 0.2, 3] + random.normal(size=8)
    axes = Axes.fitted(rows)
    centred = rows - rows.mean(axis=0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    for axis, expected in zip(axes.axes, vectors, strict=False):
        sign = np.sign(expected[np.abs(expected).argmax()])
        assert axis == pytest.approx(expected * sign, abs=1e-9)
        assert axis[np.abs(axis).argmax()] > 0
    assert axes.variance == pytest.approx(tuple(values[:3] ** 2 / (values**2).sum()))
    scaled = axes.scaled((centred @ axes.axes.T).astype(np.float32))
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert (scaled == 0).mean(axis=0) == pytest.approx([0.02] * 3)
    assert (scaled == 1).mean(axis=0) == pytest.approx([0.02] * 3)


def test_axes_of_fewer_than_three_directions_are_grey() -> None:
    line = np.outer(np.linspace(-1, 1, 50), [3.0, -4.0]) + 100
    axes = Axes.fitted(line)
    assert axes.axes == pytest.approx(np.array([[-0.6, 0.8], [0, 0], [0, 0]]), abs=1e-9)
    assert axes.variance == pytest.approx((1, 0, 0))
    scaled = axes.scaled(np.zeros((4, 5, 3), np.float32))
    assert np.all(scaled[..., 1:] == 0.5)


def test_axes_of_a_flat_image_with_a_spot_show_the_spot() -> None:
    rows = np.zeros((100, 2))
    rows[7] = 1, 0
    axes = Axes.fitted(rows)
    scaled = axes.scaled(((rows - axes.mean) @ axes.axes.T).astype(np.float32))
    assert scaled[:, 0] == pytest.approx(rows[:, 0], abs=1e-6)


def test_components_of_the_content_and_the_result_are_comparable(
    identical: Looked, without_content: Looked
) -> None:
    for layer in identical[2]:
        for kind in ("encoder", "projected"):
            ours, theirs = layer.components[kind, "input"], layer.components[kind, "output"]
            assert ours.shape == (*layer.places, 3)
            assert ours == pytest.approx(theirs, abs=1e-4)
            assert ours.std() > 0.1
    other = without_content[2][0].components
    assert np.ptp(other["encoder", "output"], axis=(0, 1)) == pytest.approx([0] * 3, abs=1e-5)
    assert np.ptp(other["encoder", "input"], axis=(0, 1)) == pytest.approx([1] * 3)


def test_components_against_numpy() -> None:
    """Layer 0, whose encoder features are the colours, for an image that is sampled whole."""
    pixels = np.random.default_rng(2).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    pixels[..., 1] //= 2
    pixels[..., 2] //= 4
    layer = look(doing_nothing(), pixels, [(1, 1)])[2][0]
    rows = pixels.reshape(-1, 3) / 127.5 - 1
    centred = rows - rows.mean(axis=0)
    vectors = np.linalg.svd(centred, full_matrices=False)[2]
    vectors *= np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1))
    parts = centred @ vectors.T
    low, high = np.percentile(np.concatenate([parts, parts]), (2, 98), axis=0)
    expected = ((parts - low) / (high - low)).clip(0, 1).reshape(32, 40, 3)
    assert layer.components["encoder", "input"] == pytest.approx(expected, abs=1e-5)


# ---------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("largest", [False, True])
def test_maps_are_reduced_the_same_in_any_pieces(largest: bool) -> None:
    values = np.random.default_rng(0).random((2, 37, 50), dtype=np.float32)
    small = ReducedMap(2, (37, 50), reduced_size((37, 50), 16), largest=largest)
    for top, bottom in ((0, 10), (10, 11), (11, 37)):
        for left, right in ((0, 33), (33, 50)):
            small.add(top, left, values[:, top:bottom, left:right])
    assert small.size == (12, 16)
    found = small.result()
    for row in range(12):
        for column in range(16):
            rows = [i for i in range(37) if i * 12 // 37 == row]
            columns = [j for j in range(50) if j * 16 // 50 == column]
            block = values[:, rows][:, :, columns]
            expected = block.max((1, 2)) if largest else block.mean((1, 2))
            assert found[:, row, column] == pytest.approx(expected, abs=1e-6)


def test_strides_of_layers() -> None:
    generator = StyleGAN2Generator(4, blocks=4, downsamplings=2)
    features = generator.encode(torch.zeros(1, 3, 32, 32), range(6))
    assert [32 // each.shape[2] for each in features] == [*generator.strides.values()]


def test_heat_is_even_and_rises() -> None:
    scale = scale_picture(256, 3)
    assert scale.shape == (3, 256, 3)
    assert np.array_equal(scale[0], scale[2])
    assert np.ptp(scale[0, 0].astype(int)) <= 1  # grey
    lab = _lab(scale[0] / 255)
    assert (np.diff(lab[::8, 0]) > 0).all()
    steps = np.linalg.norm(np.diff(lab[::15], axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()


def test_heat_leaves_the_grey_image_where_there_is_none() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    grey = grey_of(pixels)
    cold = heated(grey, np.zeros_like(grey))
    assert np.ptp(cold.astype(int), axis=2).max() <= 1
    order = grey.ravel().argsort()
    assert (np.diff(cold[..., 0].ravel()[order].astype(int)) >= 0).all()
    hot = heated(grey, np.ones_like(grey))
    assert np.ptp(hot.reshape(-1, 3), axis=0).max() == 0


def test_pictures_show_the_places(made: tuple[Inspection, Path, Any]) -> None:
    found, folder, _ = made
    layer = found.layers[1]
    assert (layer.layer, layer.stride) == (2, 2)
    values = enlarged(layer.similarities[0], found, layer)
    assert np.array_equal(values, layer.similarities[0].repeat(2, 0).repeat(2, 1))
    picture = np.asarray(Image.open(folder / "point1_layer2.png"))
    assert np.array_equal(picture, heat_picture(found, layer, 0, 160))
    unmarked = heated(grey_of(found.content), values)
    different = np.argwhere((picture != unmarked).any(axis=2))
    match = layer.matches[0]
    for y, x in different:  # only near the ring around the point, or the cross
        assert min(math.dist((x, y), each) for each in ((40, 60), (match.x, match.y))) < 10
    assert len(different) > 20
    assert (picture[60, 40] == unmarked[60, 40]).all() or match.distance > 0

    parts = np.asarray(Image.open(folder / "pca_projected_output_layer2.png"))
    assert np.array_equal(parts, component_picture(found, layer, "projected", "output"))
    expected = layer.components["projected", "output"].repeat(2, 0).repeat(2, 1)
    assert np.abs(parts / 255 - expected).max() <= 0.5 / 255 + 1e-6


def shown(looked: Looked, size: tuple[int, int], point: tuple[int, int]) -> Inspection:
    """An inspection of one point."""
    return Inspection(Path("run"), Path("x.png"), {}, size, (point,), 0.07, 0, *looked, True)


def test_pictures_show_every_entry_of_a_map() -> None:
    """None is passed over at any size: the one that is might be the best place."""
    for rows, columns, width in (
        (301, 500, 205),
        (97, 130, 64),
        (129, 64, 65),
        (1201, 40, 600),
        (57, 61, 17),
    ):
        for stride in (1, 2, 4):
            most = reduced_size((rows, columns), width)
            places = -(-rows // stride), -(-columns // stride)
            size = ReducedMap(1, places, most, largest=True).size
            values = np.arange(math.prod(size), dtype=np.float32).reshape(size)
            pixels = np.zeros((*most, 3), np.uint8)
            layer = LayerFindings(4, stride, places, (), values[None], {}, {}, {}, 0)
            found = shown((pixels, pixels, (layer,)), (rows, columns), (0, 0))
            assert len(np.unique(enlarged(values, found, layer))) == values.size, (rows, stride)


def test_small_pictures_keep_the_best_place(identical: Looked) -> None:
    """One bright place of a sharp map is a pixel of the picture, however small that is."""
    found = shown(identical, (96, 130), (80, 40))
    layer = found.layers[3]
    sharp = replace(layer, similarities=np.zeros((1, 48, 65), np.float32))
    sharp.similarities[0, 20, 40] = 1
    hottest = heated(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))[0, 0]
    for longest in (130, 65, 26):
        picture = heat_picture(found, sharp, 0, longest)
        assert max(picture.shape) == longest
        hot = np.argwhere((picture == hottest).all(axis=2))
        assert (hot * (130 / longest)).mean(axis=0) == pytest.approx([40, 80], abs=130 / longest)


def test_the_inset_shows_the_surroundings(noise_image: np.ndarray) -> None:
    pixels = noise_image.repeat(3, 0).repeat(3, 1)
    found = shown(look(doing_nothing(), pixels, [(300, 40)], layers=(4,)), (288, 390), (300, 40))
    (layer,) = found.layers

    def different(layer: LayerFindings) -> tuple[np.ndarray, np.ndarray]:
        plain, inset = (heat_picture(found, layer, 0, 390, inset=flag) for flag in (False, True))
        where = (plain != inset).any(axis=2)
        return np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))

    inset = heat_picture(found, layer, 0, 390, inset=True)
    down, across = different(layer)
    # 24 pixels around the point, four times their size, in the corner farthest from it.
    assert (down[0], across[0]) == (185, 1)
    assert (down[-1], across[-1]) == (286, 102)
    values = enlarged(layer.similarities[0], found, layer)[28:52, 288:312]
    expected = heated(grey_of(pixels[28:52, 288:312]), values).repeat(4, 0).repeat(4, 1)
    assert np.array_equal(inset[188:284, 4:100], expected)
    # It does not cover the best place.
    match = Match(x=40, y=240, distance=300, similarity=0, best=1, rank=2, ties=0)
    down, across = different(replace(layer, matches=(match,)))
    assert (down[0], across[0]) in ((1, 1), (185, 287))


def test_pictures_are_reduced(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path) -> None:
    found = inspect(tiny_run, pair[0], [(40, 60)], tmp_path, width="100", device="cpu")
    names = [path.name for path in tmp_path.glob("*.png") if path.name != "sheet.png"]
    assert len(names) == 2 + 3 + 12
    for name in names:
        assert size_of(tmp_path / name) == (100, 80), name
    content = Image.open(pair[0]).convert("RGB").resize((100, 80), Image.Resampling.BOX)
    assert np.array_equal(found.content, np.asarray(content))
    assert [layer.similarities.shape for layer in found.layers] == [
        (1, 80, 100),
        *[(1, 64, 80)] * 2,
    ]
    assert found.size == (128, 160)


def test_the_sheet_holds_everything(made: tuple[Inspection, Path, Any]) -> None:
    found, folder, _ = made
    picture = np.asarray(Image.open(folder / "sheet.png"))
    assert np.array_equal(picture, sheet(found))
    # Cells of 160×128 at gaps of 12; labels of the smallest font are 18 pixels high.
    lines = wrapped(_CAPTION, ImageFont.load_default(11), 2 * 172 - 12)
    assert len(lines) > 1
    assert picture.shape == (3 * (128 + 18 + 12) + 18 * len(lines) + 12, 3 * (160 + 12) + 12, 3)
    caption = (picture[12 + 3 * 158 :, 184:] < 128).any(axis=2)
    for line in range(len(lines)):
        assert caption[18 * line : 18 * line + 18].any()
    assert not caption[:, 2 * 172 - 6 :].any()  # nothing is cut off at the right
    assert np.array_equal(picture[30:158, 12:172], found.content)
    for row, layer in enumerate(found.layers):
        for column in range(2):
            top, left = 30 + row * 158, 12 + (column + 1) * 172
            heat = heat_picture(found, layer, column, 160, inset=True)
            assert np.array_equal(picture[top : top + 128, left : left + 160], heat)
    labels = picture[12:30, 12:172]
    assert (labels < 128).any()  # something is written


# ------------------------------------------------------------------------------ files and page


def test_what_is_written(
    made: tuple[Inspection, Path, list[tuple[str, int, int]]], pair: tuple[Path, Path],
    tiny_run: Path,
) -> None:  # fmt: skip
    found, folder, steps = made
    maps = {f"point{p}_layer{n}.png" for p in (1, 2) for n in (0, 2, 4)}
    maps |= {
        f"pca_{kind}_{role}_layer{n}.png"
        for kind in ("encoder", "projected")
        for role in ("input", "output")
        for n in (0, 2, 4)
    }
    files = {"index.html", "inspect.json", "sheet.png", "content.png", "result.png"}
    assert {path.name for path in folder.iterdir()} == files | maps
    content = np.asarray(Image.open(pair[0]))
    translated = translate_pixels(load_generator(tiny_run), content, TranslateConfig())
    result = np.asarray(Image.open(folder / "result.png")).astype(int)
    assert np.abs(result - translated).max() <= 1  # rounded with and without tiles
    assert np.array_equal(found.content, content)
    assert found.is_content
    assert found.notices == ()

    record = json.loads((folder / "inspect.json").read_text())
    assert record == json.loads(json.dumps(found.to_dict()))
    assert (record["width"], record["height"], record["step"]) == (160, 128, 6)
    assert record["model_sha256"] == load_model(tiny_run).header["sha256"]
    assert [(point["x"], point["y"]) for point in record["points"]] == [(40, 60), (159, 127)]
    of_point = record["points"][1]["layers"][2]
    match = found.layers[2].matches[1]
    assert (of_point["layer"], of_point["best_x"], of_point["best_y"]) == (4, match.x, match.y)
    assert of_point["right"] is (match.distance == 0)
    assert of_point["similarity"] == round(match.similarity, 6)
    of_layer = record["layers"][0]
    assert (of_layer["rows"], of_layer["columns"], of_layer["queries"]) == (128, 160, 4096)
    assert [each["negatives"] for each in of_layer["accuracy"]] == [15, 63, 255, 1023]
    assert of_layer["accuracy"][0]["chance"] == 0.0625
    assert of_layer["accuracy"][0]["accuracy"] == round(found.layers[0].accuracy[15], 6)

    assert [done for _, done, _ in steps] == list(range(19))  # 6 tiles, three times, and the end
    assert {total for *_, total in steps} == {18}
    assert [text for text, *_ in steps[::6]] == ["translating", "sampling", "comparing", "done"]


def test_the_page(made: tuple[Inspection, Path, Any]) -> None:
    found, folder, _ = made
    text = (folder / "index.html").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", text)
    assert len(images) == 1 + 2 * 3 + 1 + 4 * 3
    alts = [re.search(r'alt="([^"]{20,})"', image) for image in images]
    assert all(alts)
    assert len({each[1] for each in alts if each}) == len(images)  # each says what it is
    assert all('src="data:image/jpeg;base64,' in image for image in images)
    assert not re.search(
        r'(?:src|href|url)\s*[=(]\s*["\']?(?!data:)[\w/.#]', text.split("<script>")[0]
    )
    assert "://" not in text
    assert text.count('type="radio"') == 2
    assert text.count(" checked>") == 1
    assert text.count("<section data-point=") == 2
    assert "<td>1.6%</td>" in text
    for layer in found.layers:
        assert f"<td>{layer.accuracy[255]:.1%}</td>" in text
    match = found.layers[0].matches[0]
    assert match.distance > 0
    assert f"The best place is {match.distance:.0f} pixels away" in text
    assert "the content the run was trained on" in text


def test_what_comes_from_outside_is_escaped(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "<img src=x onerror=alert(1)>&\"'.png"
    Image.open(pair[1]).crop((0, 0, 40, 40)).save(hostile)
    monkeypatch.chdir(tiny_run)
    found = inspect(".", hostile, [(30, 10)], tmp_path / "out", device="cpu")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in text
    assert html.escape(hostile.name) in text
    assert not found.is_content
    assert "not the content the run was trained on" in text
    record = (tmp_path / "out" / "inspect.json").read_text()
    assert json.loads(record)["image"] == hostile.name
    assert json.loads(record)["run"] == tiny_run.name
    assert f"model of {tiny_run.name} after 6 steps" in text
    assert str(tmp_path) not in record + text  # both may be sent on


def test_the_page_stays_small(
    made: tuple[Inspection, Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = page(made[0])
    monkeypatch.setattr(similarity_page, "_MOST_BYTES", len(usual) // 3)
    small = page(made[0])
    assert small.count("<img ") == usual.count("<img ")
    assert len("".join(re.findall(r"data:image[^\"]*", small))) <= len(usual) / 3


def test_of_a_point_or_a_row_there_is_no_accuracy(tiny_run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    found = inspect(tiny_run, tmp_path / "dot.png", [(0, 0)], tmp_path / "out", device="cpu")
    for layer in found.layers:
        assert layer.accuracy == {}
        assert layer.similarities == pytest.approx(np.ones((1, 1, 1)))
        assert (layer.matches[0].rank, layer.matches[0].distance) == (1, 0)
    assert "too few places to ask" in (tmp_path / "out" / "index.html").read_text()
    assert (
        json.loads((tmp_path / "out" / "inspect.json").read_text())["layers"][0]["accuracy"] == []
    )
    told = run(tiny_run, tmp_path / "dot.png", "--at", "0,0", "-o", tmp_path / "out", "--force")
    assert told.output.splitlines()[1] == "Layer 0: too few places to ask"


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("at", ["12;34", "12", "1,2,3", "1.5,2", "a,b", "", "1,"])
def test_malformed_points(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path, at: str) -> None:
    assert message(inspect, tiny_run, pair[0], [at], tmp_path / "out") == (
        f"--at must be X,Y in whole pixels of the image, got {at}; try --at 120,80"
    )


@pytest.mark.parametrize("at", [(1.5, 2), (1,), 7, None])
def test_malformed_points_in_python(tiny_run: Path, tmp_path: Path, at: Any) -> None:
    assert message(inspect, tiny_run, "x.png", [at], tmp_path / "out") == (
        f"--at must be X,Y in whole pixels of the image, got {at}; try --at 120,80"
    )


@pytest.mark.parametrize("at", ["160,0", "0,128", "-1,5"])
def test_points_outside(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path, at: str) -> None:
    assert message(inspect, tiny_run, pair[0], ["3,4", at], tmp_path / "out") == (
        f"--at {at} is outside {pair[0]}, whose pixels are 0,0 to 159,127; try --at 80,64"
    )
    assert not (tmp_path / "out").exists()


def test_numbers_of_points(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path) -> None:
    assert message(inspect, tiny_run, pair[0], [], tmp_path / "out") == (
        "give 1 to 32 points of the image, got 0; try --at 120,80"
    )
    many = [(x, 0) for x in range(33)]
    assert message(inspect, tiny_run, pair[0], many, tmp_path / "out") == (
        "give 1 to 32 points of the image, got 33; try --at 120,80"
    )
    assert message(inspect, tiny_run, pair[0], ["3,4", (3, 4)], tmp_path / "out") == (
        "--at 3,4 is given twice; give every point once"
    )


def test_models_without_heads(tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    model = load_model(tiny_run)
    path = tmp_path / "imported.safetensors"
    save_model(path, model.generator, None, {**model.header, "origin": "authors' code"})
    assert message(inspect, path, pair[0], ["3,4"], tmp_path / "out") == (
        f"{path} has no projection heads, which PatchNCE compares with (its origin: authors' "
        "code); try a run of sincut train"
    )


def test_heads_that_learned_nothing_are_told(tiny_run: Path, small: Path, tmp_path: Path) -> None:
    model = load_model(tiny_run)
    config = {**model.header["config"], "lambda_x": 0.0, "lambda_y": 0.0}
    path = tmp_path / "gan.safetensors"
    save_model(path, model.generator, model.projector, {**model.header, "config": config})
    Image.open(small).convert("RGBA").save(tmp_path / "alpha.png")
    found = inspect(path, tmp_path / "alpha.png", ["3,4"], tmp_path / "out", device="cpu")
    assert found.notices == (
        "its alpha channel is not looked at",
        "the run was trained without PatchNCE; its projection heads are as drawn",
    )
    assert "Note: its alpha channel is not looked at." in (tmp_path / "out/index.html").read_text()


def test_folders(
    made: tuple[Inspection, Path, Any], pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    a_file = tmp_path / "file"
    a_file.write_text("mine")
    assert message(inspect, tiny_run, pair[0], ["3,4"], a_file) == (
        f"{a_file} is a file, not a folder; give another -o"
    )
    for force in (False, True):
        assert message(inspect, tiny_run, pair[0], ["3,4"], tmp_path, force=force) == (
            f"{tmp_path} is not empty and holds no inspection; give another -o"
        )
    assert message(inspect, tiny_run, pair[0], ["3,4"], a_file / "new" / "out") == (
        f"{a_file} is a file, so {a_file}/new/out cannot be made; give another -o"
    )
    assert a_file.read_text() == "mine"
    folder = made[1]
    before = (folder / "inspect.json").read_bytes()
    assert message(inspect, tiny_run, pair[0], ["3,4"], folder) == (
        f"{folder} holds an inspection already; try --force to make it anew, or another -o"
    )
    inside = folder / "content.png"
    assert message(inspect, tiny_run, inside, ["3,4"], folder, force=True) == (
        f"{inside} lies in {folder}, whose files are made anew; give another -o"
    )
    assert (folder / "inspect.json").read_bytes() == before


def test_making_it_again_leaves_nothing_behind(
    small: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inspect.json").write_text("{}")
    for name in ("point7_layer0.png", "pca_encoder_input_layer9.png", "mine.png", "point7.png"):
        (tmp_path / name).write_bytes(b"old")
    before = {path.name for path in tmp_path.iterdir()}
    with monkeypatch.context() as broken:  # what fails on the way takes nothing with it
        broken.setattr(inspect_page, "page", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            inspect(tiny_run, small, ["3,4"], tmp_path, force=True, device="cpu")
    assert before <= {path.name for path in tmp_path.iterdir()}
    inspect(tiny_run, small, ["3,4"], tmp_path, force=True, device="cpu")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"mine.png", "point7.png", "point1_layer0.png", "index.html"} <= names
    assert not names & {"point7_layer0.png", "pca_encoder_input_layer9.png"}


def test_too_little_memory(
    small: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([MemoryError(), RuntimeError("of another kind")])

    def failing(*_: Any) -> None:
        raise next(errors)

    monkeypatch.setattr(inspection, "findings", failing)
    assert message(inspect, tiny_run, small, ["3,4"], tmp_path / "out", device="cpu") == (
        f"{small} of 40×40 pixels could not be inspected: memory ended; try --tile 256, a smaller "
        "--width, fewer points or a smaller image"
    )
    with pytest.raises(RuntimeError, match="of another kind"):
        inspect(tiny_run, small, ["3,4"], tmp_path / "out", device="cpu")


def test_other_refusals(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert message(inspect, tiny_run, pair[0], ["3,4"], out, width="10") == (
        "width must be from 64 to 16384, got 10; try --width 2048"
    )
    assert message(inspect, tiny_run, pair[0], ["3,4"], out, seed=-1) == (
        f"seed must be from 0 to {2**63 - 1:g}, got -1; try --seed 0"
    )
    assert message(inspect, tiny_run, pair[0], ["3,4"], out, tile="8") == (
        "tile must be a number of pixels from 16, auto or whole, got 8; try --tile 512"
    )
    absent = tmp_path / "absent.png"
    assert message(inspect, tiny_run, absent, ["3,4"], out) == (
        f"{absent} does not exist; give an image file"
    )
    assert message(inspect, tmp_path, pair[0], ["3,4"], out) == (
        f"{tmp_path} is not a run: it has no model.safetensors; give a run folder or a model file"
    )
    assert not out.exists()


# -------------------------------------------------------------------------------- command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_the_command_does_as_the_function(
    made: tuple[Inspection, Path, Any],
    pair: tuple[Path, Path],
    small: Path,
    tiny_run: Path,
    tmp_path: Path,
) -> None:
    found = made[0]
    given = (tiny_run, pair[0], "--at", "40,60", "--at", "159,127", "--tile", 64)
    result = run(*given, "-o", tmp_path / "a", "--device", "cpu")
    assert result.exit_code == 0, result.output
    match = found.layers[0].matches[0]
    lines = result.output.splitlines()
    assert lines[0].startswith(
        f"Point 40,60: layer 0 {match.distance:.0f} px away (rank {match.rank}); layer 2 "
    )
    assert lines[2].startswith(
        f"Layer 0: the right place wins {found.layers[0].accuracy[15]:.1%} among 16, "
    )
    assert lines[2].endswith("among 1024 (4096 queries)")
    assert lines[-1] == f"Look at {tmp_path / 'a' / 'index.html'}"
    for path in made[1].iterdir():
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes(), path.name

    given = (tiny_run, small, "--at", "3,4", "-o", tmp_path / "small", "--seed", "5")
    assert run(*given, "--quiet").output == ""
    record = json.loads((tmp_path / "small" / "inspect.json").read_text())
    assert record["seed"] == 5
    again = run(*given, "--force", "--json")
    assert json.loads(again.output) == {"output": str(tmp_path / "small"), **record}


def test_the_commands_errors(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path) -> None:
    result = run(tiny_run, pair[0], "--at", "12;34", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.output == (
        "Error: --at must be X,Y in whole pixels of the image, got 12;34; try --at 120,80\n"
    )
    narrow = run(tiny_run, pair[0], "--at", "1,2", "-o", tmp_path / "out", "--width", "10")
    assert narrow.output == "Error: width must be from 64 to 16384, got 10; try --width 2048\n"
    assert "Missing option '--at'" in run(tiny_run, pair[0], "-o", tmp_path / "out").output


def test_a_network_that_normalises_is_inspected_in_one_piece(tmp_path: Path) -> None:
    """Every layer, the padded image among them, and G as the network itself has it."""
    torch.manual_seed(0)
    generator = ResnetGenerator(3, 5).eval().requires_grad_(False)
    layers = (0, 4, 8, 12, 16)
    heads = PatchProjector([generator.layer_channels[each] for each in layers], 16)
    config = folder_config("cut", layers=layers, projection_width=16)
    header = {"config": config.to_dict(), "origin": "test"}
    save_model(tmp_path / "model.safetensors", generator, heads, header)
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    write_png(tmp_path / "image.png", pixels)
    found = inspected(
        tmp_path / "model.safetensors",
        tmp_path / "image.png",
        ["20,10"],
        InspectConfig(),
        TranslateConfig(device="cpu"),
    )
    assert [layer.layer for layer in found.layers] == list(layers)
    assert found.notices == ("it is cut to 48×36, multiples of 4",)
    with torch.inference_mode():
        seen = torch.from_numpy(pixels[:36, :48])
        whole = generator(seen.permute(2, 0, 1)[None] / 127.5 - 1)
    expected = ((whole[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
    assert np.abs(found.result.astype(int) - expected.numpy()).max() <= 1
    with pytest.raises(SincutError, match="is inspected in one piece, got --tile 32; try it"):
        inspected(
            tmp_path / "model.safetensors",
            tmp_path / "image.png",
            ["20,10"],
            InspectConfig(),
            TranslateConfig(device="cpu", tile="32"),
        )
