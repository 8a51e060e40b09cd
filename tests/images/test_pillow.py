"""Image files: what survives from input to output, what is told, what is refused and how."""

from __future__ import annotations

import errno
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from sincut.errors import SincutError
from sincut.files import file_digest, write_atomically
from sincut.images.profiles import Colours
from sincut.images.reading import pillow as images
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Picture
from sincut.images.writing.formats import check_output
from sincut.images.writing.layout import Layout
from sincut.images.writing.png import write_png
from sincut.images.writing.writer import Writer
from tests.images.by_pillow import lost_metadata

ENDINGS = (".png", ".jpg", ".tif", ".webp")
LOSSLESS = (".png", ".tif", ".webp")
EXIF, GPS, INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop

every_ending = pytest.mark.parametrize("ending", ENDINGS)
every_lossless = pytest.mark.parametrize("ending", LOSSLESS)


# ------------------------------------------------------------------------ files made by hand


def pixels(height: int = 6, width: int = 10, channels: int = 3, low: int = 0) -> np.ndarray:
    """(H, W, C) uint8, every pixel random."""
    rng = np.random.default_rng(1)
    return rng.integers(low, 256, (height, width, channels), dtype=np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if path.suffix == ".webp":
        options = {"lossless": True, "exact": True} | options
    image.save(path, **options)
    return path


def png(
    path: Path, width: int, height: int, depth: int, kind: int, rows: Iterable[bytes], **more: bytes
) -> Path:
    """A PNG of packed rows; ``more`` are chunks between the header and the pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *((n.encode(), d) for n, d in more.items()), (b"IDAT", body)]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks) + chunk(b"IEND", b"")
    )
    return path


ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL = 2, 3, 4, 5, 7, 10
FLOAT, DOUBLE = 11, 12
CODES = {SHORT: "H", LONG: "I", RATIONAL: "I", SRATIONAL: "i", FLOAT: "f", DOUBLE: "d"}
Tags = dict[int, tuple[int, Any]]


def directory(tags: Tags, offset: int, order: str = "<", following: int = 0) -> bytes:
    """A TIFF directory that will lie at ``offset``, its longer values behind it."""
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    behind = offset + 2 + 12 * len(tags) + 4
    for tag, (kind, value) in sorted(tags.items()):
        if kind in CODES:
            value = value if isinstance(value, tuple) else (value,)
            data = struct.pack(f"{order}{len(value)}{CODES[kind]}", *value)
            count = len(value) // 2 if kind in (RATIONAL, SRATIONAL) else len(value)
        else:
            data, count = value, len(value)
        if len(data) > 4:
            place, values = behind + len(values), values + data + bytes(len(data) % 2)
            data = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI4s", tag, kind, count, data)
    return entries + struct.pack(f"{order}I", following) + values


def tiff(path: Path, tags: Tags, *strips: bytes, start: int = 0) -> Path:
    """A TIFF of these tags and strips; its directory lies at ``start`` or behind the strips."""
    offsets = tuple(8 + sum(map(len, strips[:i])) for i in range(len(strips)))
    body = b"".join(strips)
    start = start or (8 + len(body) + 1) // 2 * 2
    kind = (324, 325) if 322 in tags else (273, 279)
    tags |= {kind[0]: (LONG, offsets), kind[1]: (LONG, tuple(map(len, strips)))}
    head = struct.pack("<2sHI", b"II", 42, start) + body
    path.write_bytes(head.ljust(start, b"\0") + directory(tags, start))
    return path


def tiff_tags(width: int, height: int, *bits: int, photometric: int = 2, **more: Any) -> Tags:
    """What a TIFF of one strip needs besides the strip; ``more`` are ``t338=…``."""
    base: Tags = {
        256: (SHORT, width),
        257: (SHORT, height),
        258: (SHORT, bits),
        259: (SHORT, 1),
        262: (SHORT, photometric),
        277: (SHORT, len(bits)),
        278: (SHORT, height),
    }
    return base | {int(name[1:]): value for name, value in more.items()}


COPYRIGHT = "© José".encode()
COMMENT = b"ASCII\0\0\0hello"


def exif_block(order: str = "<", orientation: int = 6) -> bytes:
    """EXIF of a telephone: orientation, text that is not ASCII, EXIF, GPS and thumbnail
    directories, a rational 0/0, and tags that claim to know how a TIFF's bytes are stored."""
    own: Tags = {
        37380: (SRATIONAL, (-1, 3)),
        37510: (UNDEFINED, COMMENT),
        INTEROP: (LONG, 8),
    }
    position: Tags = {2: (RATIONAL, (48, 1, 51, 1, 30, 7)), 7: (RATIONAL, (0, 0) * 3)}
    first: Tags = {
        256: (LONG, 4000),
        257: (LONG, 3000),
        262: (SHORT, 0),
        271: (ASCII, b"Make\0"),
        274: (SHORT, orientation),
        282: (RATIONAL, (300, 1)),
        283: (RATIONAL, (300, 1)),
        296: (SHORT, 2),
        33432: (ASCII, COPYRIGHT + b"\0"),
        EXIF: (LONG, 0),
        GPS: (LONG, 0),
    }
    length = len(directory(first, 8, order))
    parts = [directory(own, 8 + length, order)]
    parts.append(directory(position, 8 + length + len(parts[0]), order))
    thumbnail = 8 + length + len(parts[0]) + len(parts[1])
    first |= {EXIF: (LONG, 8 + length), GPS: (LONG, 8 + length + len(parts[0]))}
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    body = head + directory(first, 8, order, following=thumbnail) + b"".join(parts)
    return b"Exif\0\0" + body + directory({259: (SHORT, 6)}, thumbnail, order)


def exif_of(path: Path) -> dict[str, Any]:
    """What a file says about its picture, as Pillow sees it."""
    with Image.open(path) as image:
        image.load()
        tags = image.getexif()
        own, position = tags.get_ifd(EXIF), tags.get_ifd(GPS)
        return {
            "make": tags.get(271),
            "copyright": str(tags.get(33432, "")).encode("latin-1"),
            "orientation": tags.get(274, 1),
            "bias": float(own[37380]) if 37380 in own else None,
            "comment": own.get(37510),
            "position": [float(each) for each in position.get(2, ())],
        }


SURVIVING = {
    "make": "Make",
    "copyright": COPYRIGHT,
    "orientation": 1,
    "bias": pytest.approx(-1 / 3),
    "comment": COMMENT,
    "position": pytest.approx([48, 51, 30 / 7]),
}
NOTHING = dict.fromkeys(("make", "bias", "comment")) | {
    "copyright": b"",
    "orientation": 1,
    "position": [],
}


# ---------------------------------------------------------------------- profiles made by hand

Primaries = tuple[tuple[float, float], ...]
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
D50, D65 = np.array([0.9642, 1, 0.8249]), np.array([0.95047, 1, 1.08883])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)} | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x3i48x",
        128 + len(table) + len(body),
        0x02100000,
        kind,
        space,
        connection,
        b"acsp",
        *(round(value * 65536) for value in D50),
    )
    return head + table + body


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">4xIH2x", 1, round(gamma * 256))


def srgb_curve() -> bytes:
    light = np.rint(65535 * linear(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv" + struct.pack(">4xI", light.size) + light.tobytes()


def linear(value: np.ndarray) -> np.ndarray:
    """Light from what sRGB writes for it, both of [0, 1]."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_xyz(primaries: Primaries) -> np.ndarray:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def matrix_profile(primaries: Primaries, curve: bytes) -> bytes:
    """A profile of three primaries, white D65, and one curve."""
    cones = np.diag(BRADFORD @ D50 / (BRADFORD @ D65))
    red, green, blue = (np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ to_xyz(primaries)).T
    tags = {
        name: b"XYZ " + struct.pack(">4x3i", *(round(value * 65536) for value in values))
        for name, values in ((b"wtpt", D65), (b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue))
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile(b"mntr", b"RGB ", b"XYZ ", tags)


def table_profile(kind: bytes, space: bytes, inks: int) -> bytes:
    """A profile with a table from the device to Lab, and none back: the first channel darkens
    from white to L = 50, the others do nothing."""
    corners = np.indices((2,) * inks).reshape(inks, -1)[0]
    lab = b"".join(bytes((128 if first else 255, 128, 128)) for first in corners)
    ramp = bytes(range(256))
    header = struct.pack(">4xBBBx9i", inks, 3, 2, *(round(v * 65536) for v in np.eye(3).flat))
    return profile(kind, space, b"Lab ", {b"A2B0": b"mft1" + header + ramp * inks + lab + ramp * 3})


WIDE = matrix_profile(ADOBE_PRIMARIES, gamma_curve(2.2))
NEARLY = matrix_profile(((0.6403, 0.33), (0.3, 0.6003), (0.15, 0.06)), srgb_curve())
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.0)})


def wide_from_srgb(rgb: np.ndarray) -> np.ndarray:
    """The same colours in ``WIDE``, by its definition."""
    light = linear(rgb / 255) @ (np.linalg.inv(to_xyz(ADOBE_PRIMARIES)) @ to_xyz(SRGB_PRIMARIES)).T
    return np.rint(255 * light.clip(0, 1) ** (256 / round(2.2 * 256))).astype(np.uint8)


# ------------------------------------------------------------------------------- shorthands


def refusal(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(SincutError) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(path: Path, source: Picture, strip_metadata: bool = False) -> Path:
    """``source`` written as if its translation were itself."""
    pixels = Colours(source.profile, source.converted).from_srgb(source.rgb)
    if source.alpha is not None:
        pixels = np.dstack([pixels, source.alpha])
    carried = source.carried
    layout, how = Layout(*pixels.shape, dtype=pixels.dtype), {"strip_metadata": strip_metadata}
    with Writer.open(path, layout, carried, band_rows=256, identity={}, **how) as writer:
        for index in range(writer.bands):
            band = pixels[256 * index : 256 * (index + 1)]
            writer.append(writer.encode(index, band))
        writer.finish()
    return path


def raw(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        image.load()
        return dict(image.info)


# ------------------------------------------------------------------- size, orientation, modes


@every_ending
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 3), (31, 50)])
def test_every_format_keeps_width_and_height(
    tmp_path: Path, ending: str, height: int, width: int
) -> None:
    picture = decode_picture(saved(tmp_path / f"in{ending}", pixels(height, width)))
    assert (picture.height, picture.width) == picture.rgb.shape[:2] == (height, width)
    assert picture.rgb.dtype == np.uint8
    assert picture.alpha is picture.profile is picture.exif is picture.dpi is None
    assert picture.notices == ()
    with Image.open(written(tmp_path / f"out{ending}", picture)) as image:
        assert image.size == (width, height)
        assert image.mode == "RGB"


@every_lossless
def test_lossless_formats_keep_every_pixel(tmp_path: Path, ending: str) -> None:
    array = pixels(20, 30)
    picture = decode_picture(saved(tmp_path / f"in{ending}", array))
    np.testing.assert_array_equal(picture.rgb, array)
    again = decode_picture(written(tmp_path / f"out{ending}", picture))
    np.testing.assert_array_equal(again.rgb, array)


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "deflated.tif"])
def test_orientation_is_applied_once_and_reset(tmp_path: Path, name: str, orientation: int) -> None:
    array = np.kron(pixels(2, 3), np.ones((16, 16, 1), np.uint8))  # survives JPEG
    options: dict[str, Any] = {"exif": exif_block(orientation=orientation)}
    if name == "a.jpg":
        options |= {"quality": 100, "subsampling": 0}
    elif name != "a.png" and name != "a.webp":
        options = {"tiffinfo": {274: orientation}}
        options["compression"] = "tiff_adobe_deflate" if name == "deflated.tif" else "raw"
    picture = decode_picture(saved(tmp_path / name, array, **options))
    np.testing.assert_allclose(picture.rgb, UPRIGHT[orientation](array), atol=30)
    for ending in ENDINGS:
        path = written(tmp_path / f"out{ending}", picture)
        again = decode_picture(path)
        np.testing.assert_allclose(again.rgb, picture.rgb, atol=30)
        assert exif_of(path)["orientation"] == 1


def test_an_orientation_in_xmp_alone_counts(tmp_path: Path) -> None:
    array = pixels()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    picture = decode_picture(saved(tmp_path / "in.webp", array, xmp=xmp))
    np.testing.assert_array_equal(picture.rgb, UPRIGHT[6](array))


def test_greyscale_becomes_rgb(tmp_path: Path) -> None:
    array = pixels(channels=1)[..., 0]
    for ending in (".png", ".tif"):
        picture = decode_picture(saved(tmp_path / f"in{ending}", array))
        np.testing.assert_array_equal(picture.rgb, np.stack([array] * 3, axis=-1))
        assert picture.notices == ()
    with Image.open(written(tmp_path / "out.png", picture)) as image:
        assert image.mode == "RGB"


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    for ending in (".png", ".tif", ".bmp"):
        path = saved(tmp_path / f"in{ending}", Image.fromarray(np.eye(9, dtype=bool)))
        np.testing.assert_array_equal(decode_picture(path).rgb[..., 1], 255 * np.eye(9))


@pytest.mark.parametrize("ending", [".png", ".gif", ".tif", ".bmp"])
def test_a_palette_is_converted_and_told(tmp_path: Path, ending: str) -> None:
    palette = Image.fromarray(pixels()).quantize(8)
    picture = decode_picture(saved(tmp_path / f"in{ending}", palette))
    np.testing.assert_array_equal(picture.rgb, np.asarray(palette.convert("RGB")))
    assert picture.notices == ("its palette is converted to RGB",)


@pytest.mark.parametrize("ending", [".jpg", ".tif"])
def test_cmyk_is_converted_and_told(tmp_path: Path, ending: str) -> None:
    colours = {
        (0, 0, 0, 0): (255, 255, 255),
        (0, 255, 255, 0): (255, 0, 0),
        (0, 0, 0, 255): (0, 0, 0),
    }
    for ink, colour in colours.items():
        picture = decode_picture(saved(tmp_path / f"in{ending}", Image.new("CMYK", (16, 16), ink)))
        np.testing.assert_allclose(picture.rgb, np.broadcast_to(colour, (16, 16, 3)), atol=2)
        assert picture.notices == ("CMYK is converted to sRGB",)


def test_ycbcr_is_converted(tmp_path: Path) -> None:
    path = tiff(tmp_path / "in.tif", tiff_tags(1, 1, 8, 8, 8, photometric=6), b"\x4d\x80\x80")
    assert decode_picture(path).rgb.tolist() == [[[77, 77, 77]]]


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_of_several_images_the_first_is_used_and_told(tmp_path: Path, name: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = saved(tmp_path / name, first, save_all=True, append_images=[second, first])
    picture = decode_picture(path)
    assert tuple(picture.rgb[0, 0]) == (255, 0, 0)
    assert "it has 3 images; the first is used" in picture.notices


def test_a_camera_s_previews_are_not_told(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    with Image.open(path) as image:
        assert image.format == "MPO"
        place = path.read_bytes().index(image.info["mp"]) + 50 + 16  # of the second's attribute
    picture = decode_picture(path)
    assert picture.rgb[0, 0, 0] > 250
    told = "its further image (such as a gain map or a depth map) is not kept"
    assert picture.notices == (told,)
    data = bytearray(path.read_bytes())
    data[place : place + 4] = struct.pack("<I", 0x010001)
    path.write_bytes(data)
    assert decode_picture(path).notices == ()


def test_channels_that_are_neither_colour_nor_alpha_are_told(tmp_path: Path) -> None:
    array = pixels(channels=4)
    tags = tiff_tags(10, 6, 8, 8, 8, 8, t338=(SHORT, 0))
    picture = decode_picture(tiff(tmp_path / "infrared.tif", tags, array.tobytes()))
    np.testing.assert_array_equal(picture.rgb, array[..., :3])
    assert picture.notices == ("its channels beyond colour and alpha are not kept",)


# -------------------------------------------------------------------------------------- alpha


@every_lossless
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_passes_unchanged(tmp_path: Path, mode: str, ending: str) -> None:
    array = pixels(channels=len(mode))
    array[0, :3, -1] = (0, 128, 255)
    picture = decode_picture(saved(tmp_path / "in.png", Image.fromarray(array, mode)))
    np.testing.assert_array_equal(picture.alpha, array[..., -1])
    colour = array[..., :3] if mode == "RGBA" else array[..., [0, 0, 0]]
    np.testing.assert_array_equal(picture.rgb, colour)  # also under alpha 0
    again = decode_picture(written(tmp_path / f"out{ending}", picture))
    np.testing.assert_array_equal(again.alpha, array[..., -1])
    np.testing.assert_array_equal(again.rgb, colour)


@pytest.mark.parametrize(
    ("depth", "kind", "row", "transparent", "colours", "alpha"),
    [
        (8, 0, b"\0\5\6", b"\0\5", [0, 5, 6], [255, 0, 255]),
        (1, 0, b"\x40", b"\0\1", [0, 255, 0], [255, 0, 255]),
        (2, 0, b"\x1b", b"\0\2", [0, 85, 170], [255, 255, 0]),
        (4, 0, b"\x05\xf0", b"\0\5", [0, 85, 255], [255, 0, 255]),
        (8, 2, b"\1\1\1\2\2\2\3\3\3", b"\0\2\0\2\0\2", [1, 2, 3], [255, 0, 255]),
        (8, 3, b"\0\1\2", b"\x80\xff\0", [7, 8, 9], [128, 255, 0]),
        (8, 3, b"\0\1\2", b"\xff\0", [7, 8, 9], [255, 0, 255]),
    ],
    ids=["grey 8", "grey 1", "grey 2", "grey 4", "RGB", "palette", "one of a palette"],
)
def test_a_transparent_colour_becomes_alpha(
    tmp_path: Path,
    depth: int,
    kind: int,
    row: bytes,
    transparent: bytes,
    colours: list[int],
    alpha: list[int],
) -> None:
    more = {"PLTE": b"\7\7\7\x08\x08\x08\t\t\t"} if kind == 3 else {}
    path = png(tmp_path / "in.png", 3, 1, depth, kind, [row], **more, tRNS=transparent)
    picture = decode_picture(path)
    assert picture.rgb[0, :, 0].tolist() == picture.rgb[0, :, 2].tolist() == colours
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [alpha]


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_colours_are_divided(tmp_path: Path, channels: int) -> None:
    pixel = bytes((50,) * (channels - 1) + (100,))
    tags = tiff_tags(1, 1, *(8,) * channels, photometric=1 if channels == 2 else 2, t338=(SHORT, 1))
    picture = decode_picture(tiff(tmp_path / "in.tif", tags, pixel))
    assert picture.rgb.tolist() == [[[127, 127, 127]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[100]]


def test_alpha_is_turned_with_the_image(tmp_path: Path) -> None:
    array = pixels(channels=4)
    path = saved(tmp_path / "in.png", array, exif=exif_block(orientation=6))
    np.testing.assert_array_equal(decode_picture(path).alpha, UPRIGHT[6](array)[..., 3])


# -------------------------------------------------------------------------------------- depth


def deep_message(path: Path, mode: str) -> str:
    return (
        f"{path} has more than 8 bits per channel (mode {mode}), which is not supported yet; "
        "try an 8-bit copy"
    )


@pytest.mark.parametrize(
    ("kind", "size", "mode"), [(2, 6, "RGB"), (0, 2, "I;16"), (4, 4, "RGBA"), (6, 8, "RGBA")]
)
def test_a_deep_png_is_refused(tmp_path: Path, kind: int, size: int, mode: str) -> None:
    path = png(tmp_path / "deep.png", 2, 2, 16, kind, [bytes(2 * size)] * 2)
    assert refusal(decode_picture, path) == deep_message(path, mode)


@pytest.mark.parametrize(
    ("tags", "data", "mode"),
    [
        (tiff_tags(2, 2, 16, 16, 16), [bytes(24)], "RGB"),
        (tiff_tags(2, 2, 16, 16, 16, t284=(SHORT, 2)), [bytes(8)] * 3, "RGB"),
        (tiff_tags(2, 2, 16, 16, 16, t259=(SHORT, 8)), [zlib.compress(bytes(24))], "RGB"),
        (tiff_tags(2, 2, 16, 16, 16, 16, t338=(SHORT, 2)), [bytes(32)], "RGBA"),
        (tiff_tags(2, 2, 16, 16, 16, 16, photometric=5), [bytes(32)], "CMYK"),
        (tiff_tags(2, 2, 16, photometric=1), [bytes(8)], "I;16"),
        (tiff_tags(2, 2, 12, photometric=1), [bytes(6)], "I;16"),
        (tiff_tags(2, 2, 32, photometric=1, t339=(SHORT, 2)), [bytes(16)], "I"),
        (tiff_tags(2, 2, 32, photometric=1, t339=(SHORT, 3)), [bytes(16)], "F"),
    ],
    ids=["RGB", "planes", "deflated", "RGBA", "CMYK", "grey", "grey 12", "integers", "float"],
)
def test_a_deep_tiff_is_refused(tmp_path: Path, tags: Tags, data: list[bytes], mode: str) -> None:
    path = tiff(tmp_path / "deep.tif", tags, *data)
    assert refusal(decode_picture, path) == deep_message(path, mode)


@pytest.mark.parametrize(
    ("header", "mode"),
    [
        (b"P6 2 2 65535 ", "RGB"),
        (b"P6 2 2 1023 ", "RGB"),
        (b"P5 2 2 65535 ", "I"),
        (b"P3 2 2 256 ", "RGB"),
    ],
)
def test_a_deep_ppm_is_refused(tmp_path: Path, header: bytes, mode: str) -> None:
    path = tmp_path / "deep.ppm"
    path.write_bytes(header + b"0 " * 24)
    assert refusal(decode_picture, path) == deep_message(path, mode)


def test_a_deep_jpeg_is_no_image(tmp_path: Path) -> None:
    path = saved(tmp_path / "deep.jpg", pixels())
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    path.write_bytes(data)
    assert "is not an image that can be read" in refusal(decode_picture, path)


def test_a_16_elsewhere_than_in_the_depth_is_no_depth(tmp_path: Path) -> None:
    palette = Image.fromarray(np.arange(40, dtype=np.uint8).reshape(5, 8), "P")
    palette.putpalette(bytes(range(120)))
    red = struct.pack("<H", 0b11111_000000_00000)
    header = struct.pack(
        "<2sI4xIIiiHHIIiiII3I",
        b"BM",
        74,
        66,
        40,
        4,
        1,
        1,
        16,
        3,
        8,
        0,
        0,
        0,
        0,
        *(0xF800, 0x07E0, 0x1F),
    )
    (tmp_path / "565.bmp").write_bytes(header + red * 4)
    (tmp_path / "max.ppm").write_bytes(b"P6 1 1 216 " + bytes((216, 0, 0)))
    deflated = tiff_tags(10, 6, 8, 8, 8, t259=(SHORT, 8))
    tiled = tiff_tags(700, 16, 8, 8, 8, t322=(SHORT, 672), t323=(SHORT, 16))
    for path in (
        tmp_path / "565.bmp",
        tmp_path / "max.ppm",
        saved(tmp_path / "rows of 216 bytes.bmp", pixels(2, 72)),
        saved(tmp_path / "transparent 16.gif", palette, transparency=16),
        tiff(tmp_path / "at 1600.tif", deflated, zlib.compress(pixels().tobytes()), start=1600),
        tiff(tmp_path / "rows of 2016 bytes.tif", tiled, *[bytes(16 * 2016)] * 2),
    ):
        assert decode_picture(path).rgb.size
    assert decode_picture(tmp_path / "565.bmp").rgb.tolist() == [[[255, 0, 0]] * 4]
    assert decode_picture(tmp_path / "max.ppm").rgb.tolist() == [[[255, 0, 0]]]


# ----------------------------------------------------------------------------------- profiles


@every_ending
@pytest.mark.parametrize("strip_metadata", [False, True])
@pytest.mark.parametrize("data", [WIDE, SRGB], ids=["wide", "sRGB"])
def test_the_profile_s_bytes_are_kept(
    tmp_path: Path, ending: str, data: bytes, strip_metadata: bool
) -> None:
    path = saved(tmp_path / f"in{ending}", pixels(low=100), icc_profile=data)
    picture = decode_picture(path)
    assert picture.profile == data
    assert picture.converted == (data is WIDE)
    for target in ENDINGS:
        out = written(tmp_path / f"out{target}", picture, strip_metadata)
        assert raw(out)["icc_profile"] == data


@every_ending
def test_without_a_profile_none_is_added(tmp_path: Path, ending: str) -> None:
    picture = decode_picture(saved(tmp_path / "in.png", pixels()))
    assert "icc_profile" not in raw(written(tmp_path / f"out{ending}", picture))


def test_a_wide_profile_is_converted_to_srgb_and_back(tmp_path: Path) -> None:
    srgb = np.stack(np.meshgrid(*[np.arange(40, 220, 20, dtype=np.uint8)] * 3), -1).reshape(
        27, 27, 3
    )
    wide = wide_from_srgb(srgb)
    assert np.abs(wide.astype(int) - srgb).max() > 20  # there is something to convert
    picture = decode_picture(saved(tmp_path / "in.png", wide, icc_profile=WIDE))
    assert picture.converted
    np.testing.assert_allclose(picture.rgb.astype(int), srgb, atol=4)
    assert picture.notices == ()
    with Image.open(written(tmp_path / "out.png", picture)) as image:
        np.testing.assert_allclose(np.asarray(image).astype(int), wide, atol=2)


def test_what_lies_outside_srgb_is_clipped_and_told(tmp_path: Path) -> None:
    array = np.full((10, 10, 3), 128, np.uint8)
    array[:2] = (0, 255, 0)
    picture = decode_picture(saved(tmp_path / "in.png", array, icc_profile=WIDE))
    assert picture.notices == ("20.0% of its pixels lie outside sRGB and were clipped",)
    assert picture.rgb[0, 0].tolist() == [0, 255, 0]


def test_dark_colours_are_not_taken_for_clipped_ones(tmp_path: Path) -> None:
    dark = np.repeat(np.arange(60, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert decode_picture(saved(tmp_path / "in.png", dark, icc_profile=WIDE)).notices == ()


@pytest.mark.parametrize("data", [SRGB, NEARLY], ids=["sRGB", "nearly sRGB"])
def test_a_profile_equal_to_srgb_changes_no_pixel(tmp_path: Path, data: bytes) -> None:
    array = pixels(40, 40)
    picture = decode_picture(saved(tmp_path / "in.png", array, icc_profile=data))
    np.testing.assert_array_equal(picture.rgb, array)
    assert picture.notices == ()
    with Image.open(written(tmp_path / "out.png", picture)) as image:
        np.testing.assert_array_equal(np.asarray(image), array)
        assert image.info["icc_profile"] == data


def test_alpha_is_not_converted_with_the_colours(tmp_path: Path) -> None:
    array = pixels(channels=4, low=100)
    picture = decode_picture(saved(tmp_path / "in.png", array, icc_profile=WIDE))
    np.testing.assert_array_equal(picture.alpha, array[..., 3])
    with Image.open(written(tmp_path / "out.tif", picture)) as image:
        np.testing.assert_array_equal(np.asarray(image)[..., 3], array[..., 3])


UNUSABLE = "its ICC profile cannot be used and is not kept; sRGB is assumed"


@pytest.mark.parametrize(
    "data",
    [b"not a profile" * 20, WIDE[:200], b"\0" * 128, GREY],
    ids=["text", "cut", "zeros", "grey"],
)
@every_ending
def test_a_profile_that_cannot_be_used_is_told(tmp_path: Path, ending: str, data: bytes) -> None:
    picture = decode_picture(saved(tmp_path / f"in{ending}", pixels(), icc_profile=data))
    assert picture.notices == (UNUSABLE,)
    assert picture.profile is None


def test_a_profile_that_cannot_be_unpacked_is_told(tmp_path: Path) -> None:
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], iCCP=b"x\0\0not zlib")
    assert decode_picture(path).notices == (UNUSABLE,)
    profile_as_numbers = tiff_tags(1, 1, 8, 8, 8, t34675=(SHORT, 5))
    path = tiff(tmp_path / "in.tif", profile_as_numbers, bytes(3))
    assert decode_picture(path).notices == (UNUSABLE,)


def test_a_grey_profile_is_used_but_not_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.png", Image.new("L", (4, 4), 55), icc_profile=GREY)
    picture = decode_picture(path)
    assert picture.notices == ("greyscale becomes sRGB; its grey profile is not kept",)
    assert picture.profile is None
    # Linear grey, so 55 of 255 of the light: 0.2157, which sRGB writes as 128.
    np.testing.assert_allclose(picture.rgb, 128, atol=1)


@pytest.mark.parametrize("ending", [".jpg", ".tif"])
def test_a_cmyk_profile_is_used_but_not_kept(tmp_path: Path, ending: str) -> None:
    inks = table_profile(b"prtr", b"CMYK", 4)
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    picture = decode_picture(saved(tmp_path / f"in{ending}", cyan, icc_profile=inks))
    assert picture.notices == ("CMYK is converted to sRGB; its profile is not kept",)
    assert picture.profile is None
    np.testing.assert_allclose(picture.rgb, 119, atol=3)  # L = 50, not the naive cyan


def test_a_profile_without_a_way_back_is_refused(tmp_path: Path) -> None:
    scanner = table_profile(b"scnr", b"RGB ", 3)
    path = saved(tmp_path / "in.png", pixels(), icc_profile=scanner)
    assert refusal(decode_picture, path) == (
        f"{path} has an ICC profile that does not allow the conversion to sRGB and back "
        "(cannot build transform); try a copy converted to sRGB"
    )


# ------------------------------------------------------------------------------- EXIF and DPI


@every_ending
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_survives_from_every_format_to_every_format(
    tmp_path: Path, ending: str, order: str
) -> None:
    path = saved(tmp_path / "in.png", pixels(), exif=exif_block(order))
    if ending != ".png":
        first = decode_picture(path)
        path = written(tmp_path / f"in{ending}", first)
    picture = decode_picture(path)
    assert picture.notices == ()
    for target in ENDINGS:
        out = written(tmp_path / f"out{target}", picture)
        assert exif_of(out) == SURVIVING
        assert decode_picture(out).rgb.shape == (10, 6, 3)
        assert exif_of(written(tmp_path / f"bare{target}", picture, strip_metadata=True)) == NOTHING
        assert decode_picture(tmp_path / f"bare{target}").exif is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_exif_block_is_kept_byte_for_byte(tmp_path: Path, order: str) -> None:
    """But for the orientation and the link to the thumbnail, which shows what is no more."""
    path = saved(tmp_path / "in.jpg", pixels(), exif=exif_block(order, orientation=6))
    block = decode_picture(path).exif
    assert block is not None
    before, after = exif_block(order, orientation=6), exif_block(order, orientation=1)
    changed = {i for i, (a, b) in enumerate(zip(before, block, strict=True)) if a != b}
    turned = {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    link = 6 + 8 + 2 + 12 * 11
    assert turned < changed <= turned | set(range(link, link + 4))
    assert block[link : link + 4] == bytes(4)
    for target in (".jpg", ".png", ".webp"):
        out = written(tmp_path / f"out{target}", decode_picture(path))
        assert raw(out)["exif"].removeprefix(b"Exif\0\0") == block.removeprefix(b"Exif\0\0")


def test_exif_as_png_had_it_before_its_chunk(tmp_path: Path) -> None:
    block = exif_block()
    text = f"\nexif\n{len(block):8}\n" + "\n".join(
        block.hex()[i : i + 72] for i in range(0, 2 * len(block), 72)
    )
    profile_text = b"Raw profile type exif\0\0" + zlib.compress(text.encode())
    path = png(tmp_path / "in.png", 2, 1, 8, 2, [bytes(6)], zTXt=profile_text)
    picture = decode_picture(path)
    assert picture.rgb.shape == (2, 1, 3)
    assert exif_of(written(tmp_path / "out.jpg", picture)) == SURVIVING


# From NewSubfileType to TileByteCounts, without text and resolution; ExtraSamples, SampleFormat.
STRUCTURAL = {*range(254, 326), 338, 339} - {269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316}


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_a_tiff_s_structure_does_not_leak(tmp_path: Path, compression: str) -> None:
    path = saved(
        tmp_path / "in.tif", pixels(), compression=compression, tiffinfo={271: "Make", 339: 1}
    )
    picture = decode_picture(path)
    for target in (".png", ".jpg", ".webp"):
        with Image.open(written(tmp_path / f"out{target}", picture)) as image:
            tags = set(image.getexif())
        assert 271 in tags
        assert not tags & STRUCTURAL


def test_a_jpeg_s_claims_about_storage_do_not_reach_a_tiff(tmp_path: Path) -> None:
    """Telephones write ImageWidth and more into a JPEG's EXIF; Pillow would believe it."""
    array = pixels()
    picture = decode_picture(saved(tmp_path / "in.png", array, exif=exif_block(orientation=1)))
    with Image.open(written(tmp_path / "out.tif", picture)) as image:
        assert image.size == (10, 6)
        assert image.tag_v2[262] == 2
        np.testing.assert_array_equal(np.asarray(image), array)


def test_exif_of_a_bigtiff_becomes_a_classic_block(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[271] = "Make"
    tags[EXIF] = {37510: COMMENT}
    picture = decode_picture(
        saved(tmp_path / "in.tif", pixels(), exif=tags.tobytes(), big_tiff=True)
    )
    assert (tmp_path / "in.tif").read_bytes()[:4] == b"II+\0"
    assert picture.exif is not None
    assert picture.exif.startswith(b"Exif\0\0II*\0")
    found = exif_of(written(tmp_path / "out.jpg", picture))
    assert (found["make"], found["comment"]) == ("Make", COMMENT)


def test_types_survive_in_a_tiff(tmp_path: Path) -> None:
    picture = decode_picture(saved(tmp_path / "in.jpg", pixels(), exif=exif_block()))
    data = written(tmp_path / "out.tif", picture).read_bytes()
    assert struct.pack("<HHI", 37510, UNDEFINED, len(COMMENT)) in data
    assert struct.pack("<HHI", 37380, SRATIONAL, 1) in data
    assert struct.pack("<HH", INTEROP, LONG) not in data  # an offset that means nothing there
    block = decode_picture(tmp_path / "out.tif").exif
    assert block is not None
    assert struct.pack("<HHI", 37510, UNDEFINED, len(COMMENT)) in block


@pytest.mark.parametrize("width", range(1, 9))
def test_directories_of_a_tiff_lie_at_even_offsets(tmp_path: Path, width: int) -> None:
    picture = decode_picture(saved(tmp_path / "in.jpg", pixels(1, width), exif=exif_block()))
    with Image.open(written(tmp_path / "out.tif", picture)) as image:
        tags = image.tag_v2
        assert tags[EXIF] % 2 == tags[GPS] % 2 == 0


def test_text_that_is_no_text_does_not_reach_a_tiff(tmp_path: Path) -> None:
    tags: Tags = {271: (ASCII, b"Make\0"), 272: (UNDEFINED, b"model"), 315: (SHORT, 7)}
    body = struct.pack("<2sHI", b"II", 42, 8) + directory(tags, 8)
    picture = decode_picture(saved(tmp_path / "in.png", pixels(), exif=b"Exif\0\0" + body))
    with Image.open(written(tmp_path / "out.tif", picture)) as image:
        assert 271 in image.getexif()
        assert not {272, 315} & set(image.getexif())


def test_exif_that_is_announced_twice(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.png", pixels(), exif=b"Exif\0\0" + exif_block())
    assert exif_of(written(tmp_path / "out.jpg", decode_picture(path))) == SURVIVING


def test_a_long_exif_is_kept_or_told(tmp_path: Path) -> None:
    block = exif_block() + bytes(70_000)
    picture = decode_picture(saved(tmp_path / "in.png", pixels(), exif=block, dpi=(300, 300)))
    assert picture.exif is not None
    for ending in (".png", ".webp", ".tif"):
        assert lost_metadata(tmp_path / f"out{ending}", picture) == ()
        assert exif_of(written(tmp_path / f"out{ending}", picture)) == SURVIVING
    assert lost_metadata(tmp_path / "out.jpg", picture) == (
        "its EXIF is not kept: JPEG can hold 65533 bytes of it",
    )
    assert exif_of(written(tmp_path / "out.jpg", picture)) == NOTHING
    assert raw(tmp_path / "out.jpg")["dpi"] == (300, 300)


DAMAGED = {
    "text": b"Exif\0\0" + b"garbage" * 9,
    "cut": exif_block()[:30],
    "count": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 0xFFFF),
    "offset": b"Exif\0\0II*\0" + struct.pack("<I", 0xFFFFFF00) + bytes(20),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_damaged_exif_is_told_and_not_kept(tmp_path: Path, ending: str, name: str) -> None:
    array = pixels(16, 16)
    picture = decode_picture(saved(tmp_path / f"in{ending}", array, exif=DAMAGED[name]))
    assert picture.rgb.shape == array.shape
    assert "its EXIF is damaged and not kept" in picture.notices
    assert picture.exif is None
    for target in ENDINGS:
        assert exif_of(written(tmp_path / f"out{target}", picture)) == NOTHING


def test_the_orientation_of_damaged_exif_counts(tmp_path: Path) -> None:
    entry = struct.pack("<HHIHH", 274, SHORT, 1, 6, 0)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 99) + entry
    array = pixels()
    picture = decode_picture(saved(tmp_path / "in.png", array, exif=block))
    assert picture.exif is None
    np.testing.assert_array_equal(picture.rgb, UPRIGHT[6](array))


def test_an_empty_exif_is_none(tmp_path: Path) -> None:
    picture = decode_picture(png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], eXIf=b""))
    assert picture.exif is None
    assert picture.notices == ()


def test_a_damaged_part_of_exif_is_told(tmp_path: Path) -> None:
    tags: Tags = {271: (ASCII, b"Make\0"), 272: (ASCII, b"x" * 50)}
    body = struct.pack("<2sHI", b"II", 42, 8) + directory(tags, 8)[:-45]
    picture = decode_picture(saved(tmp_path / "in.png", pixels(), exif=b"Exif\0\0" + body))
    assert len(picture.notices) == 1
    assert picture.notices[0].startswith("it is damaged in part: ")  # then Pillow's own words
    out = tmp_path / "out.tif"
    assert lost_metadata(out, picture) == ()  # not told again
    assert exif_of(written(out, picture))["make"] == "Make"


def test_a_damaged_directory_of_exif_is_told_where_it_matters(tmp_path: Path) -> None:
    """The block is kept as it is where it is opaque, and taken apart for a TIFF alone."""
    tags: Tags = {271: (ASCII, b"Make\0"), EXIF: (FLOAT, 0.5)}
    body = struct.pack("<2sHI", b"II", 42, 8) + directory(tags, 8)
    picture = decode_picture(saved(tmp_path / "in.png", pixels(), exif=b"Exif\0\0" + body))
    assert lost_metadata(tmp_path / "out.tif", picture) == ("its EXIF is damaged and not kept",)
    assert exif_of(written(tmp_path / "out.tif", picture)) == NOTHING
    assert lost_metadata(tmp_path / "out.png", picture) == ()
    assert raw(written(tmp_path / "out.png", picture))["exif"] == picture.exif


@pytest.mark.parametrize("source", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("target", [".png", ".jpg", ".tif"])
def test_dpi_survives(tmp_path: Path, source: str, target: str) -> None:
    picture = decode_picture(saved(tmp_path / f"in{source}", pixels(), dpi=(300, 150)))
    assert raw(written(tmp_path / f"out{target}", picture))["dpi"] == pytest.approx(
        (300, 150), rel=1e-3
    )
    assert "dpi" not in raw(written(tmp_path / f"bare{target}", picture, strip_metadata=True)) or (
        target == ".tif" and raw(tmp_path / f"bare{target}")["dpi"] == (1, 1)
    )
    assert decode_picture(tmp_path / f"bare{target}").dpi is None


def test_webp_keeps_a_resolution_in_exif_or_it_is_told(tmp_path: Path) -> None:
    plain = decode_picture(saved(tmp_path / "plain.png", pixels(), dpi=(300, 300)))
    told = "its resolution is not kept: WEBP can hold it in EXIF only"
    assert lost_metadata(tmp_path / "out.webp", plain) == (told,)
    camera = decode_picture(saved(tmp_path / "camera.jpg", pixels(), exif=exif_block()))
    assert camera.dpi == (300, 300)
    assert lost_metadata(tmp_path / "out.webp", camera) == ()


def test_no_resolution_is_made_up(tmp_path: Path) -> None:
    """Pillow takes a TIFF without one for 1 dpi, and a JPEG whose EXIF has none for 72."""
    tags = Image.Exif()
    tags[271] = "Make"
    assert decode_picture(saved(tmp_path / "in.jpg", pixels(), exif=tags)).dpi is None
    assert decode_picture(tiff(tmp_path / "in.tif", tiff_tags(2, 1, 8, 8, 8), bytes(6))).dpi is None


@pytest.mark.parametrize("ratio", [(0, 0), (0, 1), (1, 0), (4_000_000_000, 1), (1, 1000)])
def test_a_resolution_of_nonsense_is_no_resolution(tmp_path: Path, ratio: tuple[int, int]) -> None:
    tags = tiff_tags(2, 1, 8, 8, 8, t282=(RATIONAL, ratio), t283=(RATIONAL, ratio), t296=(SHORT, 2))
    picture = decode_picture(tiff(tmp_path / "in.tif", tags, bytes(6)))
    assert picture.dpi is None
    for density in ((0, 0), (0, 11_811), (11_811, 0)):
        chunk = struct.pack(">IIB", *density, 1)
        path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], pHYs=chunk)
        assert decode_picture(path).dpi is None
    for target in ENDINGS:
        assert decode_picture(written(tmp_path / f"out{target}", picture)).dpi is None


# ------------------------------------------------------------------------------------ GeoTIFF

GEO: Tags = {
    33550: (DOUBLE, (0.5, 0.25, 0.0)),
    33922: (DOUBLE, (0.0, 0.0, 0.0, 440720.1, 3751320.7, 0.0)),
    34735: (SHORT, (1, 1, 0, 2, 1024, 0, 1, 1, 2048, 0, 1, 4326)),
    34736: (DOUBLE, (6378137.0, 298.257223563)),
    34737: (ASCII, "WGS 84 à|\0".encode()),
    42112: (ASCII, b"<GDALMetadata></GDALMetadata>\0"),
    42113: (ASCII, b"-9999\0"),
}


def geo_tiff(path: Path) -> Path:
    tags = tiff_tags(10, 6, 8, 8, 8, t271=(ASCII, b"Make\0")) | GEO
    return tiff(path, tags, pixels().tobytes())


def geo_of(path: Path) -> dict[int, tuple[int, Any]]:
    with Image.open(path) as image:
        tags = image.tag_v2
        return {tag: (tags.tagtype[tag], tags[tag]) for tag in (*GEO, 34264) if tag in tags}


def test_geotiff_tags_are_copied_to_a_tiff(tmp_path: Path) -> None:
    path = geo_tiff(tmp_path / "in.tif")
    picture = decode_picture(path)
    assert set(geo_of(path)) == set(GEO)
    assert lost_metadata(tmp_path / "out.tif", picture) == ()
    out = written(tmp_path / "out.tif", picture)
    assert geo_of(out) == geo_of(path)
    assert exif_of(out)["make"] == "Make"
    assert geo_of(written(tmp_path / "bare.tif", picture, strip_metadata=True)) == {}


def test_geotiff_tags_and_exif_survive_together(tmp_path: Path) -> None:
    camera = decode_picture(saved(tmp_path / "in.jpg", pixels(), exif=exif_block()))
    both = Picture(
        camera.rgb, exif=camera.exif, geo=decode_picture(geo_tiff(tmp_path / "geo.tif")).geo
    )
    out = written(tmp_path / "out.tif", both)
    assert geo_of(out) == geo_of(tmp_path / "geo.tif")
    assert exif_of(out) == SURVIVING
    again = written(tmp_path / "again.tif", decode_picture(out))
    assert geo_of(again) == geo_of(out)
    assert exif_of(again) == SURVIVING


@pytest.mark.parametrize(("ending", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP")])
def test_where_geotiff_tags_cannot_be_held_it_is_told(
    tmp_path: Path, ending: str, kind: str
) -> None:
    picture = decode_picture(geo_tiff(tmp_path / "in.tif"))
    told = f"its GeoTIFF tags are not kept: {kind} cannot hold them"
    assert lost_metadata(tmp_path / f"out{ending}", picture) == (told,)
    written(tmp_path / f"out{ending}", picture)


# ------------------------------------------------------------------------------ refused inputs


def test_a_missing_file_a_folder_and_a_file_as_folder(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    assert refusal(decode_picture, missing) == f"{missing} does not exist; give an image file"
    assert refusal(decode_picture, tmp_path) == (
        f"{tmp_path} is a folder, not an image; give the image file"
    )
    inside = saved(tmp_path / "a.png", pixels()) / "b.png"
    assert refusal(decode_picture, inside) == (
        f"cannot read {inside} (Not a directory); check the place and its permissions"
    )
    long = tmp_path / ("x" * 300)
    assert refusal(decode_picture, long) == (
        f"cannot read {long} (File name too long); check the place and its permissions"
    )


def test_a_file_that_must_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", pixels())

    def closed(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(images, "open", closed, raising=False)
    assert refusal(decode_picture, path) == (
        f"cannot read {path} (Permission denied); check the place and its permissions"
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"II*\0"])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(content)
    assert refusal(decode_picture, path) == (
        f"{path} is not an image that can be read; allowed: JPEG of 8 bits, PNG, TIFF, WebP, "
        "JPEG 2000, HEIC, AVIF, camera raw, BMP, GIF, PPM; try another copy or one converted to PNG"
    )


@pytest.mark.parametrize("name", ["a.ico", "a.jp2", "a.tga", "a.pdf", "a.eps"])
def test_formats_that_are_not_named_are_no_images(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(pixels(16, 16))
    path = saved(tmp_path / name, image).rename(tmp_path / "a.png")
    assert "is not an image that can be read" in refusal(decode_picture, path)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp", ".bmp", ".gif", ".ppm"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_file_cut_short_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    path = saved(tmp_path / f"a{ending}", pixels(60, 60))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refusal(decode_picture, path)
    assert message.startswith(f"{path} is broken or cut short (")
    assert message.endswith("); try another copy of the file")


def test_a_kind_that_pillow_lacks_is_not_called_broken(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.bmp", pixels(10, 10))
    data = bytearray(path.read_bytes())
    data[14] = 16  # a header of OS/2
    path.write_bytes(data)
    assert refusal(decode_picture, path) == (
        f"{path} is of a kind that is not supported (Unsupported BMP header type (16)); try a copy "
        "as PNG or TIFF"
    )


def test_the_words_for_a_file_cut_short(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ppm", pixels(10, 10))
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(decode_picture, path) == (
        f"{path} is broken or cut short (image file is truncated (29 bytes not processed)); "
        "try another copy of the file"
    )


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp", ".gif"])
def test_changed_bytes_end_in_a_picture_or_one_line(tmp_path: Path, ending: str) -> None:
    """Whatever Pillow raises for a damaged file, and whatever it warns of."""
    options = {} if ending == ".gif" else {"exif": exif_block(), "icc_profile": WIDE}
    data = saved(tmp_path / f"good{ending}", pixels(low=60), **options).read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(30):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 500), 3):
            damaged[place] ^= 1 << rng.integers(8)
        path = tmp_path / f"bad{ending}"
        path.write_bytes(damaged)
        try:
            picture = decode_picture(path, 2_000)
        except SincutError:
            continue
        for target in LOSSLESS:
            again = decode_picture(written(tmp_path / f"out{target}", picture))
            assert again.rgb.shape == picture.rgb.shape


def test_a_colour_mode_without_conversion_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "lab.tif", Image.new("LAB", (4, 4)))
    assert refusal(decode_picture, path) == (
        f"{path} has the colour mode LAB, which is not supported; allowed: greyscale, RGB, "
        "palette, CMYK; try an RGB copy"
    )


def test_the_size_is_compared_before_decoding(tmp_path: Path) -> None:
    path = png(tmp_path / "huge.png", 100_000, 100_000, 8, 2, [b""])
    assert refusal(decode_picture, path) == (
        f"{path} has 100000×100000 = 10000000000 pixels, allowed are 1000000000; "
        "try --max-pixels 10000000000"
    )
    path = saved(tmp_path / "a.png", pixels(5, 7))
    assert decode_picture(path, max_pixels=35).rgb.shape == (5, 7, 3)
    assert refusal(decode_picture, path, max_pixels=34) == (
        f"{path} has 7×5 = 35 pixels, allowed are 34; try --max-pixels 35"
    )


@every_ending
def test_pillow_s_own_limit_stays_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = saved(tmp_path / f"a{ending}", pixels(40, 40))
    for limit in (1000, 10):  # a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode_picture(path).rgb.shape == (40, 40, 3)
        assert limit == Image.MAX_IMAGE_PIXELS
        refusal(decode_picture, path, max_pixels=1)
        refusal(decode_picture, tmp_path)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_other_warnings_than_pillow_s_about_files_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.png", pixels())
    decoded = images._decoded

    def deprecated(*arguments: Any) -> Picture:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return decoded(*arguments)

    monkeypatch.setattr(images, "_decoded", deprecated)
    with pytest.raises(DeprecationWarning):
        decode_picture(path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert decode_picture(path).notices == ()


# ----------------------------------------------------------------------------- refused outputs


def test_an_ending_that_names_no_format(tmp_path: Path) -> None:
    for name in ("out.gif", "out", "out.PNG.txt"):
        path = tmp_path / name
        assert refusal(check_output, path, 10, 10, alpha=False) == (
            f"{path} has no ending of an image format; allowed: .png, .jpg, .jpeg, .tif, .tiff, "
            f".webp; try {path.with_suffix('.png').name}"
        )


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.JPEG", "a.tif", "a.tiff", "a.webp"])
def test_endings_that_name_a_format(tmp_path: Path, name: str) -> None:
    check_output(tmp_path / name, 10, 10, alpha=False)


def test_alpha_does_not_go_into_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "out.jpg"
    assert refusal(check_output, path, 10, 10, alpha=True) == (
        f"{path} cannot be written: JPEG cannot hold the input's alpha channel; "
        "try out.png or out.tif"
    )
    for name in ("out.png", "out.tif", "out.webp"):
        check_output(tmp_path / name, 10, 10, alpha=True)


@pytest.mark.parametrize(
    ("name", "kind", "most"), [("a.jpg", "JPEG", 65_500), ("a.webp", "WEBP", 16_383)]
)
def test_sides_too_long_for_the_format(tmp_path: Path, name: str, kind: str, most: int) -> None:
    path = tmp_path / name
    check_output(path, most, most, alpha=False)
    for height, width in ((most + 1, 2), (2, most + 1)):
        assert refusal(check_output, path, height, width, alpha=False) == (
            f"{path} cannot be written: {kind} holds at most {most} pixels a side, "
            f"got {width}×{height}; try a.tif"
        )
    check_output(tmp_path / "a.png", most + 1, most + 1, alpha=False)
    check_output(tmp_path / "a.tif", most + 1, most + 1, alpha=False)


@pytest.mark.parametrize(("ending", "most"), [(".jpg", 65_500), (".webp", 16_383)])
def test_the_longest_sides_can_be_written(tmp_path: Path, ending: str, most: int) -> None:
    picture = Picture(np.zeros((1, most, 3), np.uint8))
    with Image.open(written(tmp_path / f"a{ending}", picture)) as image:
        assert image.size == (most, 1)


def test_places_where_no_file_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a.png"
    folder.mkdir()
    for path in (folder, Path()):
        assert refusal(check_output, path, 10, 10, alpha=False) == (
            f"{path} is a folder, not a file; give a file name for the output"
        )
    absent = tmp_path / "absent" / "out.png"
    assert refusal(check_output, absent, 10, 10, alpha=False) == (
        f"the folder {absent.parent} does not exist; create it first"
    )
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert refusal(check_output, tmp_path / "out.png", 10, 10, alpha=False) == (
        f"the folder {tmp_path} must not be written to; give another -o"
    )


# ------------------------------------------------------------------------------ atomic writing


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with write_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert only(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def body() -> None:
        with write_atomically(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        body()
    assert path.read_bytes() == b"old"
    assert only(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, place, full)
    assert refusal(write_png, path, pixels()) == (
        f"cannot write {path} (No space left on device); check the place and its free space"
    )
    assert path.read_bytes() == b"old"
    assert only(tmp_path) == ["out.png"]


def test_a_disk_full_in_the_middle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"

    def body() -> None:
        with write_atomically(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    assert refusal(body) == (
        f"cannot write {path} (No space left on device); check the place and its free space"
    )
    assert only(tmp_path) == []


def test_trouble_with_another_file_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="other"),
        write_atomically(tmp_path / "out.bin"),
        open(tmp_path / "other"),
    ):
        pass
    assert only(tmp_path) == []


def test_an_encoder_s_own_trouble_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"

    def body() -> None:
        with write_atomically(path):
            raise OSError("encoder error -2 when writing image file")

    assert refusal(body) == (
        f"cannot write {path} (encoder error -2 when writing image file); "
        "check the place and its free space"
    )


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "out.png"
    assert refusal(write_png, path, pixels()) == (
        f"cannot write {path} (No such file or directory); check the place and its free space"
    )
    folder = tmp_path / "out.png"
    folder.mkdir()
    assert refusal(write_png, folder, pixels()) == (
        f"cannot write {folder} (Is a directory); check the place and its free space"
    )
    assert only(tmp_path) == ["out.png"]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_usual_permissions(tmp_path: Path, mask: int, expected: int) -> None:
    before = os.umask(mask)
    try:
        write_png(tmp_path / "out.png", pixels())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.png").stat().st_mode) == expected


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".png", "画" * 83 + ".png"):
        write_png(tmp_path / name, pixels())
    assert len(only(tmp_path)) == 2


def test_a_plain_png_is_exact(tmp_path: Path) -> None:
    array = pixels(33, 21)
    write_png(tmp_path / "out.png", array)
    np.testing.assert_array_equal(decode_picture(tmp_path / "out.png").rgb, array)


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
