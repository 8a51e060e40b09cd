"""Ranges and bands: which values are black and white, which bands are colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sincut.config.parts import ImageSettings
from sincut.errors import SincutError
from sincut.images.profiles import Colours
from sincut.images.reading.asked import AS_STORED, AskedValues
from sincut.images.reading.open import open_source, read_picture
from sincut.images.reading.source import Source, in_srgb
from tests.images.test_pillow import WIDE

UINT8, UINT16 = np.iinfo(np.uint8).max, np.iinfo(np.uint16).max


def asked(**settings: str) -> AskedValues:
    return AskedValues.of(ImageSettings(**settings))


def opened(path: Path, **settings: str) -> Source:
    return open_source(path, max_pixels=10**9, max_memory=10**9, asked=asked(**settings))


def refusal(path: Path, **settings: str) -> str:
    with pytest.raises(SincutError) as caught, opened(path, **settings) as source:
        source.rows(0, source.height)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def twelve_bits(height: int = 40, width: int = 50) -> np.ndarray:
    """(H, W, 3) uint16 with every value of 12 bits that fits."""
    return np.random.default_rng(2).integers(0, 4096, (height, width, 3), np.uint16)


def tiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    colour = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, **{"photometric": colour, "metadata": None, **options})
    return path


# ------------------------------------------------------------------------------------ range


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.uint16, 0, 4095), (np.uint16, 100, 30_000.5), (np.uint16, 7, 8), (np.uint8, 3, 200)],
)
def test_there_and_back_again_gives_every_value_of_a_range(
    dtype: Any, low: float, high: float
) -> None:
    colours = Colours(range=(low, high))
    values = np.arange(np.ceil(low), high + 0.9, dtype=dtype)[:, None].repeat(3, axis=1)
    values = values[values[:, 0] <= high]
    spread = colours.to_srgb(values)
    np.testing.assert_array_equal(colours.from_srgb(spread), values)
    top = np.iinfo(dtype).max
    exact = (values.astype(np.float64) - low) / (high - low) * top
    assert np.abs(spread - exact).max() <= 0.5 + 1e-6
    every = np.arange(top + 1, dtype=dtype)[:, None].repeat(3, axis=1)
    beyond = colours.to_srgb(every)
    assert (beyond[every[:, 0] <= low] == 0).all()
    assert (beyond[every[:, 0] >= high] == top).all()


def test_floats_there_and_back_again() -> None:
    colours = Colours(range=(200.0, 320.0))
    values = np.array([[200.0, 260.0, 320.0], [np.nan, 140.0, 440.0]], np.float32)
    spread = colours.to_srgb(values)
    np.testing.assert_array_equal(spread, np.array([[0, 0.5, 1], [np.nan, -0.5, 2]], np.float32))
    np.testing.assert_array_equal(colours.from_srgb(spread), values)


def test_a_range_comes_before_a_profile() -> None:
    wide = Colours(WIDE, converted=True)
    pixels = np.random.default_rng(0).integers(50, 101, (20, 3), np.uint8)
    spread = ((pixels - 50.0) * (255 / 50)).round().astype(np.uint8)
    both = replace(wide, range=(50, 100))
    np.testing.assert_array_equal(both.to_srgb(pixels), wide.to_srgb(spread))


def test_12_bits_in_16_fill_the_whole(tmp_path: Path) -> None:
    path, pixels = tiff(tmp_path / "a.tif", twelve_bits()), twelve_bits()
    with opened(path, range="0,4095") as source:
        rows = source.rows(0, source.height)
        np.testing.assert_array_equal(rows, pixels)  # the file's own
        assert in_srgb(source, rows).max() == UINT16
        assert source.notices == ("its values 0 to 4095 become black to white",)
    picture = read_picture(path, asked=asked(range="0,4095"))
    exact = pixels / 4095 * 255
    assert np.abs(picture.rgb - exact).max() < 0.51
    assert (picture.range, picture.kind) == ((0, 4095), "uint16")
    assert picture.notices == ("its values 0 to 4095 become black to white",)


def test_what_is_clipped_is_told(tmp_path: Path) -> None:
    pixels = np.full((10, 10, 3), 50, np.uint16)
    pixels[0] = 101
    path = tiff(tmp_path / "a.tif", pixels)
    with opened(path, range="10,100") as source:
        source.rows(0, 10)
        assert source.notices == (
            "its values 10 to 100 become black to white",
            "10.0% of its values lie outside 10…100 and were clipped",
        )


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_range_of_8_bits(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.full((20, 20, 3), 40, np.uint8)).save(path)
    with opened(path, range="20,60") as source:
        rows = source.rows(0, 20)
        assert (rows == 40).all()
        assert (in_srgb(source, rows) == 128).all()
    assert (read_picture(path, asked=asked(range="20,60")).rgb == 128).all()


def test_a_range_of_floats_of_any_unit(tmp_path: Path) -> None:
    kelvin = np.random.default_rng(1).uniform(200, 320, (30, 40)).astype(np.float32)
    path = tiff(tmp_path / "a.tif", kelvin)
    assert refusal(path) == (
        f"{path} has float values from {kelvin.min():g} to {kelvin.max():g}; allowed are 0 (black) "
        f"to 1 (white); try --range {kelvin.min():.6g},{kelvin.max():.6g}, --range auto or a copy "
        "scaled to 0…1"
    )
    with opened(path, range="200,320") as source:
        rows = source.rows(0, 30)
        np.testing.assert_array_equal(rows[..., 0], kelvin)
        np.testing.assert_allclose(in_srgb(source, rows)[..., 0], (kelvin - 200) / 120, atol=1e-6)
        assert source.notices == ("its values 200 to 320 become black to white",)


# --------------------------------------------------------------------------- a range found


def test_a_range_that_is_found(tmp_path: Path) -> None:
    pixels = twelve_bits(100, 100)
    pixels[0, 0] = UINT16  # a hot pixel
    with opened(tiff(tmp_path / "a.tif", pixels), range="auto") as source:
        low, high = source.colours.range or (0, 0)
        assert 0 <= low < 10
        assert 4085 < high <= 4095
        assert source.notices[0] == (
            f"its values {low:g} to {high:g} become black to white, the percentiles 0.1 and 99.9 "
            "of its valid pixels"
        )
        np.testing.assert_array_equal(source.rows(0, 100), pixels)


def test_what_is_unknown_does_not_count_in_a_range(tmp_path: Path) -> None:
    values = np.random.default_rng(1).uniform(200, 320, (64, 64)).astype(np.float32)
    values[:30] = -9999
    values[30] = np.nan
    path = tiff(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)])
    with opened(path, range="auto") as source:
        low, high = source.colours.range or (0, 0)
        assert 200 <= low < 201
        assert 319 < high <= 320
        rows = source.rows(0, 64)
        assert (rows[:30] == -9999).all()
        assert source.nodata == -9999


def test_what_is_transparent_does_not_count_in_a_range(tmp_path: Path) -> None:
    pixels = np.full((10, 10, 4), 255, np.uint8)
    pixels[:5] = (30, 60, 90, 255)
    pixels[5:, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with opened(tmp_path / "a.png", range="auto") as source:
        assert source.colours.range == (30, 90)


def test_a_range_cannot_be_found_of_one_value(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.full((8, 8, 3), 9, np.uint16))
    assert refusal(path, range="auto") == (
        f"{path} has no two different valid values of which a range could be found; give "
        "--range LOW,HIGH"
    )


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "text", ["5", "5,1", "3,3", "a,b", "0,inf", "nan,1", "1,2,3", "", "learned"]
)
@pytest.mark.parametrize("name", ["range", "style_range"])
def test_what_is_no_range(name: str, text: str) -> None:
    with pytest.raises(SincutError) as caught:
        ImageSettings(**{name: text})
    option = name.replace("_", "-")
    assert str(caught.value) == (
        f"{name} must be two increasing numbers such as 0,4095, auto or full, got {text}; "
        f"try --{option} 0,4095"
    )


def test_a_range_beyond_the_type(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8))
    assert refusal(path, range="0,4095") == (
        f"{path} has values from 0 to 255, got the range 0,4095; try --range 0,255"
    )


def test_values_that_do_not_stand_as_they_are_read(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((8, 8), np.uint16), photometric="miniswhite")
    rest = ", and a range is of values that are read as they stand; try it without a range, or a "
    assert refusal(path, range="0,4095") == f"{path} stores white as 0{rest}copy as RGB"
    learned = AskedValues((0, 4095), kind="uint16")
    with open_source(path, max_pixels=10**9, max_memory=10**9, asked=learned) as source:
        assert source.colours.range is None
    deep = tmp_path / "a.ppm"
    deep.write_bytes(b"P6 2 2 4095\n" + bytes(24))
    assert refusal(deep, range="0,4095") == f"{deep} says that 4095 is white{rest}copy as RGB"


def test_a_range_of_another_type_is_not_taken(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8))
    learned = AskedValues((0, 4095), kind="uint16")
    with open_source(path, max_pixels=10**9, max_memory=10**9, asked=learned) as source:
        assert source.colours.range is None
        assert source.notices == ()


# ------------------------------------------------------------------------------------- bands


def seven(path: Path, **options: Any) -> tuple[Path, np.ndarray]:
    """A TIFF of seven bands (7, H, W) uint16, and its bands."""
    bands = np.random.default_rng(5).integers(0, 4096, (7, 30, 40), np.uint16)
    return tiff(path, bands, photometric="minisblack", **options), bands


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_bands_of_a_raster(tmp_path: Path, planar: str) -> None:
    path, bands = seven(tmp_path / "a.tif", planarconfig="separate")
    if planar == "contig":
        tiff(path, bands.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")
    with opened(path, bands="4,3,2", range="0,4095") as source:
        rows = source.rows(0, 30)
        np.testing.assert_array_equal(rows, bands[[3, 2, 1]].transpose(1, 2, 0))
        assert source.notices == (
            "its bands 1, 5, 6, 7 are not kept",
            "its values 0 to 4095 become black to white",
        )
    picture = read_picture(path, asked=asked(bands="4,3,2"))
    assert picture.rgb.shape == (30, 40, 3)


def test_bands_of_colours_may_be_swapped_and_repeated(tmp_path: Path) -> None:
    path, pixels = tiff(tmp_path / "a.tif", twelve_bits()), twelve_bits()
    with opened(path, bands="3,2,1") as source:
        np.testing.assert_array_equal(source.rows(0, 40), pixels[..., ::-1])
        assert source.notices == ()
    with opened(path, bands="2,2,2") as source:
        np.testing.assert_array_equal(source.rows(0, 40), pixels[..., [1, 1, 1]])
        assert source.notices == ("its bands 1, 3 are not kept",)


@pytest.mark.parametrize("text", ["4,3", "0,1,2", "a,b,c", "1,2,3,4", "-1,2,3", "1.5,2,3", "²,1,1"])
def test_what_is_no_bands(text: str) -> None:
    with pytest.raises(SincutError) as caught:
        ImageSettings(bands=text)
    assert str(caught.value) == (
        f"bands must be three whole numbers from 1 such as 4,3,2, got {text}; try --bands 4,3,2"
    )


def test_bands_that_are_not_there(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", twelve_bits())
    assert refusal(path, bands="4,3,2") == f"{path} has 3 bands, got bands 4,3,2; try --bands 1,2,3"
    grey = tiff(tmp_path / "b.tif", twelve_bits()[..., 0])
    assert refusal(grey, bands="4,3,2") == (
        f"{grey} has 1 band, got bands 4,3,2; try without --bands"
    )


def test_a_file_without_bands(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    rest = ", and bands are chosen of a TIFF of several grey bands or colours; try it without "
    assert refusal(path, bands="1,2,3") == f"{path} is no TIFF{rest}--bands"
    palette = tmp_path / "b.tif"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).quantize(4).save(palette)
    assert refusal(palette, bands="1,2,3").endswith(f"{rest}--bands")


def test_nothing_asked_is_as_before(tmp_path: Path) -> None:
    path, pixels = tiff(tmp_path / "a.tif", twelve_bits()), twelve_bits()
    with open_source(path, max_pixels=10**9, max_memory=10**9, asked=AS_STORED) as source:
        np.testing.assert_array_equal(in_srgb(source, source.rows(0, 40)), pixels)
        assert source.notices == ()
