"""Where crops come from, and what they hold. The resize itself is in test_crop_kernel.py."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sincut.compute.processes import Processes
from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.crops import ResidentImage, draw_boxes, draw_places, halvings
from sincut.data.pair import Pair
from sincut.data.places import Places
from sincut.data.random_numbers import RandomNumbers
from sincut.errors import SincutError


def config(**changes: Any) -> PairConfig:
    return train_config("paper", **{"crop": 32, "tile": 16, "batch": 64, **changes})


def draws(seed: int = 0, step: int = 0, device: str = "cpu") -> RandomNumbers:
    return RandomNumbers(seed, torch.tensor(step, device=device))


def boxes_of(height: int, width: int, settings: PairConfig, steps: int = 1, **place: int) -> Any:
    """(steps · batch, 5): rows, columns, top, left, mirrored."""
    values = {"seed": 0, "step": 0, "stream": 0, **place}
    where = draws(values["seed"], values["step"])
    boxes = draw_boxes(height, width, settings, where, steps, stream=values["stream"])
    return boxes.flatten(0, 1).numpy()


def cuts_of(image: ResidentImage, settings: PairConfig, steps: int) -> tuple[Tensor, Tensor]:
    """Places and scales of all crops of the first steps."""
    where = draw_places(image, settings, draws(settings.seed), steps, stream=0)
    places, scales = image.cuts(*where)
    return places.flatten(0, 1), scales.flatten(0, 1)


def test_a_crop_is_pillows_resize_then_cut(noise_image: np.ndarray) -> None:
    image = ResidentImage(noise_image, config(zoom="factor", zoom_min=0.3, zoom_max=1))
    boxes = torch.tensor([[64, 87, 5, 11, 0], [33, 40, 1, 8, 1], [96, 130, 64, 98, 0]])
    crops = image.crops(*image.cuts(boxes), 32)
    assert crops.shape == (3, 3, 32, 32)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    for (rows, columns, top, left, mirrored), crop in zip(boxes.tolist(), crops, strict=True):
        resized = Image.fromarray(noise_image).resize((columns, rows), Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((left, top, left + 32, top + 32))).astype(float)
        expected = expected[:, ::-1] if mirrored else expected
        got = (crop.permute(1, 2, 0).numpy() + 1) * 127.5
        # Pillow rounds to whole counts after each of its two passes.
        assert np.abs(got - expected).max() < 1.2


def test_a_strong_shrink_from_a_halved_copy_is_close_to_pillows() -> None:
    """From a factor of four the filter starts at a box-averaged copy, as with reducing_gap=2."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((960, 640), Image.Resampling.BICUBIC))
    image = ResidentImage(large, config(zoom_min=96, zoom_max=120))
    assert image.first_level == 2
    expected = Image.fromarray(large).resize((96, 64), Image.Resampling.BILINEAR)
    crop = image.crops(*image.cuts(torch.tensor([[64, 96, 7, 5, 0]])), 32)[0]
    got = (crop.permute(1, 2, 0).numpy() + 1) * 127.5
    difference = np.abs(got - np.asarray(expected.crop((5, 7, 37, 39))).astype(float))
    assert difference.mean() < 1.5
    assert difference.max() < 8


def test_work_does_not_grow_with_the_image() -> None:
    """However large the image, a crop is shrunk by less than four from the copy it is cut of."""
    scales: list[Tensor] = []
    for width in (1000, 3000, 9000):
        settings = config(batch=20, zoom_per="crop", zoom_min=64, zoom_max=200)
        image = ResidentImage(np.zeros((300, width, 3), np.uint8), settings)
        scales.append(cuts_of(image, settings, 10)[1])
        assert len(image.planes) < 3 * 300 * max(4 * 200, width) * 4 / 3
    assert 0 < torch.cat(scales).max() < 4


@pytest.mark.parametrize(
    ("height", "width", "zoom"),
    [(2731, 4096, {}), (1000, 1000, {"zoom": "factor", "zoom_min": 0.12501, "zoom_max": 0.12501})],
)
def test_a_rounded_box_still_finds_its_copy(height: int, width: int, zoom: dict[str, Any]) -> None:
    """At a power of two the box in whole pixels may lie on the other side of it."""
    settings = config(batch=4000, zoom_per="crop", **zoom)
    image = ResidentImage(np.zeros((height, width, 3), np.uint8), settings)
    chosen = cuts_of(image, settings, 20)[0][:, 0]
    assert chosen.min() >= 0
    assert chosen.max() < len(image.copies)


def test_boxes_lie_inside_and_zoom_as_the_paper_has_it() -> None:
    boxes = boxes_of(1000, 1500, config(zoom_min=384, zoom_max=1024))
    assert len(boxes) == 64
    assert len({tuple(box[:2]) for box in boxes}) == 1  # one zoom per step
    assert 20 < boxes[:, 4].sum() < 44
    settings = config(batch=1)
    rows, columns, top, left, _ = boxes_of(1000, 1500, settings, steps=300).T
    assert ((top >= 0) & (top <= rows - 32) & (left >= 0) & (left <= columns - 32)).all()
    assert np.abs(rows - columns * 1000 / 1500).max() < 1
    assert 384 <= columns.min() < 400
    assert 1008 < columns.max() <= 1024
    assert columns.mean() == pytest.approx(704, abs=35)


def test_published_zoom_and_grid_are_reachable() -> None:
    published = train_config("published", crop=32, tile=32, batch=200)
    rows, columns, top, left, _ = boxes_of(300, 400, published).T
    factors = np.stack([rows / 300, columns / 400])
    assert len(set(map(tuple, factors.T))) > 150  # a zoom per crop
    assert abs(np.corrcoef(factors)[0, 1]) < 0.2  # and a factor per axis
    assert factors.min() > 0.32
    assert factors.max() <= 1
    assert factors.mean() == pytest.approx(2 / 3, abs=0.03)
    # Cells side by side, shifted by what the grid leaves over.
    assert (top % 32 <= rows % 32).all()
    assert (left % 32 <= columns % 32).all()
    assert (top + 32 <= rows).all()
    assert (left + 32 <= columns).all()
    assert len(set(zip(top // 32, left // 32, strict=True))) > 30


def test_every_place_is_reached() -> None:
    settings = config(batch=2000, zoom="factor", zoom_min=1, zoom_max=1)
    counts = collections.Counter(map(tuple, boxes_of(36, 34, settings)[:, 2:4]))
    assert len(counts) == 5 * 3
    assert min(counts.values()) > 80


def test_zoom_never_enlarges_and_a_crop_always_fits() -> None:
    for height, width in ((33, 2000), (2000, 33), (32, 32), (50, 60)):
        for placement in ("anywhere", "grid"):
            settings = config(batch=40, zoom_per="crop", placement=placement)
            rows, columns, top, left, _ = boxes_of(height, width, settings).T
            assert rows.min() >= 32
            assert rows.max() <= height
            assert columns.min() >= 32
            assert columns.max() <= width
            assert (top + 32 <= rows).all()
            assert (left + 32 <= columns).all()
        white = ResidentImage(np.full((height, width, 3), 255, np.uint8), config())
        crops = white.crops(*cuts_of(white, config(batch=3), 1), 32)
        assert torch.allclose(crops, torch.ones(()), atol=1e-5)


def test_draws_depend_on_seed_step_and_stream() -> None:
    settings = config(batch=8)
    base = boxes_of(500, 700, settings)
    assert np.array_equal(base, boxes_of(500, 700, settings))
    for other in ({"seed": 1}, {"seed": 2**40}, {"step": 1}, {"step": -1}, {"stream": 1}):
        assert not np.array_equal(base, boxes_of(500, 700, settings, **other)), other


def test_mirror_is_a_probability() -> None:
    assert boxes_of(500, 700, config(mirror=0))[:, 4].sum() == 0
    assert boxes_of(500, 700, config(mirror=1))[:, 4].sum() == 64


def test_halvings_leave_a_factor_of_two_to_four() -> None:
    shrink = torch.tensor([0.5, 1, 3.99, 4, 7.99, 8, 100], dtype=torch.float64)
    assert halvings(shrink).tolist() == [0, 0, 0, 1, 1, 2, 5]


def test_an_image_smaller_than_a_crop_is_refused() -> None:
    for shape, advice in (
        ((31, 90, 3), "--set crop=16 --set tile=16 or a larger image"),
        ((9, 90, 3), "a larger image"),
    ):
        with pytest.raises(SincutError) as caught:
            ResidentImage(np.zeros(shape, np.uint8), config())
        assert str(caught.value) == (
            f"an image must be at least as large as a crop (32×32 pixels), got 90×{shape[0]}; "
            f"try {advice}"
        )


TISSUE = np.arange(64).reshape(1, 8, 8) % 3 == 0


@pytest.mark.parametrize("part", [0, 2])
@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"zoom_axes": "independent", "zoom_per": "crop", "placement": "grid"}, {}),
        (
            {"lambda_painting": 1.0, "look": 0.0},
            {"style_places": Places((2, 1))},
        ),
        ({}, {"content_places": Places((1, 2), TISSUE.repeat(2, 0))}),
    ],
    ids=["as published", "paints, squares", "tissue"],
)
def test_a_feed_finds_every_steps_own_crops(
    changes: dict[str, Any],
    places: dict[str, Places],
    part: int,
    noise_image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In blocks of three steps, in any order; each is laid out here by itself."""
    settings = config(batch=2, device="cpu", crop=16, zoom_min=40, **changes)
    pair = Pair(noise_image, noise_image[::-1].copy(), **places)
    monkeypatch.setattr("sincut.data.pair._AHEAD", 7)
    feed = pair.feed(settings, warm=False, processes=Processes(part, 3, None))
    assert len(feed.images) == (3 if settings.paints else 2)
    for step in (-4, -3, -1, 0, 1, 2, 3, 8, -1):
        own = RandomNumbers(settings.seed, torch.tensor(step), part, 3)
        feed.prepare(step)
        got = feed.draw(own)
        drawn = [
            draw_places(image, settings, own, 1, stream=stream)
            for stream, image in enumerate(feed.images[:2])
        ]
        for image, where, crops in zip(feed.images, (*drawn, drawn[0]), got, strict=False):
            places, scales = image.cuts(*where)
            assert torch.equal(crops, image.crops(places[0], scales[0], 16))


@pytest.mark.gpu
def test_the_same_crops_on_cuda(noise_image: np.ndarray) -> None:
    settings = config(batch=16, zoom_per="crop", zoom_min=40)
    pair = Pair(noise_image, noise_image)
    feeds = [pair.feed(settings.replaced(device=each), warm=False) for each in ("cpu", "cuda")]
    for step in (-1, 0, 1):
        crops = []
        for feed in feeds:
            feed.prepare(step)
            crops.append(feed.draw(draws(settings.seed, step, feed.config.device)))
        for expected, got in zip(*(each[:2] for each in crops), strict=True):
            assert torch.allclose(got.cpu(), expected, atol=1e-4)
