"""Camera raw: how it is developed, what is kept, told and refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from sincut.errors import SincutError
from sincut.images.reading.open import image_size, read_picture
from tests.images.sources import opened, refusal, rows_of

rawpy = pytest.importorskip("rawpy", reason="rawpy is not installed")

CFA = 32803
# From XYZ to the camera's colours, and its neutral: those of a camera that sees linear sRGB.
XYZ_TO_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
VERSION = ".".join(map(str, rawpy.libraw_version))
DEVELOPED = (
    f"it is developed by LibRaw {VERSION}, from linear 16 bits to sRGB, with the camera's white "
    "balance and its exposure as it is"
)
BLACK, WHITE = 256, 4095


def dng(path: Path, mosaic: np.ndarray, orientation: int = 1, **options: Any) -> Path:
    """A DNG of a Bayer mosaic (H, W) uint16 of 12 bits, not compressed."""
    matrix = [part for value in XYZ_TO_SRGB for part in (round(value * 10_000), 10_000)]
    tags = [
        (274, "H", 1, orientation, True),
        (50706, "B", 4, bytes([1, 4, 0, 0]), True),
        (50707, "B", 4, bytes([1, 1, 0, 0]), True),
        (50708, "s", 0, "Sincut Camera", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes([0, 1, 1, 2]), True),
        (50714, "H", 1, BLACK, True),
        (50717, "H", 1, WHITE, True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (50778, "H", 1, 21, True),
        (271, "s", 0, "Sincut", True),
        *options.pop("more", ()),
    ]
    rows = mosaic.shape[0]
    tifffile.imwrite(
        path, mosaic, photometric=CFA, extratags=tags, metadata=None, rowsperstrip=rows, **options
    )
    return path


def halves(height: int = 64, width: int = 96) -> np.ndarray:
    """A mosaic whose left half is black and whose right half is white but for a little."""
    mosaic = np.full((height, width), BLACK, np.uint16)
    mosaic[:, width // 2 :] = WHITE - 1
    return mosaic


def test_linear_light_becomes_srgb_of_16_bits(tmp_path: Path) -> None:
    mosaic = halves()
    mosaic[:32, 48:] = BLACK + (WHITE - BLACK) // 5
    rows, notices = rows_of(dng(tmp_path / "a.dng", mosaic))
    assert rows.shape == (64, 96, 3)
    assert rows.dtype == np.uint16
    assert rows[:, :40].max() < 700
    assert rows[40:, 56:].min() > 64_000
    fifth = 65535 * (1.055 * 0.2 ** (1 / 2.4) - 0.055)  # the curve of sRGB
    np.testing.assert_allclose(rows[8:24, 56:], fifth, rtol=0.01)
    assert notices == (DEVELOPED,)


def test_its_exif_is_kept(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    with opened(dng(tmp_path / "a.dng", halves(), more=[(700, "B", len(xmp), xmp, True)])) as raw:
        exif = Image.Exif()
        exif.load(raw.carried.exif)
        assert exif[ExifTags.Base.Make] == "Sincut"
        assert b'Orientation="1"' in (raw.carried.records.xmp or b"")
        assert raw.carried.profile is None


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_it_is_turned_once(tmp_path: Path, orientation: int) -> None:
    path = dng(tmp_path / "a.dng", halves(), orientation)
    rows, _ = rows_of(path)
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    bright = np.rot90(halves() > BLACK, turns)
    assert rows.shape[:2] == bright.shape
    assert image_size(path) == (bright.shape[1], bright.shape[0])
    same = (rows[..., 1] > 30_000) == bright
    assert same.mean() > 0.99  # not all: the colours of a mosaic are guessed at edges


def test_a_dng_is_known_by_what_it_says(tmp_path: Path) -> None:
    path = dng(tmp_path / "a.tif", halves())
    assert rows_of(path)[1] == (DEVELOPED,)
    assert image_size(path) == (96, 64)


def test_a_picture_of_it_has_8_bits(tmp_path: Path) -> None:
    picture = read_picture(dng(tmp_path / "a.dng", halves()))
    assert picture.rgb.dtype == np.uint8
    assert picture.notices == (DEVELOPED,)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dng(tmp_path / "a.dng", halves())
    monkeypatch.setitem(sys.modules, "rawpy", None)
    told = (
        f"{path} takes the package rawpy, which is not installed; try pip install 'sincut[photo]'"
    )
    assert refusal(path) == told
    with pytest.raises(SincutError, match=re.escape(told)):
        image_size(path)


def test_sizes_are_compared_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dng(tmp_path / "a.dng", halves())
    monkeypatch.setattr("sincut.images.reading.raw._developed", lambda *_: pytest.fail("decoded"))
    assert refusal(path, pixels=1000) == (
        f"{path} has 96×64 = 6144 pixels, allowed are 1000; try --max-pixels 6144"
    )
    assert refusal(path, memory=100_000) == (
        f"{path} has 96×64 pixels, which takes 0.1 MB of memory to decode, allowed are 0.1 MB; "
        "try a TIFF copy, --max-memory 0.2MB"
    )


def test_a_file_cut_short(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = dng(tmp_path / "a.dng", halves())
    path.write_bytes(path.read_bytes()[:-1000])
    message = refusal(path)
    assert message.startswith(f"{path} is broken or cut short (")
    assert capfd.readouterr().err == ""


def test_what_libraw_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nef"
    path.write_bytes(b"hello" * 100)
    assert refusal(path) == (
        f"{path} is not a camera raw file that LibRaw {VERSION} can read (Unsupported file format "
        "or not RAW file); try a copy as TIFF or PNG"
    )


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.dng") == (
        f"{tmp_path / 'a.dng'} does not exist; give an image file"
    )
