"""Crops against Pillow's resize, and where they come from."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sincut.config import TrainConfig, train_config
from sincut.crops import Box, ResidentImage, _filter, draw_boxes, draw_crops
from sincut.errors import SincutError


def config(**changes: object) -> TrainConfig:
    return train_config("paper", **{"crop": 32, "tile": 16, "batch": 64, **changes})  # type: ignore[arg-type]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rows", "columns"), [(96, 130), (64, 87), (33, 40), (96, 65), (48, 130)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_is_pillows_resize_then_cut(
    noise_image: np.ndarray, rows: int, columns: int, mirrored: bool
) -> None:
    image = ResidentImage(noise_image, config(zoom="factor", zoom_min=0.3, zoom_max=1))
    resized = Image.fromarray(noise_image).resize((columns, rows), Image.Resampling.BILINEAR)
    for top, left in ((0, 0), (rows - 32, columns - 32), ((rows - 32) // 2, (columns - 32) // 3)):
        crop = image.crop(Box(rows, columns, top, left, mirrored), 32)
        expected = np.asarray(resized.crop((left, top, left + 32, top + 32))).astype(float)
        if mirrored:
            expected = expected[:, ::-1]
        got = (crop.permute(1, 2, 0).numpy() + 1) * 127.5
        assert crop.shape == (3, 32, 32)
        # Pillow rounds to whole counts after each of its two passes.
        assert np.abs(got - expected).max() < 1.2


def test_a_strong_shrink_from_a_halved_copy_is_close_to_pillows() -> None:
    """Beyond a factor of four the filter starts from a box-averaged copy, as reducing_gap=2."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((960, 640), Image.Resampling.BICUBIC))
    image = ResidentImage(large, config(zoom_min=96, zoom_max=120))
    expected = (
        Image.fromarray(large).resize((96, 64), Image.Resampling.BILINEAR).crop((5, 7, 37, 39))
    )
    got = (image.crop(Box(64, 96, 7, 5, False), 32).permute(1, 2, 0).numpy() + 1) * 127.5
    difference = np.abs(got - np.asarray(expected).astype(float))
    assert difference.mean() < 1.5
    assert difference.max() < 8


def test_work_does_not_grow_with_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the image, a crop reads a window of less than about four crops a side."""
    windows: list[int] = []

    def spy(*arguments: Any) -> Any:
        inputs, weights = _filter(*arguments)
        windows.append(inputs.stop - inputs.start)
        return inputs, weights

    monkeypatch.setattr("sincut.crops._filter", spy)
    for width in (1000, 3000, 9000):
        settings = config(batch=20, zoom_per="crop", zoom_min=64, zoom_max=200)
        image = ResidentImage(np.zeros((300, width, 3), np.uint8), settings)
        draw_crops(image, settings, seeded())
    assert max(windows) <= 4 * 32 + 8


def test_boxes_lie_inside_and_zoom_as_the_paper_has_it() -> None:
    boxes = draw_boxes(1000, 1500, config(zoom_min=384, zoom_max=1024), seeded())
    assert len(boxes) == 64
    assert len({(box.rows, box.columns) for box in boxes}) == 1  # one zoom per step
    assert 20 < sum(box.mirrored for box in boxes) < 44
    widths = []
    for seed in range(200):
        box = draw_boxes(1000, 1500, config(batch=1), seeded(seed))[0]
        assert 0 <= box.top <= box.rows - 32
        assert 0 <= box.left <= box.columns - 32
        assert (
            box.rows == round(box.columns * 1000 / 1500)
            or abs(box.rows - box.columns * 1000 / 1500) < 1
        )
        widths.append(box.columns)
    assert 384 <= min(widths) < 400
    assert 1008 < max(widths) <= 1024
    assert np.mean(widths) == pytest.approx(704, abs=40)


def test_published_zoom_and_grid_are_reachable() -> None:
    published = train_config("published", crop=32, tile=32, batch=200)
    boxes = draw_boxes(300, 400, published, seeded())
    factors = np.array([(box.rows / 300, box.columns / 400) for box in boxes])
    assert len({tuple(each) for each in factors}) > 150  # a zoom per crop
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.2  # and a factor per axis
    assert factors.min() > 0.32
    assert factors.max() <= 1
    assert factors.mean() == pytest.approx(2 / 3, abs=0.03)
    for box in boxes:  # cells side by side, shifted by what the grid leaves over
        assert box.top % 32 <= box.rows % 32
        assert box.left % 32 <= box.columns % 32
        assert box.top + 32 <= box.rows
        assert box.left + 32 <= box.columns


def test_every_place_is_reached() -> None:
    counts = collections.Counter(
        (box.top, box.left)
        for box in draw_boxes(
            36, 34, config(batch=2000, zoom="factor", zoom_min=1, zoom_max=1), seeded()
        )
    )
    assert len(counts) == 5 * 3
    assert min(counts.values()) > 80


def test_zoom_never_enlarges_and_a_crop_always_fits() -> None:
    for height, width in ((33, 2000), (2000, 33), (32, 32), (50, 60)):
        for seed in range(20):
            for box in draw_boxes(height, width, config(batch=2, zoom_per="crop"), seeded(seed)):
                assert 32 <= box.rows <= height
                assert 32 <= box.columns <= width
        crops = draw_crops(
            ResidentImage(np.full((height, width, 3), 255, np.uint8), config()),
            config(batch=3),
            seeded(),
        )
        assert crops.shape == (3, 3, 32, 32)
        assert crops.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(crops, torch.ones(()), atol=1e-5)


def test_crops_are_a_function_of_the_seed(noise_image: np.ndarray) -> None:
    image = ResidentImage(noise_image, config())
    first, again, other = (draw_crops(image, config(batch=4), seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_image_smaller_than_a_crop_is_refused() -> None:
    with pytest.raises(SincutError) as caught:
        ResidentImage(np.zeros((31, 90, 3), np.uint8), config())
    assert str(caught.value) == (
        "an image must be at least as large as a crop (32×32 pixels), got 90×31; "
        "try --set crop=16 --set tile=16 or a larger image"
    )
