"""The example pair: sizes, repeatability, and what makes it a useful pair to train on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sincut.demo import make, render_content, render_style
from sincut.demo.fields import variant
from sincut.errors import SincutError
from sincut.images.writing.png import write_png
from tests.runs.test_folder_run import TINY_FOLDERS

Picture = npt.NDArray[np.uint8]
Render = Callable[[int, int], Picture]

BLOCK = 32

both = pytest.mark.parametrize("render", [render_content, render_style])


@cache
def rendered(render: Render, width: int = 160, height: int = 128) -> Picture:
    """Return a picture that several tests look at."""
    return render(width, height)


def texture(picture: Picture) -> npt.NDArray[np.floating[Any]]:
    """Return the standard deviation of grey in each block, a plane taken off: no mere gradients."""
    rows, columns = (side // BLOCK for side in picture.shape[:2])
    grey = picture[: rows * BLOCK, : columns * BLOCK].mean(-1)
    blocks = grey.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK**2).T
    row, column = np.indices((BLOCK, BLOCK)).reshape(2, -1)
    plane = np.stack([np.ones(BLOCK**2), row, column], axis=1)
    fitted = plane @ np.linalg.lstsq(plane, blocks, rcond=None)[0]
    deviation: npt.NDArray[np.floating[Any]] = np.std(blocks - fitted, axis=0)
    return deviation


def palette(picture: Picture) -> npt.NDArray[np.floating[Any]]:
    """Return the shares of the pixels in 8 x 8 x 8 classes of colour."""
    classes = (picture.reshape(-1, 3) // 32).astype(np.int64) @ (64, 8, 1)
    return np.bincount(classes, minlength=512) / len(classes)


# (65, 97): odd, upright, and no multiple of a block.
@both
@pytest.mark.parametrize(("width", "height"), [(160, 128), (64, 64), (65, 97)])
def test_any_size_gives_8_bit_rgb_of_that_size(render: Render, width: int, height: int) -> None:
    picture = rendered(render, width, height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert np.ptp(picture) > 200  # measured: 215 or more


@both
def test_the_same_size_gives_the_same_picture(render: Render) -> None:
    assert np.array_equal(render(64, 64), rendered(render, 64, 64))


def test_another_process_makes_the_same_pair() -> None:
    # The tables of random numbers live as long as the process, so one process does not test them.
    code = (
        "import sys; from sincut.demo import render_content, render_style; "
        "sys.stdout.buffer.write(render_content(64, 64).tobytes() + render_style(64, 64).tobytes())"
    )
    pair = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    here = (rendered(render, 64, 64).tobytes() for render in (render_content, render_style))
    assert pair == b"".join(here)


@both
@pytest.mark.parametrize(("width", "height"), [(160, 128), (64, 64), (65, 97)])
def test_there_is_fine_detail_everywhere(render: Render, width: int, height: int) -> None:
    assert texture(rendered(render, width, height)).min() > 7  # measured: 8.2 or more


def test_the_pair_differs_in_palette() -> None:
    content, style = rendered(render_content), rendered(render_style)
    # Warm against cool: mean red less mean blue is about -17 and +15.
    warmth = [float(np.subtract(*picture.mean((0, 1))[[0, 2]])) for picture in (content, style)]
    assert warmth[0] < -8
    assert warmth[1] > 8
    # Measured: 0.38 for the pair, 0.68 and 0.70 for the left and right half of one picture.
    assert np.minimum(palette(content), palette(style)).sum() < 0.5


@both
def test_variants_are_other_pictures_of_the_same_kind(render: Render) -> None:
    first = rendered(render, 64, 64)
    with variant(3):
        other = render(64, 64)
    assert np.abs(first.astype(int) - other).mean() > 5
    assert np.abs(palette(first) - palette(other)).sum() < 1
    assert np.array_equal(render(64, 64), first)


def test_the_folders_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"trainA": (0, 2), "testA": (1000, 1), "trainB": (500, 2), "testB": (1500, 1)}
    monkeypatch.setattr(make, "_FOLDERS", few)
    monkeypatch.setattr(make, "_SIZE", (64, 64))
    settings = {name: value for name, value in TINY_FOLDERS.items() if name != "preset"}
    result = make.make_folder_demo(tmp_path / "demo", **settings)
    assert result.report is not None
    assert result.report.exists()
    counts = {
        path.name: len(list(path.iterdir()))
        for path in (tmp_path / "demo").rglob("*")
        if path.is_dir()
    }
    assert counts == {
        "images": 4, "trainA": 2, "trainB": 2, "testA": 1, "testB": 1, "results": 1,
        "run": 9, "previews": 3,
    }  # fmt: skip
    images = {path.read_bytes() for path in (tmp_path / "demo" / "images").rglob("*.png")}
    assert len(images) == 6
    with pytest.raises(SincutError) as caught:
        make.make_folder_demo(tmp_path / "demo")
    assert str(caught.value) == (
        f"{tmp_path / 'demo'} holds a demo already; try --force or another -o"
    )
    mine = tmp_path / "demo" / "results" / "notes.txt"
    mine.write_text("mine")
    result = make.make_folder_demo(tmp_path / "demo", force=True, **settings)
    assert result.report is not None
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["content.png", "result.png", "results/00.png"])
def test_what_the_demo_did_not_write_is_kept(name: str, tmp_path: Path) -> None:
    """Also where it is forced: an image of someone else's, a damaged one, a folder, a link."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make_demo = make.make_folder_demo if "/" in name else make.make_demo

    def refused() -> None:
        with pytest.raises(SincutError) as caught:
            make_demo(tmp_path, force=True, steps=1)
        assert str(caught.value) == (
            f"{path} is not of a demo that sincut made; move it away, or give another -o"
        )
        assert [each.name for each in path.parent.iterdir()] == [path.name]

    path.write_bytes(b"no image")
    refused()
    write_png(path, np.zeros((4, 4, 3), np.uint8))
    refused()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    refused()
    path.unlink()
    (path / "inside").mkdir(parents=True)
    refused()
