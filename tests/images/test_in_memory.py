"""Images in memory are what files with the same pixels are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sincut
from sincut.images.in_memory import ImageFiles
from sincut.images.reading.open import read_picture
from tests.conftest import TINY
from tests.images.test_pillow import WIDE


def pixels_of(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.array(image)


def read_back(image: Any) -> Any:
    with ImageFiles() as files:
        return read_picture(Path(files.file("content", image)))


def test_a_run_on_pixels_is_that_on_files(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    content, style = pixels_of(pair[0]), Image.open(pair[1])
    sincut.train(content, style, run, **TINY)
    mine, expected = (load_file(each / "model.safetensors") for each in (run, tiny_run))
    assert all(torch.equal(value, expected[key]) for key, value in mine.items())
    record = json.loads((run / "config.json").read_text())
    assert [record[name]["name"] for name in ("content", "style")] == ["content.png", "style.png"]
    assert np.array_equal(pixels_of(run / "images" / "content.png"), content)
    sincut.report(run, force=True)  # which finds them
    sincut.train(content, style, run, resume=True, steps=7, report=False)
    kept = run / "images" / "content.png", run / "images" / "style.png"
    assert sincut.train(*kept, run, resume=True, steps=8, report=False).step == 8
    with pytest.raises(sincut.SincutError, match="was trained with another content image"):
        sincut.train(255 - content, style, run, resume=True, steps=9)
    sincut.train(*kept, run, force=True, report=False, **TINY)  # on what the run itself has kept
    assert np.array_equal(pixels_of(kept[0]), content)


def test_pixels_translate_as_files_do(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    pixels = pixels_of(pair[0])
    sincut.translate(tiny_run, pair[0], tmp_path / "file.png")
    (done,) = sincut.translate(tiny_run, pixels, tmp_path / "array.png")
    assert done.input.name == "input.png"
    assert not done.input.exists()
    assert (tmp_path / "array.png").read_bytes() == (tmp_path / "file.png").read_bytes()
    deep = pixels.astype(np.uint16) * 257
    sincut.translate(tiny_run, [deep, pair[1], Image.fromarray(pixels)], tmp_path / "several")
    names = ["input-1.tif", "input-3.png", "style.png"]
    assert sorted(path.name for path in (tmp_path / "several").iterdir()) == names
    assert read_picture(tmp_path / "several" / names[0]).rgb.shape == pixels.shape
    assert (tmp_path / "several" / names[1]).read_bytes() == (tmp_path / "file.png").read_bytes()


def test_pixels_are_measured_as_files_are(pair: tuple[Path, Path], tmp_path: Path) -> None:
    content = pixels_of(pair[0])
    style = np.ascontiguousarray(content[:, 10:])
    Image.fromarray(style).save(tmp_path / "style.png")
    pair = pair[0], tmp_path / "style.png"
    expected = sincut.evaluate(*pair, [pair[0]]).outputs[str(pair[0])]
    found = sincut.evaluate(content, Image.fromarray(style), [pair[0], content])
    assert list(found.outputs) == [str(pair[0]), "output-2.png"]
    assert all(figures == expected for figures in found.outputs.values())
    assert list(sincut.evaluate(*pair, content).outputs) == ["output.png"]
    with pytest.raises(sincut.SincutError) as error:
        sincut.evaluate(content, style, [style, content])
    assert str(error.value) == (
        "output-1.png must have the content's size, 160×128, got 150×128; try a translation of "
        "this content"
    )


def test_kinds_of_pixels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rgb, alpha = np.stack([grey, grey + 1, grey + 2], -1), 255 - grey
    deep = (rgb.astype(np.uint16) * 257 + 100).astype(">u2")
    for image in (grey, grey.astype(np.uint16) * 257, Image.fromarray(grey)):
        assert np.array_equal(read_back(image).rgb, np.stack([grey] * 3, -1))
    for image in (rgb, deep, Image.fromarray(rgb), rgb[::-1][::-1], np.dstack([rgb, alpha])):
        assert np.array_equal(read_back(image).rgb, rgb)
    for image in (np.dstack([rgb, alpha]), np.dstack([rgb, alpha]).astype(np.uint16) * 257):
        assert np.array_equal(read_back(image).alpha, alpha)
    deep_grey = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(read_back(deep_grey).rgb[..., 0], grey)
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert read_back(cmyk).rgb[0, 0, 0] > 200 > 100 > read_back(cmyk).rgb[0, 0, 2]
    turned = Image.fromarray(rgb[:4])
    turned.getexif()[274] = 6
    assert read_back(turned).rgb.shape == (8, 4, 3)


def test_a_profile_counts() -> None:
    image = Image.fromarray(np.full((4, 4, 3), (0, 200, 0), np.uint8))
    image.info["icc_profile"] = WIDE
    assert not np.array_equal(read_back(image).rgb, np.asarray(image))
    assert read_back(image).profile == WIDE


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((4, 4, 3)),
            "must be (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16, got (4, 4, 3) of float64; "
            "of floats from 0 to 1 try (255 * array).round().astype('uint8')",
        ),
        (
            np.zeros((3, 4, 4), np.uint8)[..., :2],
            "must be (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16, got (3, 4, 2) of uint8; "
            "of floats from 0 to 1 try (255 * array).round().astype('uint8')",
        ),
        (
            Image.new("F", (4, 3)),
            "must have pixels of the mode 1, L, LA, P, RGB, RGBA, I;16 or CMYK, got 4×3 of F; "
            "try .convert('RGB')",
        ),
    ],
    ids=["floats", "channels", "mode"],
)
def test_other_pixels_are_refused(
    image: Any, message: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(sincut.SincutError) as error:
        sincut.train(image, pair[1], tmp_path / "run")
    assert str(error.value) == f"content {message}"
    assert not (tmp_path / "run").exists()


def test_a_broken_lazy_image_is_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(pair[0].read_bytes()[:2000])
    with Image.open(cut) as image, pytest.raises(sincut.SincutError) as error:
        sincut.evaluate(image, pair[1], pair[0])
    assert str(error.value).startswith("content cannot be written as PNG (")
    assert str(error.value).endswith("); write it to a file first, and give that")
