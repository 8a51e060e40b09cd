"""ICC conversions: the same at every depth, pixel by pixel, and without the extra package."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sincut.errors import SincutError
from sincut.images.profiles import Colours, clipping_told, interpreted, rgb_of, sparse
from tests.images.test_pillow import GREY, NEARLY, SRGB, WIDE, table_profile, wide_from_srgb

LATTICE = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1)
DEEP = [np.dtype(np.uint16), np.dtype(np.float32)]
every_deep = pytest.mark.parametrize("dtype", DEEP, ids=str)


def colours_of(data: bytes | None, dtype: object = np.uint8) -> Colours:
    return interpreted(Path("in.tif"), data, "RGB", np.dtype(dtype))[0]  # type: ignore[call-overload]


def as_kind(eight: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (eight * np.uint16(257)) if dtype.kind == "u" else (eight / 255).astype(dtype)


@pytest.mark.parametrize("dtype", [np.dtype(np.uint8), *DEEP], ids=str)
@pytest.mark.parametrize("data", [None, SRGB, NEARLY], ids=["none", "sRGB", "nearly"])
def test_what_is_srgb_is_left_alone_without_extras(
    monkeypatch: pytest.MonkeyPatch, data: bytes | None, dtype: np.dtype
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    colours = colours_of(data, dtype)
    assert colours == Colours(data, converted=False)
    pixels = as_kind(LATTICE, dtype) if dtype != np.uint8 else LATTICE
    assert colours.to_srgb(pixels) is pixels
    assert colours.from_srgb(pixels) is pixels
    assert colours.outside_srgb(pixels) == 0


def test_eight_bits_go_to_srgb_and_back() -> None:
    srgb = LATTICE.clip(40, 220)
    wide = wide_from_srgb(srgb)
    colours = colours_of(WIDE)
    assert colours.converted
    assert np.abs(colours.to_srgb(wide).astype(int) - srgb).max() <= 4
    assert np.abs(colours.from_srgb(srgb).astype(int) - wide).max() <= 1


@every_deep
def test_all_depths_agree_within_one_count_of_eight_bits(dtype: np.dtype) -> None:
    pytest.importorskip("imagecodecs")
    eight, deep = colours_of(WIDE), colours_of(WIDE, dtype)
    scale = 1 / 257 if dtype.kind == "u" else 255
    for name in ("to_srgb", "from_srgb"):
        # Of colours that the target has: those that it clips, Pillow rounds more coarsely.
        inside = LATTICE.clip(30, 225)
        expected = getattr(eight, name)(inside).astype(float)
        found = getattr(deep, name)(as_kind(inside, dtype))
        assert found.dtype == dtype
        assert np.abs(found * scale - expected).max() <= 1


def test_sixteen_bits_come_back_and_have_all_their_steps() -> None:
    pytest.importorskip("imagecodecs")
    colours = colours_of(WIDE, np.uint16)
    inside = np.random.default_rng(0).integers(20_000, 45_000, (50, 40, 3), dtype=np.uint16)
    there = colours.to_srgb(inside)
    kept = ((there > 0) & (there < 65_535)).all(axis=-1)
    assert kept.mean() > 0.9
    off = np.abs(colours.from_srgb(there).astype(int) - inside)
    assert off[kept].max() <= 3
    ramp = np.repeat(np.arange(20_000, 40_000, dtype=np.uint16)[:, None], 3, axis=1)
    steps = np.unique(colours.to_srgb(ramp)[:, 1])
    assert len(steps) > 15_000  # an 8-bit step in disguise would leave some 80


@pytest.mark.parametrize("dtype", [np.dtype(np.uint8), *DEEP], ids=str)
def test_a_pixel_s_value_depends_on_it_alone(dtype: np.dtype) -> None:
    if dtype != np.uint8:
        pytest.importorskip("imagecodecs")
    colours = colours_of(WIDE, dtype)
    pixels = as_kind(LATTICE, dtype) if dtype != np.uint8 else LATTICE
    whole = colours.to_srgb(pixels)
    np.testing.assert_array_equal(colours.to_srgb(pixels[::2, 1:, ::3])[3, 4], whole[6, 5, ::3])
    np.testing.assert_array_equal(colours.to_srgb(pixels[3, 4, 5]), whole[3, 4, 5])
    assert colours.to_srgb(pixels[:0]).shape == (0, *pixels.shape[1:])
    rng = np.random.default_rng(1)
    order = rng.permutation(pixels.size // 3)
    shuffled = colours.to_srgb(pixels.reshape(-1, 3)[order])
    np.testing.assert_array_equal(shuffled, whole.reshape(-1, 3)[order])


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = colours_of(WIDE)
    whole = colours.to_srgb(LATTICE)
    monkeypatch.setattr("sincut.images.profiles._BLOCK", 100)
    np.testing.assert_array_equal(colours.to_srgb(LATTICE), whole)


def test_threads_share_a_transform() -> None:
    colours = colours_of(WIDE)
    whole = colours.to_srgb(LATTICE)
    wrong = []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(colours.to_srgb(LATTICE), whole):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_float_values_are_clipped_and_nan_stays() -> None:
    pytest.importorskip("imagecodecs")
    colours = colours_of(WIDE, np.float32)
    pixels = np.array([[0.5, 0.5, 0.5], [2, -1, 0.5], [np.nan, 0.5, 0.5], [0, 1, 0]], np.float32)
    found = colours.to_srgb(pixels)
    assert np.isnan(found[2]).all()
    assert not np.isnan(found[[0, 1, 3]]).any()
    assert found[[0, 1, 3]].min() >= 0
    assert found[[0, 1, 3]].max() <= 1
    np.testing.assert_array_equal(found[1], colours.to_srgb(np.array([1, 0, 0.5], np.float32)))


@pytest.mark.parametrize("dtype", [np.dtype(np.uint8), *DEEP], ids=str)
def test_what_lies_outside_srgb_is_counted(dtype: np.dtype) -> None:
    if dtype != np.uint8:
        pytest.importorskip("imagecodecs")
    pixels = np.full((10, 10, 3), 128, np.uint8)
    pixels[:2] = (0, 255, 0)
    pixels = as_kind(pixels, dtype) if dtype != np.uint8 else pixels
    assert colours_of(WIDE, dtype).outside_srgb(pixels) == 20


def test_the_words_for_clipping() -> None:
    assert clipping_told(0, 0) == clipping_told(0, 100) == clipping_told(9, 10_000) == []
    assert clipping_told(31, 1000) == ["3.1% of its pixels lie outside sRGB and were clipped"]
    assert [sparse(side) for side in (1, 511, 1023, 1024, 51_200)] == [1, 1, 1, 2, 100]


@pytest.mark.parametrize(("dtype", "words"), [(np.uint16, "16 bits"), (np.float32, "float values")])
@pytest.mark.parametrize(("data", "mode"), [(WIDE, "RGB"), (GREY, "L")])
def test_deep_profiles_take_the_extra(
    monkeypatch: pytest.MonkeyPatch, data: bytes, mode: str, dtype: type, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(SincutError) as caught:
        interpreted(Path("in.tif"), data, mode, dtype)
    assert str(caught.value) == (
        f"in.tif has {words} per channel and colours other than sRGB, which takes an "
        "extra package; try pip install 'sincut[big]' or a copy converted to sRGB"
    )


def test_profiles_that_cannot_be_used() -> None:
    for data, mode in ((b"x" * 200, "RGB"), (GREY, "RGB"), (WIDE, "L"), (5, "RGB"), (b"", "RGB")):
        assert interpreted(Path("a"), data, mode, np.uint8) == (
            Colours(),
            None,
            ["its ICC profile cannot be used and is not kept; sRGB is assumed"],
        )
    with pytest.raises(SincutError) as caught:
        interpreted(Path("a.png"), table_profile(b"scnr", b"RGB ", 3), "RGB", np.uint16)
    assert str(caught.value) == (
        "a.png has an ICC profile that does not allow the conversion to sRGB and back "
        "(cannot build transform); try a copy converted to sRGB"
    )


def test_grey_by_its_profile_at_all_depths() -> None:
    grey = np.array([[[55], [0]], [[255], [100]]], np.uint8)
    _, device, notices = interpreted(Path("a"), GREY, "L", np.uint8)
    assert notices == ["greyscale becomes sRGB; its grey profile is not kept"]
    eight = rgb_of(grey, "L", device)
    assert eight[..., 0].tolist() == eight[..., 2].tolist() == [[128, 0], [255, 168]]
    pytest.importorskip("imagecodecs")
    for dtype in DEEP:
        scale = 1 / 257 if dtype.kind == "u" else 255
        found = rgb_of(as_kind(grey, dtype), "L", device)
        assert found.dtype == dtype
        assert np.abs(found * scale - eight).max() <= 1


def test_grey_and_inks_without_a_profile() -> None:
    grey = np.arange(8, dtype=np.uint16).reshape(2, 4, 1)
    np.testing.assert_array_equal(rgb_of(grey, "L", None), np.repeat(grey, 3, axis=-1))
    inks = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
    np.testing.assert_array_equal(rgb_of(inks, "CMYK", None), expected)
