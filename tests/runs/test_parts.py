"""Training on a part of each image: a level, a region; of slides, OME-Zarr and all others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

import sincut
from sincut.cli import main
from sincut.errors import SincutError
from sincut.images.reading.open import read_picture
from sincut.models.model_file import load_model
from sincut.runs import pair_images
from sincut.runs.commands import repeating_command
from sincut.runs.folder import read_run
from tests.conftest import TINY

FEW: dict[str, Any] = {**TINY, "steps": 2, "report": False}


def weights(run: Path) -> dict[str, Any]:
    return load_model(run).generator.state_dict()


def same(run: Path, other: Path) -> bool:
    expected = weights(other)
    return all(value.equal(expected[name]) for name, value in weights(run).items())


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as caught:
        sincut.train(*arguments, **{**FEW, **options})
    return str(caught.value)


def pixels_of(path: Path) -> np.ndarray:
    return read_picture(path).rgb


def surrounded(pixels: np.ndarray, above: int, before: int) -> np.ndarray:
    """An image with noise around it, so much of it above and to its left."""
    height, width = pixels.shape[:2]
    size = above + height + 9, before + width + 7, 3
    larger = np.random.default_rng(2).integers(0, 256, size, np.uint8)
    larger[above : above + height, before : before + width] = pixels
    return larger


def slide_of(pixels: np.ndarray, target: Path) -> Path:
    """A slide whose level 1 is the image; level 0 is twice as large."""
    said = "Aperio Image Library v12.0.0\r\n1x1 (256x256)|AppMag = 40|MPP = 0.2500"
    tiled: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(target) as file:
        file.write(np.repeat(np.repeat(pixels, 2, 0), 2, 1), description=said, **tiled)
        file.write(pixels[::8, ::8], photometric="rgb", metadata=None, description="Aperio thumb")
        file.write(pixels, description=said, **tiled)
    return target


@pytest.fixture(scope="module")
def plain_run(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    sincut.train(*pair, folder, **FEW)
    return folder


def test_a_region_is_learned_like_a_copy_of_it(
    pair: tuple[Path, Path], plain_run: Path, tmp_path: Path
) -> None:
    content, style = (pixels_of(path) for path in pair)
    Image.fromarray(surrounded(content, 5, 11)).save(tmp_path / "content.png")
    tiled = surrounded(style, 20, 3)
    tifffile.imwrite(tmp_path / "style.tif", tiled, tile=(64, 64), photometric="rgb")
    files = tmp_path / "content.png", tmp_path / "style.tif"
    regions = {"region": "11,5,160,128", "style_region": "3,20,144,120"}
    sincut.train(*files, tmp_path / "run", **{**FEW, **regions, "steps": 1})
    sincut.train(*files, tmp_path / "run", resume=True, steps=2)
    assert same(tmp_path / "run", plain_run)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (record["content"]["width"], record["content"]["height"]) == (160, 128)
    command = repeating_command(read_run(tmp_path / "run"))
    assert "--region 11,5,160,128 --style-region 3,20,144,120" in command
    assert refusal(*files, tmp_path / "run", resume=True, region="0,0,160,128").startswith(
        "--resume goes on with the run's own "
    )


def test_a_report_and_an_inspection_see_the_region(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pixels_of(pair[0])
    Image.fromarray(surrounded(content, 5, 11)).save(tmp_path / "content.png")
    files = tmp_path / "content.png", pair[1]
    sincut.train(*files, tmp_path / "run", region=(11, 5, 160, 128), **FEW)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        "sincut.runs.reporting.write_report",
        lambda record, target, generator, *pixels, **_: seen.extend(pixels),
    )
    sincut.report(tmp_path / "run", style=pair[1])
    assert np.array_equal(seen[0], content)
    found = sincut.inspect(tmp_path / "run", files[0], [(159, 127)], tmp_path / "page")
    assert found.size == (128, 160)
    told = "it is the region 11,5,160,128 of level 0 that the model learned on"
    assert told in found.notices


def test_a_level_of_a_slide_is_learned_like_a_copy_of_it(
    pair: tuple[Path, Path], plain_run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openslide", reason="openslide-python is not installed")
    slides = [slide_of(pixels_of(path), tmp_path / f"{path.stem}.svs") for path in pair]
    levels = {"level": 1, "style_level": 1}
    sincut.train(*slides, tmp_path / "run", **levels, **FEW)
    assert same(tmp_path / "run", plain_run)
    found = sincut.evaluate(slides[0], slides[0], pair[0], **levels)
    assert found.outputs[str(pair[0])].C1 > 0.9999
    assert refusal(*slides, tmp_path / "other", style_level=2) == (
        f"{slides[1]} has 2 levels, got level 2; allowed: 0 to 1"
    )


def test_of_a_slide_only_the_region_is_read(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openslide", reason="openslide-python is not installed")
    from sincut.images.reading import slides

    monkeypatch.setattr(slides, "_CELL", 64)
    slide = slide_of(np.tile(pixels_of(pair[0]), (4, 4, 1)), tmp_path / "slide.svs")
    read = []
    cell = slides.SlideRows._cell
    monkeypatch.setattr(
        slides.SlideRows, "_cell", lambda self, *at: read.append(at) or cell(self, *at)
    )
    sincut.train(slide, pair[1], tmp_path / "run", **{**FEW, "region": "300,500,96,80"})
    assert set(read) == {(y, x) for y in range(7, 10) for x in range(4, 7)}


@pytest.mark.long
def test_an_ome_zarr_is_an_image_of_a_pair(
    pair: tuple[Path, Path], plain_run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("zarr", reason="the package zarr is not installed")
    from tests.images.test_ome_zarr import written

    files = []
    for path in pair:
        planes = np.repeat(np.repeat(pixels_of(path), 2, 0), 2, 1).transpose(2, 0, 1)
        files.append(written(tmp_path / f"{path.stem}.ome.zarr", planes, "cyx"))
    levels = {"level": 1, "style_level": 1}
    sincut.train(*files, tmp_path / "run", **levels, **{**FEW, "steps": 1})
    sincut.train(*files, tmp_path / "run", resume=True, steps=2)
    assert same(tmp_path / "run", plain_run)
    sincut.report(tmp_path / "run", figures=False)
    found = sincut.inspect(tmp_path / "run", files[0], [(159, 127)], tmp_path / "page")
    assert found.is_content
    measured = sincut.evaluate(files[0], files[0], pair[0], **levels)
    assert measured.outputs[str(pair[0])].C1 > 0.9999
    (files[1] / "2").mkdir()
    (files[1] / "2" / "other").write_bytes(b"more")
    assert "was trained with another style image" in refusal(
        *files, tmp_path / "run", resume=True, steps=3
    )


def test_parts_that_are_not_there_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert refusal(*pair, run, style_region="100,100,45,20") == (
        f"{pair[1]} has 144×120 pixels, and the region reaches to row 120 and column 145; try one "
        "within the image"
    )
    assert refusal(*pair, run, region="0,0,40,20") == (
        "an image must be at least as large as a crop (32×32 pixels), got 40×20; try "
        "--set crop=16 --set tile=16 or a larger image"
    )
    assert refusal(*pair, run, style_region="1,2,3") == (
        "style_region must be X,Y,W,H with a width and a height above 0, got 1,2,3; try "
        "--style-region 0,0,1024,1024"
    )
    assert not run.exists()
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    with pytest.raises(SincutError) as caught:
        sincut.train(*folders, run, style_level=1)
    assert str(caught.value) == (
        "style_level is for a pair of images, got two folders; try copies of that part"
    )
    words = ["evaluate", *map(str, folders), str(folders[1]), "--style-level", "1"]
    assert CliRunner().invoke(main, words).stderr == (
        "Error: --style-level is for files, got folders; try without it\n"
    )
    for name, value in (("region", "0,0,99,99"), ("style_mask", "auto"), ("regions", "4")):
        with pytest.raises(SincutError) as caught:
            sincut.ablate(*pair, tmp_path / "out", over={"look": [0.1, 0.2]}, **{name: value})
        assert str(caught.value) == (
            f"ablate takes images as they are stored, got {name}={value}; try copies of that part"
        )


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = np.random.default_rng(1).integers(0, 256, (2048, 2048, 3), np.uint8)
    tifffile.imwrite(tmp_path / "huge.tif", large, tile=(256, 256), photometric="rgb")
    monkeypatch.setattr(pair_images, "free_memory", lambda: 2 * 10**7)
    assert refusal(pair[0], tmp_path / "huge.tif", tmp_path / "run") == (
        f"{tmp_path / 'huge.tif'} has 2048×2048 pixels to train on, which take at least "
        "25 MB of memory, free are 20 MB; try --style-regions 16, --style-region X,Y,W,H or "
        "--style-level N"
    )
    options = {**FEW, "style_region": "1500,1700,144,120"}
    sincut.train(pair[0], tmp_path / "huge.tif", tmp_path / "run", **options)
