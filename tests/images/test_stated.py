"""Colours that a file states otherwise than by an ICC profile: converted, kept, said, refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sincut.images import profiles
from sincut.images.colorimetry import gamma_curve, rgb_profile
from sincut.images.reading.open import image_size, open_source
from sincut.images.reading.pillow import decode_picture
from tests.images.test_pillow import (
    ADOBE_PRIMARIES,
    ASCII,
    D65,
    LONG,
    SHORT,
    SRGB_PRIMARIES,
    WIDE,
    Tags,
    directory,
    linear,
    pixels,
    png,
    raw,
    refusal,
    saved,
    tiff,
    tiff_tags,
    to_xyz,
    written,
)

P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
WIDEST = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
# Colours that all of these hold.
SHOWN = np.stack(np.meshgrid(*[np.arange(40, 220, 20, dtype=np.uint8)] * 3), -1).reshape(27, 27, 3)


def power(gamma: float) -> Any:
    return lambda light: light ** (1 / gamma)


def srgb_values(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def values_709(light: np.ndarray) -> np.ndarray:
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def stored(primaries: Any, values: Any) -> np.ndarray:
    """``SHOWN`` in other colours, by their definition."""
    turned = np.linalg.inv(to_xyz(primaries)) @ to_xyz(SRGB_PRIMARIES)
    light = (linear(SHOWN / 255) @ turned.T).clip(0, 1)
    return np.rint(255 * values(light)).astype(np.uint8)


def chrm(primaries: Any) -> bytes:
    points = [(0.3127, 0.3290), *primaries]
    return struct.pack(">8I", *(round(value * 100_000) for point in points for value in point))


def gama(gamma: float) -> bytes:
    return struct.pack(">I", round(100_000 / gamma))


def made(path: Path, array: np.ndarray, **chunks: bytes) -> Path:
    return png(
        path, array.shape[1], array.shape[0], 8, 2, [row.tobytes() for row in array], **chunks
    )


STATED: dict[str, tuple[Any, Any, dict[str, bytes], str]] = {
    "gamma 1": (SRGB_PRIMARIES, power(1.0), {"gAMA": gama(1)}, "gAMA"),
    "gamma 1.8": (SRGB_PRIMARIES, power(1.8), {"gAMA": gama(1.8)}, "gAMA"),
    "Adobe RGB": (
        ADOBE_PRIMARIES,
        power(2.2),
        {"gAMA": gama(2.2), "cHRM": chrm(ADOBE_PRIMARIES)},
        "gAMA and cHRM",
    ),
    "primaries alone": (
        ADOBE_PRIMARIES, power(2.2), {"cHRM": chrm(ADOBE_PRIMARIES)}, "cHRM"
    ),
    "P3": (P3_PRIMARIES, srgb_values, {"cICP": bytes((12, 13, 0, 1))}, "cICP"),
    "2020": (WIDEST, values_709, {"cICP": bytes((9, 14, 0, 1))}, "cICP"),
    "709": (SRGB_PRIMARIES, values_709, {"cICP": bytes((1, 1, 0, 1))}, "cICP"),
    "light": (WIDEST, power(1.0), {"cICP": bytes((9, 8, 0, 1))}, "cICP"),
    "cICP before sRGB": (
        P3_PRIMARIES,
        srgb_values,
        {"cICP": bytes((12, 13, 0, 1)), "sRGB": b"\0", "gAMA": gama(1)},
        "cICP",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_a_png_s_colours_are_converted_and_kept(tmp_path: Path, name: str) -> None:
    primaries, values, chunks, named = STATED[name]
    array = stored(primaries, values)
    assert np.abs(array.astype(int) - SHOWN).max() > 8  # there is something to convert
    picture = decode_picture(made(tmp_path / "in.png", array, **chunks))
    assert picture.converted
    assert picture.notices == (f"an ICC profile is made of its {named}",)
    # Of light in 8 bits little is left in the dark.
    np.testing.assert_allclose(picture.rgb.astype(int), SHOWN, atol=9 if values(0.5) == 0.5 else 4)
    for ending in (".png", ".tif"):
        out = written(tmp_path / f"out{ending}", picture)
        assert raw(out)["icc_profile"] == picture.profile
        with Image.open(out) as image:
            np.testing.assert_allclose(np.asarray(image).astype(int), array, atol=3)
        assert decode_picture(out).profile == picture.profile


@pytest.mark.parametrize(
    "chunks",
    [
        {"sRGB": b"\0", "gAMA": gama(1)},
        {"gAMA": gama(2.2)},
        {"gAMA": gama(2.2), "cHRM": chrm(SRGB_PRIMARIES)},
        {"cHRM": chrm(SRGB_PRIMARIES)},
        {"cICP": bytes((1, 13, 0, 1)), "gAMA": gama(1)},
    ],
)
def test_what_means_srgb_is_left_as_it_is(tmp_path: Path, chunks: dict[str, bytes]) -> None:
    picture = decode_picture(made(tmp_path / "in.png", SHOWN, **chunks))
    assert (picture.profile, picture.converted, picture.notices) == (None, False, ())
    np.testing.assert_array_equal(picture.rgb, SHOWN)


def test_an_icc_profile_counts_before_the_rest_but_cicp(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.png", SHOWN, icc_profile=WIDE)
    data = path.read_bytes()
    more = made(tmp_path / "more.png", SHOWN, gAMA=gama(1)).read_bytes()
    start, end = more.index(b"gAMA") - 4, more.index(b"gAMA") + 12
    path.write_bytes(data[:33] + more[start:end] + data[33:])
    assert decode_picture(path).profile == WIDE


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ({"gAMA": bytes(4)}, "gAMA"),
        ({"gAMA": struct.pack(">I", 1)}, "gAMA"),
        ({"cHRM": bytes(32)}, "cHRM"),
        ({"cHRM": struct.pack(">8I", *(30_000,) * 8)}, "cHRM"),
    ],
)
def test_colours_that_cannot_be_are_said(
    tmp_path: Path, chunks: dict[str, bytes], named: str
) -> None:
    picture = decode_picture(made(tmp_path / "in.png", SHOWN, **chunks))
    assert picture.notices == (f"its {named} cannot be used; sRGB is assumed",)
    np.testing.assert_array_equal(picture.rgb, SHOWN)


@pytest.mark.parametrize("code", [(2, 2, 0, 1), (9, 14, 9, 1), (9, 14, 0, 0), (1, 17, 0, 1)])
def test_other_code_points_are_said(tmp_path: Path, code: tuple[int, ...]) -> None:
    picture = decode_picture(made(tmp_path / "in.png", SHOWN, cICP=bytes(code)))
    told = "its cICP is of a kind that is not supported and is ignored"
    assert picture.notices == (told,)


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("depth", [8, 16])
def test_high_dynamic_range_is_refused(tmp_path: Path, curve: int, name: str, depth: int) -> None:
    chunk = {"cICP": bytes((9, curve, 0, 1))}
    path = png(tmp_path / "in.png", 2, 1, depth, 2, [bytes(depth * 6 // 8)], **chunk)
    message = (
        f"{path} has {name} colours of high dynamic range (cICP), which is not supported; "
        "allowed: sRGB, Display P3, Rec. 2020, gamma; try a copy in sRGB"
    )
    assert refusal(decode_picture, path) == message
    assert refusal(image_size, path) == message
    assert refusal(open_source, path, max_pixels=99, max_memory=10**9, stream_above=0) == message


def test_greys_of_another_gamma(tmp_path: Path) -> None:
    path = png(tmp_path / "in.png", 3, 1, 8, 0, [bytes((0, 55, 255))], gAMA=gama(1))
    picture = decode_picture(path)
    assert picture.rgb[0, :, 0].tolist() == [0, 128, 255]  # 55 of 255 is the light of 128
    assert picture.notices == (
        "an ICC profile is made of its gAMA",
        "greyscale becomes sRGB; its grey profile is not kept",
    )


# ----------------------------------------------------------------------------------------- BMP


def bmp(path: Path, array: np.ndarray, kind: bytes, ends: Any = None, gamma: float = 0) -> Path:
    """A BMP of the fifth version; its profile is ``WIDE`` where the kind says that there is one."""
    height, width = array.shape[:2]
    rows = np.pad(array[::-1, :, ::-1].reshape(height, -1), ((0, 0), (0, -3 * width % 4)))
    body = rows.tobytes()
    points = (np.asarray(to_xyz(ends)).T if ends else np.zeros((3, 3))) * 2**30
    head = struct.pack("<IiiHHIIiiII16x", 124, width, height, 1, 24, 0, len(body), 0, 0, 0, 0)
    head += kind + struct.pack("<9i", *points.round().astype(int).flat)
    head += struct.pack("<3I", *(round(gamma * 65536),) * 3)
    head += struct.pack("<IIII", 4, 124 + len(body), len(WIDE), 0)
    data = head + body + WIDE
    path.write_bytes(struct.pack("<2sI4xI", b"BM", 14 + len(data), 14 + 124) + data)
    return path


def test_a_bmp_s_profile_counts(tmp_path: Path) -> None:
    picture = decode_picture(bmp(tmp_path / "in.bmp", SHOWN, b"DEBM"))
    assert picture.profile == WIDE
    assert picture.converted
    for kind in (b"BGRs", b" niW"):
        assert decode_picture(bmp(tmp_path / "in.bmp", SHOWN, kind)).profile is None


def test_a_bmp_s_calibrated_colours_are_converted(tmp_path: Path) -> None:
    array = stored(ADOBE_PRIMARIES, power(2.2))
    picture = decode_picture(bmp(tmp_path / "in.bmp", array, bytes(4), ADOBE_PRIMARIES, 2.2))
    assert picture.notices == ("an ICC profile is made of its calibrated colours",)
    np.testing.assert_allclose(picture.rgb.astype(int), SHOWN, atol=4)
    assert decode_picture(bmp(tmp_path / "empty.bmp", array, bytes(4))).notices == ()


def test_a_bmp_s_profile_elsewhere_is_said(tmp_path: Path) -> None:
    told = "its colour profile is in another file and is not used; sRGB is assumed"
    assert decode_picture(bmp(tmp_path / "in.bmp", SHOWN, b"KNIL")).notices == (told,)


# ---------------------------------------------------------------------------------- TIFF, EXIF


def tiff_of(path: Path, array: np.ndarray, primaries: Any = None, table: Any = None) -> Path:
    tags: list[Any] = []
    if primaries:
        values = [round(value * 1000) for point in primaries for value in point]
        fractions = tuple(each for value in values for each in (value, 1000))
        tags += [(318, "2I", 2, (3127, 10000, 3290, 10000), True), (319, "2I", 6, fractions, True)]
    if table is not None:
        tags.append((301, "H", len(table), tuple(table), True))
    kind = "rgb" if array.ndim == 3 else "minisblack"
    tifffile.imwrite(path, array, photometric=kind, extratags=tags, metadata=None)
    return path


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("primaries", [None, ADOBE_PRIMARIES])
def test_a_tiff_s_colorimetry_is_converted(tmp_path: Path, three: bool, primaries: Any) -> None:
    array = stored(primaries or SRGB_PRIMARIES, power(1.8))
    table = np.rint(65535 * np.linspace(0, 1, 256) ** 1.8).astype(int).tolist()
    path = tiff_of(tmp_path / "in.tif", array, primaries, table * (3 if three else 1))
    picture = decode_picture(path)
    names = (
        "TransferFunction, WhitePoint, PrimaryChromaticities" if primaries else "TransferFunction"
    )
    assert picture.notices == (f"an ICC profile is made of its {names}",)
    np.testing.assert_allclose(picture.rgb.astype(int), SHOWN, atol=4)
    with open_source(path, max_pixels=10**6, max_memory=10**9, stream_above=0) as source:
        assert source.carried.profile == picture.profile
        assert source.notices[:1] == picture.notices


def test_primaries_of_a_tiff_without_a_function(tmp_path: Path) -> None:
    array = stored(ADOBE_PRIMARIES, power(2.2))
    picture = decode_picture(tiff_of(tmp_path / "in.tif", array, ADOBE_PRIMARIES))
    np.testing.assert_allclose(picture.rgb.astype(int), SHOWN, atol=4)
    # ImageMagick writes those of sRGB into every TIFF.
    picture = decode_picture(tiff_of(tmp_path / "in.tif", SHOWN, SRGB_PRIMARIES))
    assert (picture.profile, picture.notices) == (None, ())


def test_a_tiff_s_nonsense_is_said(tmp_path: Path) -> None:
    for table in ([1, 2, 3], [0] * 300):
        picture = decode_picture(tiff_of(tmp_path / "in.tif", SHOWN, table=table))
        assert picture.notices == ("its TransferFunction cannot be used; sRGB is assumed",)


@pytest.mark.parametrize("count", [256, 65536])
def test_a_deep_tiff_s_colorimetry_takes_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    table = np.linspace(0, 65535, count).round().astype(int)
    path = tiff_of(tmp_path / "in.tif", pixels().astype(np.uint16) * 257, table=table)
    monkeypatch.setattr(profiles, "has_imagecodecs", lambda: False)
    assert refusal(open_source, path, max_pixels=10**6, max_memory=10**9) == (
        f"{path} has 16 bits per channel and colours other than sRGB, which takes an extra "
        "package; try pip install 'sincut[big]' or a copy converted to sRGB"
    )


def exif_with(index: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(34665)[40961] = 65535
    exif.get_ifd(34665)[40965] = {1: index}
    return exif.tobytes()


def test_adobe_rgb_by_exif_is_converted(tmp_path: Path) -> None:
    adobe = exif_with("R03")
    array = stored(ADOBE_PRIMARIES, power(2.2))
    for ending in (".jpg", ".png"):
        how: dict[str, Any] = {"quality": 100, "subsampling": 0} if ending == ".jpg" else {}
        path = saved(tmp_path / f"in{ending}", array, exif=adobe, **how)
        picture = decode_picture(path)
        assert picture.notices[:1] == ("an ICC profile is made of its EXIF's Adobe RGB (R03)",)
        np.testing.assert_allclose(picture.rgb.astype(int), SHOWN, atol=7)
        path = saved(tmp_path / f"in{ending}", array, exif=adobe, icc_profile=WIDE, **how)
        assert decode_picture(path).profile == WIDE
    path = saved(tmp_path / "in.jpg", SHOWN, exif=exif_with("R98"))
    assert decode_picture(path).profile is None


def test_adobe_rgb_by_a_tiff_s_exif_is_converted(tmp_path: Path) -> None:
    array = stored(ADOBE_PRIMARIES, power(2.2))
    tags = tiff_tags(array.shape[1], array.shape[0], 8, 8, 8, t34665=(LONG, 0))
    path = tiff(tmp_path / "in.tif", tags, array.tobytes())
    end = path.stat().st_size
    own: Tags = {40961: (SHORT, 65535), 40965: (LONG, 0)}
    own[40965] = (LONG, end + len(directory(own, end)))
    body = directory(own, end) + directory({1: (ASCII, b"R03\0")}, own[40965][1])
    tags[34665] = (LONG, end)
    path.write_bytes(tiff(path, tags, array.tobytes()).read_bytes() + body)
    picture = decode_picture(path)
    assert picture.notices[:1] == ("an ICC profile is made of its EXIF's Adobe RGB (R03)",)
    np.testing.assert_allclose(picture.rgb.astype(int), SHOWN, atol=7)
    with open_source(path, max_pixels=10**6, max_memory=10**9, stream_above=0) as source:
        assert source.carried.profile == picture.profile


def test_a_made_profile_is_the_one_made_by_hand() -> None:
    """White and primaries land where the definition has them; others read the profile's name."""
    profile = rgb_profile(ADOBE_PRIMARIES, curves=[gamma_curve(2.2)])
    opened = profiles._opened(profile)
    assert opened is not None
    assert opened.profile.profile_description == "colours as the file states them"
    other = profiles._opened(WIDE)
    assert other is not None
    for name in ("red_colorant", "green_colorant", "blue_colorant"):
        ours, theirs = getattr(opened.profile, name)[0], getattr(other.profile, name)[0]
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert D65[1] == 1
