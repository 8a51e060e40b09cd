"""HEIF and AVIF: pixels, depth, alpha, orientation, what is kept, told and refused."""

from __future__ import annotations

import io
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from sincut.errors import SincutError
from sincut.images.reading.endings import images_among
from sincut.images.reading.open import image_size, read_picture
from tests.images.sources import opened, refusal, rows_of

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="6"'
    b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>'
)


def noise(height: int = 32, width: int = 48, channels: int = 3, bits: int = 8) -> np.ndarray:
    """(H, W, C) of all values that so many bits hold."""
    kind = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(3).integers(0, 1 << bits, (height, width, channels), kind)


def heic(path: Path, *images: np.ndarray, mode: str = "RGB", **options: Any) -> Path:
    """A HEIC without loss."""
    file = pillow_heif.HeifFile()
    for pixels in images:
        file.add_frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())
    grey = {} if mode[0] == "L" else {"matrix_coefficients": 0}
    file.save(path, **{"quality": -1, "chroma": 444, **grey, **options})
    return path


def avif(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """An AVIF, nearly without loss."""
    Image.fromarray(pixels).save(path, quality=100, subsampling="4:4:4", **options)
    return path


def orientation_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Sincut"
    return exif.tobytes()


# ---------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("tile_size", [0, 64])
def test_pixels_are_the_files_own(tmp_path: Path, tile_size: int) -> None:
    pixels = noise(96, 160)
    path = heic(tmp_path / "a.heic", pixels, **({"tile_size": tile_size} if tile_size else {}))
    rows, notices = rows_of(path)
    np.testing.assert_array_equal(rows, pixels)
    assert notices == ()
    assert image_size(path) == (160, 96)
    np.testing.assert_array_equal(read_picture(path).rgb, pixels)


@pytest.mark.parametrize("bits", [10, 12])
def test_more_than_8_bits_fill_16(tmp_path: Path, bits: int) -> None:
    pixels = noise(bits=bits)
    path = heic(tmp_path / "a.heic", pixels, mode=f"RGB;{bits}")
    rows, notices = rows_of(path)
    highest = (1 << bits) - 1
    assert rows.dtype == np.uint16
    assert rows.max() == 65535
    np.testing.assert_array_equal(rows, np.rint(pixels * (65535 / highest)).astype(np.uint16))
    assert notices == ()


@pytest.mark.parametrize("bits", [8, 10])
def test_alpha_is_kept(tmp_path: Path, bits: int) -> None:
    pixels = noise(channels=4, bits=bits)
    path = heic(tmp_path / "a.heic", pixels, mode="RGBA" if bits == 8 else f"RGBA;{bits}")
    rows, _ = rows_of(path)
    highest, white = (1 << bits) - 1, np.iinfo(rows.dtype).max
    np.testing.assert_array_equal(rows, np.rint(pixels * (white / highest)).astype(rows.dtype))


def test_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    pixels = np.full((32, 48, 4), 60, np.uint8)
    pixels[..., 3] = 120
    rows, _ = rows_of(heic(tmp_path / "a.heic", pixels, mode="RGBa"))
    assert (rows == [127, 127, 127, 120]).all()


@pytest.mark.parametrize("bits", [8, 10])
def test_grey(tmp_path: Path, bits: int) -> None:
    pixels = noise(channels=1, bits=bits)
    given = pixels if bits == 8 else pixels << 6  # which writes the upper 10 bits
    path = heic(tmp_path / "a.heic", given, mode="L" if bits == 8 else "L;16")
    rows, _ = rows_of(path)
    white = np.iinfo(rows.dtype).max
    expected = np.rint(pixels * (white / ((1 << bits) - 1))).astype(rows.dtype)
    np.testing.assert_array_equal(rows, expected.repeat(3, axis=-1))


def test_an_avif_without_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    pixels = noise(channels=4)
    path = avif(tmp_path / "a.avif", pixels)
    rows, notices = rows_of(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(rows, np.asarray(image))
    assert np.abs(rows[..., :3].astype(int) - pixels[..., :3]).max() <= 4
    np.testing.assert_array_equal(rows[..., 3], pixels[..., 3])
    assert notices == ()


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_deep_avif(tmp_path: Path, bits: int, channels: int) -> None:
    codecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")
    pixels = noise(channels=channels, bits=bits)
    options = {"level": 100, "bitspersample": bits, "pixelformat": "444", "matrix": 0}
    path = tmp_path / "a.avif"
    path.write_bytes(codecs.avif_encode(pixels, **options))
    rows, _ = rows_of(path)
    np.testing.assert_array_equal(rows, np.rint(pixels * (65535 / ((1 << bits) - 1))))


# ----------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once(tmp_path: Path, orientation: int) -> None:
    """Its EXIF says the same as its own boxes, which libheif obeys."""
    pixels = noise()
    exif = orientation_exif(orientation)
    xmp = XMP.replace(b"6", str(orientation).encode())
    path = heic(tmp_path / "a.heic", pixels, exif=exif, xmp=xmp)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    expected, _ = rows_of(tmp_path / "a.png")
    with opened(path) as source:
        np.testing.assert_array_equal(source.rows(0, source.height), expected)
        kept = Image.Exif()
        kept.load(source.carried.exif)
        assert kept[ExifTags.Base.Make] == "Sincut"
        assert kept.get(ExifTags.Base.Orientation, 1) == 1
        assert b'tiff:Orientation="1"' in (source.carried.records.xmp or b"")
    assert image_size(path) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once(tmp_path: Path, orientation: int) -> None:
    path = avif(tmp_path / "a.avif", noise(), exif=orientation_exif(orientation), xmp=XMP)
    with Image.open(path) as image:
        stored = Image.fromarray(np.asarray(image))
    stored.save(tmp_path / "a.png", exif=orientation_exif(orientation))
    expected, _ = rows_of(tmp_path / "a.png")
    rows, _ = rows_of(path)
    np.testing.assert_array_equal(rows, expected)
    assert image_size(path) == (expected.shape[1], expected.shape[0])


# ---------------------------------------------------------------------------- what is kept


def p3_like() -> bytes:
    """A profile that is not sRGB."""
    from sincut.images.colorimetry import D65, P3, SRGB_CURVE, rgb_profile

    return rgb_profile(P3, D65, [SRGB_CURVE])


@pytest.mark.parametrize("ending", [".heic", ".avif"])
def test_its_profile_is_kept(tmp_path: Path, ending: str) -> None:
    path, profile = tmp_path / f"a{ending}", p3_like()
    if ending == ".heic":
        image = Image.fromarray(noise())
        pillow_heif.from_pillow(image).save(path, icc_profile=profile, quality=90)
    else:
        avif(path, noise(), icc_profile=profile)
    with opened(path) as source:
        assert source.carried.profile == profile
        assert source.colours.converted


def test_colours_that_are_stated_in_numbers_become_a_profile(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", noise(), color_primaries=12, transfer_characteristics=13)
    with opened(path) as source:
        assert source.notices[0] == "an ICC profile is made of its nclx"
        assert source.colours.converted
        name = ImageCms.ImageCmsProfile(io.BytesIO(source.carried.profile or b"")).profile
        assert name.xcolor_space.strip() == "RGB"


def test_colours_in_numbers_that_nobody_knows(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", noise(), color_primaries=5)
    _, notices = rows_of(path)
    assert notices == ("its nclx colours are of a kind that is not supported; sRGB is assumed",)


# ---------------------------------------------------------------------------- what is told


def test_of_several_images_the_primary_one_is_used(tmp_path: Path) -> None:
    first, second = noise(), 255 - noise()
    path = heic(tmp_path / "a.heic", first, second, primary_index=1)
    rows, notices = rows_of(path)
    np.testing.assert_array_equal(rows, second)
    assert notices == ("it has 2 images; the primary one, number 2, is used",)


def test_of_a_sequence_the_first_is_used(tmp_path: Path) -> None:
    images = [Image.fromarray(noise()) for _ in range(2)]
    images[0].save(tmp_path / "a.avif", save_all=True, append_images=images[1:])
    _, notices = rows_of(tmp_path / "a.avif")
    assert notices == ("it is a sequence of images; the first is used",)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("urn:com:apple:photo:2020:aux:hdrgainmap", "gain map"),
        ("urn:com:apple:photo:2018:aux:portraiteffectsmatte", "matte"),
        ("urn:else", "auxiliary image (urn:else)"),
    ],
)
def test_auxiliary_images_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    """pillow-heif cannot write any: the header is as it reads it."""
    path = heic(tmp_path / "a.heic", noise())
    heif_open = pillow_heif.open_heif

    def with_auxiliary(*given: Any, **options: Any) -> Any:
        file = heif_open(*given, **options)
        file.info["aux"] = {kind: [7]}
        return file

    monkeypatch.setattr(pillow_heif, "open_heif", with_auxiliary)
    assert rows_of(path)[1] == (f"its {name} is not kept",)


def test_a_gain_map_that_stands_beside_the_image_is_told(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", noise())
    entry = b"infe\x02\0\0\0" + struct.pack(">HH", 9, 0) + b"tmap\0"
    path.write_bytes(path.read_bytes() + struct.pack(">I", 8 + len(entry) + 4) + b"free" + entry)
    assert "its gain map is not kept" in rows_of(path)[1]


def test_pixels_that_are_not_square_are_told(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", noise(), pixel_aspect_ratio=(2, 1))
    assert rows_of(path)[1] == ("its pixel aspect of 2 to 1 is not kept",)


def test_damaged_exif_is_told(tmp_path: Path) -> None:
    path = heic(tmp_path / "a.heic", noise(), exif=b"Exif\0\0" + b"MM\0*\0\0\xff\xff")
    rows, notices = rows_of(path)
    np.testing.assert_array_equal(rows, noise())
    assert notices == ("its EXIF is damaged and not kept",)


# ------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("ending", [".heic", ".avif"])
def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    (heic if ending == ".heic" else avif)(path, noise())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    told = (
        f"{path} takes the package pillow-heif, which is not installed; try pip install "
        "'sincut[photo]'"
    )
    assert refusal(path) == told
    with pytest.raises(SincutError, match=re.escape(told)):
        image_size(path)


def test_a_deep_avif_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = avif(tmp_path / "a.avif", noise())
    heif_open = pillow_heif.open_heif

    def of_ten_bits(*given: Any, **options: Any) -> Any:
        file = heif_open(*given, **options)
        file.info["bit_depth"] = 10
        return file

    monkeypatch.setattr(pillow_heif, "open_heif", of_ten_bits)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert refusal(path) == (
        f"{path} has 10 bits per channel, which as AVIF takes the package imagecodecs; try pip "
        "install 'sincut[photo]' or a copy of 8 bits"
    )


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range(tmp_path: Path, curve: int, name: str) -> None:
    path = heic(
        tmp_path / "a.heic",
        noise(bits=10),
        mode="RGB;10",
        color_primaries=9,
        transfer_characteristics=curve,
    )
    assert refusal(path) == (
        f"{path} has {name} colours of high dynamic range (nclx), which is not supported; allowed: "
        "sRGB, Display P3, Rec. 2020, gamma; try a copy in sRGB"
    )


@pytest.mark.parametrize("ending", [".heic", ".avif"])
def test_sizes_are_compared_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    (heic if ending == ".heic" else avif)(path, noise())
    monkeypatch.setattr("sincut.images.reading.heif._decoded", lambda _: pytest.fail("decoded"))
    assert refusal(path, pixels=1000) == (
        f"{path} has 48×32 = 1536 pixels, allowed are 1000; try --max-pixels 1536"
    )
    assert refusal(path, memory=20_000) == (
        f"{path} has 48×32 pixels, which takes 0.1 MB of memory to decode, allowed are 0.1 MB; "
        "try a TIFF copy, --max-memory 0.1MB"
    )


@pytest.mark.parametrize("ending", [".heic", ".avif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_cut_short(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a{ending}"
    (heic if ending == ".heic" else avif)(path, noise(64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refusal(path)
    assert message.startswith(f"{path} is broken or cut short (")
    assert message.endswith("); try another copy of the file")


def test_they_are_taken_from_a_folder(tmp_path: Path) -> None:
    names = ["a.heic", "b.HEIF", "c.hif", "d.avif", "e.dng", "f.CR2", "g.nef", "h.arw"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in images_among(tmp_path.iterdir())] == names
