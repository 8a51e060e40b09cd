"""Training on the tissue of a slide, and on squares of an image in the place of all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import sincut
from sincut.config.presets import train_config
from sincut.data.crops import ResidentImage, draw_places
from sincut.data.places import Places, grid_of, put_together, squares_of
from sincut.data.random_numbers import RandomNumbers
from sincut.errors import SincutError
from sincut.models.model_file import load_model
from sincut.runs.events import Event
from sincut.runs.folder import read_run
from sincut.runs.pair_images import read_pair_image
from tests.conftest import TINY
from tests.runs.test_parts import same

FEW: dict[str, Any] = {**TINY, "steps": 2, "report": False}
SIZE = 1200, 1600  # of the slide


def tissue_pixels() -> np.ndarray:
    """(H, W) bool: a disk and an oblong."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disk = (y - 500) ** 2 + (x - 500) ** 2 < 300**2
    return disk | ((abs(y - 800) < 250) & (abs(x - 1200) < 200))


def slide_pixels() -> np.ndarray:
    """Stained tissue on tinted glass, with coloured and black specks of dust, and a black frame
    where nothing was scanned."""
    random = np.random.default_rng(3)
    pixels = random.normal((236, 240, 243), 3, (*SIZE, 3))
    tissue = tissue_pixels()
    pixels[tissue] = random.normal((190, 120, 170), 25, (int(tissue.sum()), 3))
    for y, x in random.integers(20, (1180, 1580), (60, 2)):
        if not tissue[y - 20 : y + 20, x - 20 : x + 20].any():
            pixels[y : y + 9, x : x + 9] = (200, 30, 30) if x % 2 else (12, 8, 10)
    pixels[:, :8] = 0
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    tifffile.imwrite(path, slide_pixels(), tile=(256, 256), photometric="rgb")
    return path


def centres(image: ResidentImage, settings: Any, steps: int) -> np.ndarray:
    """(N, 3) of the crops of some steps: the square, and where in it the centre is, down and
    across in pixels of the image."""
    draws = RandomNumbers(settings.seed, torch.tensor(0))
    boxes, squares = draw_places(image, settings, draws, steps, stream=0)
    rows, columns, top, left, _ = boxes.double().unbind(2)
    y = (top + settings.crop / 2) / rows * image.height
    x = (left + settings.crop / 2) / columns * image.width
    assert (top >= 0).all()
    assert (top + settings.crop <= rows).all()
    assert (left + settings.crop <= columns).all()
    assert squares is not None
    return torch.stack([squares.double(), y, x], dim=2).flatten(0, 1).numpy()


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as caught:
        sincut.train(*arguments, **{**FEW, **options})
    return str(caught.value)


def test_crops_have_their_centres_on_tissue(slide: Path) -> None:
    """Up to a cell of the mask, of two pixels; dust is none, and all of the tissue is met."""
    settings = train_config("paper", mask="auto", crop=32, tile=16, zoom_min=400.0)
    read = read_pair_image(slide, "content", settings)
    (share,) = (text for text in read.told if "tissue" in text)
    assert share.endswith("% of it is taken for tissue, where crops have their centres")
    tissue = tissue_pixels()
    assert read.places.tissue is not None
    assert read.places.tissue.mean() == pytest.approx(tissue.mean(), abs=0.01)
    image = ResidentImage(read.picture.rgb, settings, places=read.places)
    found = centres(image, settings, 100)
    from scipy.ndimage import binary_dilation

    near = binary_dilation(tissue, iterations=6)
    places = found[:, 1:].astype(int)
    assert near[places[:, 0], places[:, 1]].all()
    for rows, columns in (
        (slice(200, 350), slice(400, 600)),
        (slice(900, 1050), slice(1300, 1400)),
    ):
        there = np.zeros(SIZE, bool)
        there[rows, columns] = True
        expected = (there & tissue).sum() / tissue.sum()
        got = there[places[:, 0], places[:, 1]].mean()
        assert got == pytest.approx(expected, rel=0.35)


def test_a_crop_that_reaches_no_tissue_lies_anywhere() -> None:
    settings = train_config("paper", crop=32, tile=16, zoom_min=64.0, zoom_max=64.0)
    tissue = np.zeros((1, 8, 8), bool)
    tissue[0, 0, 0] = True
    image = ResidentImage(np.zeros((64, 64, 3), np.uint8), settings, places=Places((1, 1), tissue))
    found = centres(image, settings, 30)
    assert len(np.unique(found[:, 1])) > 10


def test_no_crop_lies_in_two_squares() -> None:
    """Squares of one colour each: every crop is of one, and all are met."""
    colours = [np.full((48, 48, 3), 40 * number, np.uint8) for number in range(6)]
    image = put_together(colours)
    assert grid_of(6) == (2, 3)
    settings = train_config("paper", crop=16, tile=8, batch=64, zoom_min=16.0, zoom_max=48.0)
    resident = ResidentImage(image, settings, places=Places((2, 3)))
    draws = RandomNumbers(0, torch.tensor(5))
    (boxes,), squares = draw_places(resident, settings, draws, 1, stream=0)
    assert squares is not None
    (squares,) = squares
    crops = (resident.crops(*resident.cuts(boxes, squares), 16) + 1) * 127.5
    assert set(squares.tolist()) == set(range(6))
    assert (crops - 40 * squares[:, None, None, None]).abs().max() < 1e-3


def test_squares_are_apart_and_a_function_of_the_seed() -> None:
    found, among = squares_of((1000, 2000), 128, 20, 7, None)
    assert among >= 6 * 14
    assert found == squares_of((1000, 2000), 128, 20, 7, None)[0]
    assert found != squares_of((1000, 2000), 128, 20, 8, None)[0]
    covered = np.zeros((1000, 2000), int)
    for top, left in found:
        covered[top : top + 128, left : left + 128] += 1
    assert covered.max() == 1
    assert covered.sum() == 20 * 128**2


REGIONS: dict[str, Any] = {
    "mask": "auto",
    "regions": 4,
    "region_side": 128,
    "style_regions": 2,
}


@pytest.mark.long
def test_a_run_on_squares_is_resumed_bit_for_bit(
    slide: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    painting: dict[str, Any] = {"lambda_painting": 1.0, "look": 0.0, "preview_every": 0}
    options = {**FEW, **REGIONS, **painting, "schedule": "constant"}
    sincut.train(slide, slide, tmp_path / "same", listener=told.append, **options)
    texts = [event.record().get("text", "") for event in told]
    assert "4 squares of 128×128 pixels, 3.41% of its 1600×1200, are trained on" in texts
    assert "2 squares of 128×128 pixels, 1.71% of its 1600×1200, are trained on" in texts
    sincut.train(slide, slide, tmp_path / "run", **{**options, "steps": 1})
    sincut.train(slide, slide, tmp_path / "run", resume=True, steps=2)
    assert same(tmp_path / "run", tmp_path / "same")
    record = read_run(tmp_path / "run")
    assert (record.content.width, record.content.height) == (1600, 1200)
    with Image.open(tmp_path / "run" / "content-mask.png") as mask:
        assert mask.size == (800, 600)
        assert (np.asarray(mask) == (255, 220, 0)).all(axis=2).any()
    assert not (tmp_path / "run" / "style-mask.png").exists()
    card = (tmp_path / "run" / "README.md").read_text("utf-8")
    told = "`content-mask.png` holds the content itself, at most 1024 pixels a side."
    assert told in card
    with Image.open(sorted((tmp_path / "run" / "previews").iterdir())[-1]) as preview:
        assert preview.size == (64, 64)  # of the four squares
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        "sincut.runs.reporting.write_report",
        lambda record, target, generator, *pixels, **_: seen.extend(pixels),
    )
    sincut.report(tmp_path / "run", content=slide, style=slide)
    assert [pixels.shape for pixels in seen] == [(256, 256, 3), (128, 256, 3)]
    sincut.train(*pair, tmp_path / "run", force=True, **{**FEW, "steps": 1})
    assert not (tmp_path / "run" / "content-mask.png").exists()


def test_of_squares_nothing_else_is_read(
    slide: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sincut.runs import pair_images

    monkeypatch.setattr(pair_images, "read_picture", lambda *_, **__: pytest.fail("all is read"))
    settings = train_config("paper", regions=4, region_side=128)
    read = read_pair_image(slide, "content", settings)
    found, _ = squares_of(SIZE, 128, 4, 0, None)
    whole = slide_pixels()
    for number, (top, left) in enumerate(found):
        y, x = 128 * (number // 2), 128 * (number % 2)
        square = read.picture.rgb[y : y + 128, x : x + 128]
        assert np.array_equal(square, whole[top : top + 128, left : left + 128])


def test_squares_of_a_file_that_is_decoded_whole(pair: tuple[Path, Path]) -> None:
    part = (10, 20, 100, 90)
    options: dict[str, Any] = {"regions": 4, "region_side": 32, "crop": 32, "tile": 16}
    read = read_pair_image(pair[0], "content", train_config("paper", region=part, **options))
    assert read.size == (100, 90)
    assert read.picture.rgb.shape == (64, 64, 3)
    with Image.open(pair[0]) as image:
        whole = np.asarray(image.convert("RGB"))[20:110, 10:110]
    (top, left), *_ = squares_of((90, 100), 32, 4, 0, None)[0]
    assert np.array_equal(read.picture.rgb[:32, :32], whole[top : top + 32, left : left + 32])


def test_the_mask_is_found_on_a_small_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the same part, whichever level it is made of."""
    pytest.importorskip("openslide", reason="openslide-python is not installed")
    from sincut.images.reading import slides

    pixels = slide_pixels()
    larger = np.repeat(np.repeat(pixels, 2, 0), 2, 1)
    tiled: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "slide.tif") as file:
        for level, image in enumerate((larger, pixels, pixels[::2, ::2])):
            file.write(image, subfiletype=min(level, 1), **tiled)
    read = []
    window = slides.SlideRows.window
    monkeypatch.setattr(
        slides.SlideRows,
        "window",
        lambda self, *at: read.append(self._level) or window(self, *at),
    )
    part = (800, 300, 2400, 2000)
    settings = train_config("paper", mask="auto", region=part)
    found = read_pair_image(tmp_path / "slide.tif", "content", settings)
    assert set(read) == {1}
    tissue = tissue_pixels()[150:1150, 400:1600]
    got = found.places.tissue
    assert got is not None
    rows, columns = (
        np.arange(cells) * length // cells
        for cells, length in zip(got.shape[1:], tissue.shape, strict=True)
    )
    assert (got[0] == tissue[np.ix_(rows, columns)]).mean() > 0.985


def test_what_cannot_be_is_refused(
    slide: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    grey = np.random.default_rng(0).normal(240, 2, (300, 300, 1)).repeat(3, 2)
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(tmp_path / "glass.png")
    assert refusal(pair[0], tmp_path / "glass.png", run, style_mask="auto") == (
        f"{tmp_path / 'glass.png'} shows no tissue: nothing, or nearly nothing, is more colourful "
        "than glass; try --style-mask none, or another --style-region X,Y,W,H"
    )
    few = {"regions": 99, "region_side": 256}
    assert refusal(slide, pair[1], run, **few) == (
        f"{slide} has room for 24 squares of 256×256 pixels, got --regions 99; try --regions 24 or "
        "--set region_side=128"
    )
    settings = train_config("paper", mask="auto")
    tissue = read_pair_image(slide, "content", settings).places.tissue
    assert tissue is not None
    _, among = squares_of(SIZE, 256, 99, 0, tissue[0])
    assert refusal(slide, pair[1], run, mask="auto", **few) == (
        f"{slide} has room for {among} squares of 256×256 pixels, at least half of each tissue, "
        f"got --regions 99; try --regions {among} or --set region_side=128"
    )
    assert refusal(slide, pair[1], run, regions=4, region_side=16) == (
        "region_side must be at least crop (32), got 16; try --set region_side=128"
    )
    assert refusal(slide, pair[1], run, mask="auto", placement="grid") == (
        "mask=auto lays crops on tissue and placement=grid side by side; try --set "
        "placement=anywhere"
    )
    monkeypatch.setattr("sincut.runs.pair_images.free_memory", lambda: 10**6)
    assert refusal(slide, pair[1], run, regions=16, region_side=256) == (
        f"{slide} has 1048576 pixels to train on, which take at least 6 MB of memory, free are "
        "1 MB; try --regions 2"
    )
    assert not run.exists()
    with pytest.raises(SincutError) as caught:
        sincut.train(tmp_path, tmp_path, run, mask="auto")
    assert str(caught.value) == ("mask is for a pair of images, got two folders; try without it")


def test_a_model_knows_the_size_of_what_it_learned(slide: Path, tmp_path: Path) -> None:
    """Squares are zoomed like images of their own: of 1600 pixels half."""
    from sincut.translation.one_image import learned_width

    options = {**FEW, **REGIONS, "zoom_max": 64.0}
    sincut.train(slide, slide, tmp_path / "run", **options)
    assert learned_width(load_model(tmp_path / "run").header) == 800
