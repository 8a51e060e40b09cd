"""Sources: what is read by rows is what is read whole, at every depth; refusals and notices."""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sincut.errors import SincutError
from sincut.images.reading import pillow
from sincut.images.reading import source as sources
from sincut.images.reading import tiff as tiffs
from sincut.images.reading.open import image_size, open_source, read_picture
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Picture, Source
from tests.images.test_pillow import (
    GEO,
    GREY,
    SRGB,
    UPRIGHT,
    WIDE,
    Tags,
    exif_block,
    pixels,
    png,
    refusal,
    saved,
    table_profile,
    tiff,
    tiff_tags,
    written,
)

SHORT = 3


def opened(path: Path, *, stream: bool = True, memory: int = 10**9) -> Source:
    limit = 0 if stream else 10**9
    return open_source(path, max_pixels=10**9, max_memory=memory, stream_above=limit)


def everything(path: Path, chunks: int = 0, **options: Any) -> tuple[np.ndarray, Source]:
    """All rows, in one call or in random chunks, and the source, closed."""
    with opened(path, **options) as source:
        cuts = np.random.default_rng(chunks).integers(0, source.height + 1, chunks)
        edges = [0, *sorted(cuts.tolist()), source.height]
        parts = [source.rows(a, b) for a, b in pairwise(edges)]
        for part in parts:
            assert part.dtype == source.dtype
            assert part.flags.c_contiguous
            assert part.shape[1:] == (source.width, source.channels)
    return np.concatenate(parts), source


def geo_of(source: Source) -> dict[int, Any] | None:
    geo = source.carried.geo
    return None if geo is None else {tag: (geo.tagtype[tag], geo[tag]) for tag in geo}


def equal_to_whole(path: Path, tolerance: int = 0) -> Source:
    """Streamed, in chunks too, it is what Pillow reads: pixels, colours, metadata, notices."""
    limits = sources._Limits(path, 10**9, 10**9, 0, 10**9)
    with pillow.opened_picture(path) as it, pillow._decoded_source(path, limits, it) as first:
        whole = first.rows(0, first.height)
    for chunks in (0, 5):
        rows, second = everything(path, chunks)
        assert not second.decoded, "not streamed"
        assert rows.shape == whole.shape
        assert np.abs(rows.astype(int) - whole).max() <= tolerance
        for name in ("profile", "exif", "dpi"):
            assert getattr(second.carried, name) == getattr(first.carried, name), name
        assert geo_of(second) == geo_of(first)
        assert second.colours == first.colours
        assert second.notices == first.notices
    return second


# ------------------------------------------------------------------- 8 bits against Pillow


EIGHT_BITS: dict[str, tuple[Tags, np.ndarray]] = {
    "rgb": (tiff_tags(10, 6, 8, 8, 8), pixels()),
    "grey": (tiff_tags(10, 6, 8, photometric=1), pixels(channels=1)),
    "white is zero": (tiff_tags(10, 6, 8, photometric=0), pixels(channels=1)),
    "alpha": (tiff_tags(10, 6, 8, 8, 8, 8, t338=(SHORT, 2)), pixels(channels=4)),
    "alpha untold": (tiff_tags(10, 6, 8, 8, 8, 8), pixels(channels=4)),
    "grey alpha": (tiff_tags(10, 6, 8, 8, photometric=1, t338=(SHORT, 2)), pixels(channels=2)),
    "premultiplied": (tiff_tags(10, 6, 8, 8, 8, 8, t338=(SHORT, 1)), pixels(channels=4)),
    "grey premultiplied": (
        tiff_tags(10, 6, 8, 8, photometric=1, t338=(SHORT, 1)),
        pixels(channels=2),
    ),
    "infrared": (tiff_tags(10, 6, 8, 8, 8, 8, t338=(SHORT, 0)), pixels(channels=4)),
    "alpha and more": (
        tiff_tags(10, 6, *(8,) * 5, t338=(SHORT, (2, 0))),
        pixels(channels=5),
    ),
    "inch": (
        tiff_tags(10, 6, 8, 8, 8, t282=(5, (300, 1)), t283=(5, (150, 1)), t296=(SHORT, 2)),
        pixels(),
    ),
    "centimetre": (
        tiff_tags(10, 6, 8, 8, 8, t282=(5, (100, 1)), t283=(5, (100, 3)), t296=(SHORT, 3)),
        pixels(),
    ),
    "no unit": (
        tiff_tags(10, 6, 8, 8, 8, t282=(5, (300, 1)), t283=(5, (300, 1)), t296=(SHORT, 1)),
        pixels(),
    ),
    "nonsense dpi": (tiff_tags(10, 6, 8, 8, 8, t282=(5, (0, 0)), t283=(5, (1, 0))), pixels()),
    "geo": (tiff_tags(10, 6, 8, 8, 8, t271=(2, b"Make\0")) | GEO, pixels()),
    "profile": (tiff_tags(10, 6, 8, 8, 8, t34675=(7, WIDE)), pixels()),
    "sRGB": (tiff_tags(10, 6, 8, 8, 8, t34675=(7, SRGB)), pixels()),
    "profile of numbers": (tiff_tags(10, 6, 8, 8, 8, t34675=(SHORT, 5)), pixels()),
    "grey profile": (
        tiff_tags(10, 6, 8, photometric=1, t34675=(7, GREY)),
        pixels(channels=1),
    ),
    "grey of colour": (
        tiff_tags(10, 6, 8, photometric=1, t34675=(7, WIDE)),
        pixels(channels=1),
    ),
    "orientation in XMP": (
        tiff_tags(10, 6, 8, 8, 8, t700=(1, b'<a tiff:Orientation="6"/>')),
        pixels(),
    ),
}


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_a_tiff_by_rows_is_the_tiff_as_a_whole(tmp_path: Path, name: str) -> None:
    tags, array = EIGHT_BITS[name]
    source = equal_to_whole(tiff(tmp_path / "in.tif", dict(tags), array.tobytes()))
    assert source.dtype == np.uint8
    assert source.channels == (4 if "alpha" in name or "premul" in name else 3)


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("big_tiff", [False, True])
def test_exif_and_resolution_of_a_tiff(tmp_path: Path, compression: str, big_tiff: bool) -> None:
    if compression == "tiff_lzw":
        pytest.importorskip("imagecodecs")
    tags = Image.Exif()
    tags[271], tags[0x8769] = "Make", {37510: b"ASCII\0\0\0hello"}
    options: dict[str, Any] = {"compression": compression, "big_tiff": big_tiff}
    if compression == "raw":
        options["exif"] = tags.tobytes()
    else:  # which Pillow writes without directories
        options["tiffinfo"] = {271: "Make"}
    path = saved(tmp_path / "in.tif", pixels(), dpi=(300, 150), **options)
    source = equal_to_whole(path)
    assert source.carried.exif is not None
    assert source.carried.dpi == (300, 150)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
def test_orientations_of_a_tiff(tmp_path: Path, orientation: int, compression: str) -> None:
    array = pixels(33, 20)
    path = saved(tmp_path / "in.tif", array, compression=compression, tiffinfo={274: orientation})
    equal_to_whole(path)
    np.testing.assert_array_equal(everything(path, 7)[0], UPRIGHT[orientation](array))


def test_pages_are_told_and_smaller_copies_are_not(tmp_path: Path) -> None:
    several, pyramid = tmp_path / "several.tif", tmp_path / "pyramid.tif"
    for path, kind in ((several, 0), (pyramid, 1)):
        with tifffile.TiffWriter(path) as writer:
            for index in range(3):
                writer.write(
                    pixels(32 >> index, 48 >> index),
                    photometric="rgb",
                    subfiletype=kind if index else 0,
                    metadata=None,
                )
    assert equal_to_whole(several).notices == ("it has 3 images; the first is used",)
    assert equal_to_whole(pyramid).notices == ()
    with tifffile.TiffWriter(pyramid) as writer:
        writer.write(pixels(32, 48), photometric="rgb", subifds=1, metadata=None)
        writer.write(pixels(16, 24), photometric="rgb", subfiletype=1, metadata=None)
    assert equal_to_whole(pyramid).notices == ()


@pytest.mark.parametrize("name", ["palette", "one bit", "inks", "four bits", "ycbcr"])
def test_other_kinds_of_tiff_are_decoded_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.tif"
    if name == "palette":
        saved(path, Image.fromarray(pixels()).quantize(8))
    elif name == "one bit":
        saved(path, Image.fromarray(np.eye(9, dtype=bool)))
    elif name == "inks":
        saved(path, Image.fromarray(pixels()).convert("CMYK"))
    elif name == "ycbcr":
        tiff(path, tiff_tags(2, 2, 8, 8, 8, photometric=6), bytes(12))
    else:
        tiff(path, tiff_tags(2, 2, 4, photometric=1), b"\x12\x34")
    rows, source = everything(path)
    assert source.decoded
    np.testing.assert_array_equal(rows, decode_picture(path).rgb)
    message = refusal(opened, path, memory=10)
    assert message.startswith(f"{path} has {source.width}×{source.height} pixels, which takes 0.1 ")
    assert (
        message.endswith(
            " MB of memory to decode, allowed are 0.1 MB; try a TIFF copy, --max-memory 0.1MB"
        )
        or "RGB" in message
    )


# --------------------------------------------------------------------- all kinds of segments


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if dtype.startswith("u"):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    return rng.random(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", ["strips", "strip", "tiles"])
@pytest.mark.parametrize("compression", ["none", "deflate", "predictor", "lzw", "zstd"])
def test_segments_of_every_kind(
    tmp_path: Path, dtype: str, planar: str, layout: str, compression: str
) -> None:
    if compression in ("lzw", "zstd") or (compression == "predictor" and dtype == "float32"):
        pytest.importorskip("imagecodecs")
    array = values((3, 61, 45) if planar == "separate" else (61, 45, 3), dtype)
    options: dict[str, Any] = {"strips": {"rowsperstrip": 7}, "strip": {"rowsperstrip": 61}}.get(
        layout, {"tile": (16, 32)}
    )
    if compression != "none":
        options["compression"] = "deflate" if compression == "predictor" else compression
        options["predictor"] = compression == "predictor"
    expected = array.transpose(1, 2, 0) if planar == "separate" else array
    for big, order in ((False, "<"), (True, ">")):
        path = tmp_path / f"in{big}.tif"
        tifffile.imwrite(
            path, array, photometric="rgb", planarconfig=planar, bigtiff=big, byteorder=order,
            metadata=None, **options,
        )  # fmt: skip
        for chunks in (0, 1, 9):
            rows, source = everything(path, chunks)
            assert not source.decoded
            assert rows.dtype == dtype
            np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("seed", range(8))
def test_any_chunks_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With small bands, so that chunks lie within, across and at their edges."""
    monkeypatch.setattr("sincut.images.reading.tiff._BAND_BYTES", 1000)
    rng = np.random.default_rng(seed)
    array = values((int(rng.integers(1, 90)), int(rng.integers(1, 70)), 3), "uint16")
    options = {"rowsperstrip": int(rng.integers(1, 30))} if seed % 2 else {"tile": (16, 16)}
    path = tmp_path / "in.tif"
    for orientation in (1, 2, 3, 4, 6):
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(
            path, array, photometric="rgb", compression="deflate", extratags=tags, **options
        )
        np.testing.assert_array_equal(everything(path, seed)[0], UPRIGHT[orientation](array))


@pytest.mark.parametrize("chunk", [3, 17, 64])
def test_every_segment_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sincut.images.reading.tiff._BAND_BYTES", 1000)
    for orientation in (1, 4):
        path = tmp_path / "in.tif"
        tifffile.imwrite(
            path, pixels(64, 48), photometric="rgb", compression="deflate", rowsperstrip=5,
            extratags=[(274, "H", 1, orientation, True)],
        )  # fmt: skip
        with opened(path) as source:
            tiff_rows = source._rows if orientation == 1 else source._rows._rows  # type: ignore
            bands = tiff_rows._rows
            decoded = []
            decode = bands._page.decode
            bands._page.__dict__["decode"] = lambda data, index, decode=decode, seen=decoded: (
                seen.append(index) or decode(data, index)
            )
            for start in range(0, 64, chunk):
                source.rows(start, min(start + chunk, 64))
        assert sorted(decoded) == list(range(13))


def test_a_resumed_reading_decodes_only_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    array = pixels(64, 16)
    tifffile.imwrite(path, array, photometric="rgb", compression="deflate", tile=(16, 16))
    with tifffile.TiffFile(path) as file:
        offsets = file.pages.first.dataoffsets
    data = bytearray(path.read_bytes())
    data[offsets[0] : offsets[0] + 30] = bytes(30)  # the first tile is damaged
    path.write_bytes(data)
    with opened(path) as source:
        np.testing.assert_array_equal(source.rows(40, 64), array[40:])
    with opened(path) as source:
        message = refusal(source.rows, 0, 10)
    assert message.startswith(f"{path} is broken or cut short (")
    assert message.endswith("); try another copy of the file")


@pytest.mark.parametrize("nodata", [None, 7])
def test_segments_that_are_left_out_are_empty(tmp_path: Path, nodata: int | None) -> None:
    path = tmp_path / "in.tif"
    array = pixels(32, 32)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    for options in ({"tile": (16, 16), "compression": "deflate"}, {"rowsperstrip": 16}):
        tifffile.imwrite(path, array, photometric="rgb", extratags=tags, **options)
        with tifffile.TiffFile(path, mode="r+") as file:
            page = file.pages.first
            for tag in ("TileOffsets", "TileByteCounts", "StripOffsets", "StripByteCounts"):
                if tag in page.tags:
                    page.tags[tag].overwrite([0, *page.tags[tag].value[1:]])
        rows, _ = everything(path)
        assert (rows[:16, :16] == (nodata or 0)).all()
        np.testing.assert_array_equal(rows[16:], array[16:])


@pytest.mark.parametrize("lost", ["ByteCounts", "Offsets"])
@pytest.mark.parametrize("kind", ["rgb", "palette"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_place_without_bytes_is_damage_and_not_black(
    tmp_path: Path, lost: str, kind: str, tiled: bool, compression: str | None
) -> None:
    path = tmp_path / "in.tif"
    options: dict[str, Any] = {"tile": (16, 16)} if tiled else {"rowsperstrip": 8}
    if kind == "palette":
        options["colormap"] = np.zeros((3, 256), np.uint16)
    array = pixels(32, 32) if kind == "rgb" else pixels(32, 32)[..., 0]
    tifffile.imwrite(path, array, photometric=kind, compression=compression, **options)
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages.first.tags[f"{'Tile' if tiled else 'Strip'}{lost}"]
        tag.overwrite([*tag.value[:2], 0, *tag.value[3:]])
    for stream in (True, False):
        assert refusal(everything, path, stream=stream) == (
            f"{path} is broken or cut short (of 1 {'tiles' if tiled else 'strips'} only the place "
            "or only the byte count is there); try another copy of the file"
        )


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
def test_deep_grey_becomes_rgb(tmp_path: Path, dtype: str, kind: str) -> None:
    array = values((20, 30), dtype)
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, array, photometric=kind)
    rows, source = everything(path, 3)
    expected = array if dtype == "uint16" else array.astype(np.float32)
    if kind == "miniswhite":
        expected = 65535 - expected if dtype == "uint16" else 1 - expected
    np.testing.assert_array_equal(rows, np.repeat(expected[..., None], 3, axis=-1))
    wide = dtype == "float64"
    assert source.notices == (("its values of 64 bits are read as 32 bits",) if wide else ())


def test_deep_alpha(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    for dtype, top in (("uint16", 65535), ("float32", 1)):
        array = values((20, 30, 4), dtype)
        array[0, 0, 3] = 0
        tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"])
        np.testing.assert_array_equal(everything(path)[0], array)
        premultiplied = array.copy()
        premultiplied[..., :3] = (array[..., :3] * (array[..., 3:] / top)).astype(dtype)
        tifffile.imwrite(path, premultiplied, photometric="rgb", extrasamples=["assocalpha"])
        rows, source = everything(path)
        assert source.channels == 4
        np.testing.assert_array_equal(rows[..., 3], array[..., 3])
        np.testing.assert_array_equal(rows[0, 0, :3], premultiplied[0, 0, :3])
        seen = array[..., 3] > 0.5 * top
        np.testing.assert_allclose(rows[seen].astype(float), array[seen], atol=5e-5 * top)


def test_jpeg_in_a_tiff(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    path = tmp_path / "in.tif"
    array = np.kron(pixels(4, 4), np.ones((16, 16, 1), np.uint8))
    tifffile.imwrite(
        path, array, photometric="ycbcr", compression="jpeg", subsampling=(1, 1), tile=(32, 32)
    )
    equal_to_whole(path, tolerance=2)


# JPEG 2000 of 8×4 pixels of Y 100, and 4×4 of Cb 60 and Cr 200.
SUBSAMPLED_JPEG_2000 = bytes.fromhex("""
ff4fff51002f000000000008000000040000000000000000000000080000000400000000000000000003070101070201
070201ff52000c00000001000004040001ff5c00044040ff90000a0000000000340001ff93c3e714115053c391200184
847fcfb42811504978bc003020a90fcfb4241400515c0841816a08ffd9
""")


@pytest.mark.parametrize("photometric", [2, 6])
@pytest.mark.parametrize("number", [33003, 33005])
def test_aperio_s_jpeg_2000_has_the_colours_of_its_number(
    tmp_path: Path, number: int, photometric: int
) -> None:
    """The photometric tag is wrong in half of them: 33003 is YCbCr, 33005 RGB."""
    pytest.importorskip("imagecodecs")
    array, data = pixels(16, 20), io.BytesIO()
    Image.fromarray(array).save(data, "JPEG2000", no_jp2=True, irreversible=False, mct=0)
    tags = tiff_tags(20, 16, 8, 8, 8, photometric=photometric, t259=(SHORT, number))
    path = tiff(tmp_path / "in.tif", tags, data.getvalue())
    expected = ycbcr_as_rgb(array) if number == 33003 else array
    assert np.abs(everything(path)[0] - expected).max() <= (number == 33003)


def test_aperio_s_jpeg_2000_with_subsampled_colour(tmp_path: Path) -> None:
    """The codec brings it to RGB by itself."""
    pytest.importorskip("imagecodecs")
    tags = tiff_tags(8, 4, 8, 8, 8, t259=(SHORT, 33003))
    path = tiff(tmp_path / "in.tif", tags, SUBSAMPLED_JPEG_2000)
    assert np.abs(everything(path)[0] - ycbcr_as_rgb(np.array((100, 60, 200)))).max() <= 1


def ycbcr_as_rgb(pixels: np.ndarray) -> np.ndarray:
    """JPEG's, by the formula."""
    y, cb, cr = np.moveaxis(pixels.astype(float), -1, 0)
    cb, cr = cb - 128, cr - 128
    rgb = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    return np.stack(rgb, axis=-1).clip(0, 255)


def test_lzma_in_a_tiff_whole_and_damaged(tmp_path: Path) -> None:
    """Its errors are of a class of their own."""
    path, array = tmp_path / "in.tif", values((9, 8, 3), "uint16")
    tifffile.imwrite(path, array, photometric="rgb", compression="lzma", metadata=None)
    np.testing.assert_array_equal(everything(path)[0], array)
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[place + 40] ^= 255
    path.write_bytes(data)
    assert refusal(everything, path).startswith(f"{path} is broken or cut short (")


def test_what_a_big_endian_bigtiff_says_is_told_to_be_lost(tmp_path: Path) -> None:
    """Pillow cannot read such files at all; their pixels, profile and resolution are."""
    path = tmp_path / "in.tif"
    array = values((9, 8, 3), "uint16")
    told = ("its EXIF is not kept: it is a BigTIFF in big-endian order",)
    for software, notices in ((False, ()), ("camera", told)):
        tifffile.imwrite(
            path, array, photometric="rgb", bigtiff=True, byteorder=">", software=software,
            metadata=None, resolution=(300, 150), resolutionunit=2, iccprofile=SRGB,
        )  # fmt: skip
        rows, source = everything(path)
        np.testing.assert_array_equal(rows, array)
        assert source.notices == notices
        assert source.carried.profile == SRGB
        assert source.carried.dpi == (300, 150)


# ------------------------------------------------------------------------------- profiles


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_deep_profile(tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("imagecodecs")
    top = 65535 if dtype == "uint16" else 1
    array = np.full((10, 10, 3), 0.5 * top).astype(dtype)
    array[:2] = (0, top, 0)
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, array, photometric="rgb", iccprofile=WIDE)
    rows, source = everything(path, 4)
    np.testing.assert_array_equal(rows, array)
    assert source.colours.converted
    assert source.carried.profile == source.colours.profile == WIDE
    assert source.notices == ("20.0% of its pixels lie outside sRGB and were clipped",)
    back = source.colours.from_srgb(source.colours.to_srgb(rows))
    np.testing.assert_allclose(back[2:].astype(float), array[2:], atol=1e-4 * top)


def test_a_deep_grey_profile_is_used_but_not_kept(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    path = tmp_path / "in.tif"
    grey = np.full((4, 4), 55 * 257, np.uint16)
    tifffile.imwrite(path, grey, photometric="minisblack", iccprofile=GREY)
    rows, source = everything(path)
    assert source.notices == ("greyscale becomes sRGB; its grey profile is not kept",)
    assert source.carried.profile is None
    np.testing.assert_allclose(rows / 257, 128, atol=1)


def test_a_deep_profile_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, values((5, 5, 3), "uint16"), photometric="rgb", iccprofile=WIDE)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert refusal(opened, path) == (
        f"{path} has 16 bits per channel and colours other than sRGB, which takes an "
        "extra package; try pip install 'sincut[big]' or a copy converted to sRGB"
    )
    tifffile.imwrite(path, values((5, 5, 3), "uint16"), photometric="rgb", iccprofile=SRGB)
    assert not everything(path)[1].colours.converted


def test_a_profile_without_a_way_back(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    scanner = table_profile(b"scnr", b"RGB ", 3)
    tifffile.imwrite(path, pixels(), photometric="rgb", iccprofile=scanner)
    assert refusal(opened, path) == refusal(opened, path, stream=False)


# ------------------------------------------------------------------------------ float values


def float_tiff(path: Path, array: np.ndarray) -> Path:
    tifffile.imwrite(path, array.astype(np.float32), photometric="rgb")
    return path


def test_float_values_stay_as_they_are_and_are_told(tmp_path: Path) -> None:
    array = np.full((10, 100, 3), 0.5, np.float32)
    array[0, :10, 0] = (-1, 2, np.inf, -np.inf, 1.5, -0.1, 3, 4, 5, 6)
    array[5, :5, 1] = np.nan
    path = float_tiff(tmp_path / "in.tif", array)
    rows, source = everything(path, 3)
    np.testing.assert_array_equal(rows, array)
    assert source.notices == (
        "0.3% of its values lie outside 0…1 and were clipped",
        "0.5% of its pixels are not numbers and stay so",
    )
    picture = read_picture(path)
    assert picture.rgb[0, :4, 0].tolist() == [0, 255, 255, 0]
    assert picture.rgb[5, 0].tolist() == [128, 0, 128]
    assert picture.notices[1] == "0.5% of its pixels are not numbers and become black"
    array[:] = 0.5
    array[0, 0, 0] = np.nan
    array = np.tile(array, (3, 1, 1))
    array[1:, 0, 0] = 0.5
    found = everything(float_tiff(path, array))[1].notices
    assert found == ("less than 0.1% of its pixels are not numbers and stay so",)


def test_float_values_of_another_range_are_refused(tmp_path: Path) -> None:
    array = np.linspace(-5, 9000, 300).reshape(10, 10, 3)
    path = float_tiff(tmp_path / "in.tif", array)
    with opened(path) as source:
        assert refusal(source.rows, 0, 10) == (
            f"{path} has float values from -5 to 9000; allowed are 0 (black) to 1 (white); "
            "try --range -5,9000, --range auto or a copy scaled to 0…1"
        )
    array[0] = np.nan  # says nothing yet
    with opened(float_tiff(path, array)) as source:
        source.rows(0, 1)
        assert "allowed are 0 (black)" in refusal(source.rows, 1, 10)


# ------------------------------------------------------------------------------ other formats


@pytest.mark.parametrize("kind", ["P5", "P6"])
@pytest.mark.parametrize("highest", [255, 256, 1023, 65535])
def test_binary_ppm_needs_no_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, highest: int
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    bands = 1 if kind == "P5" else 3
    array = np.random.default_rng(0).integers(0, highest + 1, (7, 5, bands))
    stored = array.astype(np.uint8 if highest == 255 else ">u2").tobytes()
    path = tmp_path / "in.ppm"
    path.write_bytes(f"{kind}\n# a comment\n5 7\n{highest}\n".encode() + stored)
    rows, source = everything(path, 4)
    expected = np.rint(array * (1 if highest == 255 else 65535 / highest))
    np.testing.assert_array_equal(rows, np.broadcast_to(expected, (7, 5, 3)))
    assert source.dtype == (np.uint8 if highest == 255 else np.uint16)
    if highest == 255:
        equal_to_whole(path)
    path.write_bytes(path.read_bytes()[:-3])
    assert refusal(opened, path) == (
        f"{path} is broken or cut short (3 bytes of its pixels are missing); "
        "try another copy of the file"
    )


@pytest.mark.parametrize("header", [b"P2 2 2 65535 ", b"P3 2 2 256 ", b"Pf 2 2 -1.0 "])
def test_other_deep_ppm_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "in.ppm"
    path.write_bytes(header + b"0 " * 24)
    assert refusal(opened, path) == (
        f"{path} has more than 8 bits per channel in a kind of PPM that is not supported; "
        "allowed: binary PPM and PGM of 16 bits; try a TIFF copy"
    )


def streamed_options(ending: str) -> dict[str, Any]:
    return {"quality": 95} if ending == ".jpg" else {}


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exif": exif_block(orientation=1)},
        {"exif": exif_block(orientation=2)},
        {"exif": exif_block(orientation=6)},
        {"exif": exif_block(orientation=3)},
        {"exif": b"Exif\0\0" + b"garbage" * 9},
        {"icc_profile": WIDE},
        {"icc_profile": SRGB},
        {"icc_profile": b"nonsense" * 30},
        {"dpi": (300, 150)},
    ],
    ids=["plain", "exif", "mirrored", "turned", "on its head", "damaged", "wide", "sRGB",
         "nonsense", "dpi"],
)  # fmt: skip
def test_other_formats_by_rows(tmp_path: Path, ending: str, options: dict[str, Any]) -> None:
    pytest.importorskip("pyvips")
    array = np.kron(pixels(10, 14, low=30), np.ones((8, 8, 1), np.uint8))
    path = saved(tmp_path / f"in{ending}", array, **streamed_options(ending), **options)
    equal_to_whole(path, tolerance=1 if ending == ".jpg" else 0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_other_modes_by_rows(tmp_path: Path, mode: str, ending: str) -> None:
    pytest.importorskip("pyvips")
    image = Image.fromarray(pixels(40, 30, 4))
    if mode == "P":
        image = image.convert("RGB").quantize(9)
    image = image.convert(mode)
    if mode in (("LA", "RGBA", "P", "1") if ending == ".jpg" else ("CMYK",)):
        return
    profile = {"icc_profile": table_profile(b"prtr", b"CMYK", 4)} if mode == "CMYK" else {}
    for options in ({}, profile):
        path = saved(tmp_path / f"in{ending}", image, **streamed_options(ending), **options)
        equal_to_whole(path, tolerance=1 if ending == ".jpg" else 0)


@pytest.mark.parametrize(
    ("depth", "kind", "row", "transparent"),
    [
        (8, 0, b"\0\5\6", b"\0\5"),
        (1, 0, b"\x40", b"\0\1"),
        (2, 0, b"\x1b", b"\0\2"),
        (4, 0, b"\x05\xf0", b"\0\5"),
        (8, 2, b"\1\1\1\2\2\2\3\3\3", b"\0\2\0\2\0\2"),
        (8, 3, b"\0\1\2", b"\x80\xff\0"),
    ],
)
def test_a_transparent_colour_by_rows(
    tmp_path: Path, depth: int, kind: int, row: bytes, transparent: bytes
) -> None:
    pytest.importorskip("pyvips")
    more = {"PLTE": b"\7\7\7\x08\x08\x08\t\t\t"} if kind == 3 else {}
    path = png(tmp_path / "in.png", 3, 1, depth, kind, [row], **more, tRNS=transparent)
    equal_to_whole(path)


def test_what_stands_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    path = saved(tmp_path / "in.png", pixels(30, 20))
    data = path.read_bytes()
    end = data.rindex(b"IEND") - 4
    block = exif_block(orientation=6)[6:]
    chunk = struct.pack(">I4s", len(block), b"eXIf") + block
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + block))
    path.write_bytes(data[:end] + chunk + data[end:])
    source = equal_to_whole(path)
    assert source.height == 20
    assert source.carried.exif is not None


@pytest.mark.parametrize(("kind", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits(tmp_path: Path, kind: int, bands: int) -> None:
    pytest.importorskip("pyvips")
    array = values((9, 7, bands), "uint16")
    path = png(tmp_path / "in.png", 7, 9, 16, kind, [row.astype(">u2").tobytes() for row in array])
    rows, source = everything(path, 3, stream=False)
    colour = array[..., :1].repeat(3, axis=-1) if bands < 3 else array[..., :3]
    np.testing.assert_array_equal(rows[..., :3], colour)
    if bands in (2, 4):
        np.testing.assert_array_equal(rows[..., 3], array[..., -1])
    assert source.dtype == np.uint16
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.rgb, np.rint(colour * 255.0 / 65535).astype(np.uint8))


def test_png_of_16_bits_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    path = png(tmp_path / "in.png", 2, 2, 16, 2, [bytes(12)] * 2)
    assert refusal(opened, path) == (
        f"{path} has 16 bits per channel, which as PNG takes an extra package; "
        "try pip install 'sincut[big]' or a TIFF copy"
    )


def test_without_the_extra_it_is_decoded_whole_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    path = saved(tmp_path / "in.png", np.zeros((1000, 2000, 3), np.uint8))
    _, source = everything(path)
    assert source.decoded
    assert refusal(opened, path, memory=10_000_000) == (
        f"{path} has 2000×1000 pixels, which takes 20.3 MB of memory to decode, allowed are "
        "10.0 MB; try pip install 'sincut[big]', a TIFF copy, --max-memory 20.3MB"
    )


# --------------------------------------------------------------------------------- refusals


def test_absent_files_folders_and_no_images_as_ever(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_bytes(b"hello")
    short = tmp_path / "short.tif"
    short.write_bytes(b"II*\0")
    for path in (tmp_path / "missing.png", tmp_path, text, short, text / "b.png"):
        assert refusal(opened, path) == refusal(decode_picture, path) == refusal(read_picture, path)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("int8", "int8"), ("int16", "int16"), ("uint32", "uint32"), ("complex64", "complex64")],
)
def test_samples_of_other_kinds_are_refused(tmp_path: Path, dtype: str, name: str) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, np.zeros((4, 4), dtype), photometric="minisblack")
    assert refusal(opened, path, stream=False) == (
        f"{path} has samples of the kind {name}, which is not supported; allowed: uint8, uint16, "
        "float16, float32, float64; try a copy of 16 bits per channel"
    )


def test_the_size_is_compared_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, values((5, 7, 3), "uint16"), photometric="rgb")
    assert refusal(open_source, path, max_pixels=34, max_memory=10**9) == (
        f"{path} has 7×5 = 35 pixels, allowed are 34; try --max-pixels 35"
    )
    assert refusal(read_picture, path, 34) == (
        f"{path} has 7×5 = 35 pixels, allowed are 34; try --max-pixels 35"
    )


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_turned_tiff_larger_than_memory_is_refused(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "in.tif"
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, np.zeros((1000, 500, 3), np.uint16), photometric="rgb", extratags=tags)
    assert refusal(opened, path, memory=2_000_000) == (
        f"{path} is turned by its orientation {orientation}: its 500×1000 pixels take 3.0 MB of "
        "memory to turn, allowed are 2.0 MB; try a copy turned upright or --max-memory 3.0MB"
    )


def test_a_tiff_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.tif"
    array = values((300, 200, 3), "uint16")
    tifffile.imwrite(path, array, photometric="rgb", compression="deflate", rowsperstrip=300)
    monkeypatch.setitem(sys.modules, "pyvips", None)
    monkeypatch.setattr("sincut.images.reading.tiff._LARGEST_PIECE", 1000)
    message = refusal(opened, path, memory=100_000)
    assert message.startswith(f"{path} has 200×300 pixels, which takes ")
    assert ("; try pip install 'sincut[big]', a copy in tiles, --max-memory ") in message
    np.testing.assert_array_equal(everything(path, 3)[0], array)
    monkeypatch.undo()
    monkeypatch.setattr("sincut.images.reading.tiff._LARGEST_PIECE", 1000)
    pytest.importorskip("pyvips")
    rows, source = everything(path, 3, memory=0)
    assert type(source._rows).__name__ == "VipsRows"
    np.testing.assert_array_equal(rows, array)


@pytest.mark.parametrize("compression", ["none", "deflate"])
@pytest.mark.parametrize("layout", [{"tile": (32, 32)}, {"rowsperstrip": 9}])
def test_a_tiff_cut_short_is_refused_when_it_is_opened(
    tmp_path: Path, compression: str, layout: dict[str, Any]
) -> None:
    path = tmp_path / "in.tif"
    array = values((70, 50, 3), "uint16")
    tifffile.imwrite(path, array, photometric="rgb", compression=compression, **layout)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    message = refusal(opened, path)
    assert message.startswith(f"{path} is broken or cut short (")
    assert message.endswith(" bytes of its pixels are missing); try another copy of the file")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_other_files_cut_short(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("pyvips")
    path = saved(tmp_path / f"in{ending}", pixels(200, 100), **streamed_options(ending))
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    message = refusal(everything, path)
    assert message.startswith(f"{path} is broken or cut short (")
    assert message.endswith("); try another copy of the file")


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw"])
def test_changed_bytes_end_in_rows_or_one_line(tmp_path: Path, compression: str) -> None:
    if compression == "lzw":
        pytest.importorskip("imagecodecs")
    path = tmp_path / "in.tif"
    tifffile.imwrite(
        path, values((40, 30, 3), "uint16"), photometric="rgb", compression=compression,
        rowsperstrip=8, iccprofile=SRGB,
    )  # fmt: skip
    data = path.read_bytes()
    rng = np.random.default_rng(2)
    lines = []
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, 400, 3):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            open_source(path, max_pixels=10_000, max_memory=10**8).close()
            with open_source(path, max_pixels=10_000, max_memory=10**8) as source:
                source.rows(0, source.height)
        except SincutError as error:
            lines.append(str(error))
    assert len(lines) > 5
    assert not any("\n" in line for line in lines)


SIDE = 1400
DECODED: dict[str, tuple[str, dict[str, Any]]] = {
    "palette.png": ("P", {}),
    "transparent.png": ("P", {"transparency": 3}),
    "two.png": ("1", {}),
    "key.png": ("RGB", {"transparency": (1, 2, 3)}),
    "alpha.png": ("RGBA", {"exif": exif_block()}),
    "palette.gif": ("P", {}),
    "palette.bmp": ("P", {}),
    "rgb.bmp": ("RGB", {}),
    "turned.jpg": ("RGB", {"exif": exif_block()}),
    "grey.jpg": ("L", {}),
    "progressive.jpg": ("CMYK", {"progressive": True}),
    "alpha.webp": ("RGBA", {"method": 0}),
    "rgb.webp": ("RGB", {"method": 0, "lossless": False}),
    "g4.tif": ("1", {"compression": "group4"}),
    "palette.tif": ("P", {"tiffinfo": {274: 6}}),
    "cmyk.tif": ("CMYK", {"compression": "tiff_lzw"}),
}
MEASURED = """
import sys
import tifffile  # which would count for the first that needs it
from pathlib import Path
from sincut.errors import SincutError
from sincut.images.reading.open import open_source
from sincut.images.reading.pillow import decoding_bytes, opened_picture

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return 1024 * int(line.split()[1])

def peak_of(path, memory):
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = status("VmRSS")
    try:
        open_source(path, max_pixels=10**8, max_memory=memory).close()
        refused = ""
    except SincutError as error:
        refused = str(error)
    return status("VmHWM") - before, refused

paths = [Path(name) for name in sys.argv[1:]]
for path in paths:  # whatever a format takes for the first time
    with opened_picture(path) as opened:
        opened.image.load()
for path in paths:
    with opened_picture(path) as opened:
        foreseen = decoding_bytes(opened)
    peak, refused = peak_of(path, foreseen)
    assert not refused, refused
    little, refused = peak_of(path, foreseen // 2)
    print(foreseen, peak, little, refused, sep="|")
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux' /proc")
def test_memory_is_foreseen_before_it_is_taken(tmp_path: Path) -> None:
    """What does not fit is refused by name, and nothing is decoded before."""
    tile = Image.fromarray(np.tile(pixels(100, 100, 4), (SIDE // 100, SIDE // 100, 1)))
    paths = []
    for name, (mode, options) in DECODED.items():
        image = tile.convert("RGB").convert(mode) if mode != "RGBA" else tile
        paths.append(saved(tmp_path / name, image, **options))
    code = "import sys; sys.modules['pyvips'] = None\n" + MEASURED
    # What is freed goes back at once, or the next would take it without being seen.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    shares = [int(line.split("|")[1]) / int(line.split("|")[0]) for line in lines]
    assert np.median(shares) > 0.7  # not much more is foreseen than is taken
    for path, line in zip(paths, lines, strict=True):
        foreseen, peak, little, refused = line.split("|")
        name = path.name
        if int(foreseen) <= 16_000_000:  # decoded whatever is allowed
            assert refused == "", name
            continue
        assert int(peak) <= int(foreseen) + 2_000_000, name
        # WebP's bytes are read, into two places.
        assert int(little) < 1_000_000 + 2 * path.stat().st_size, name
        amount, half = (f"{int(foreseen) / part / 1e6:.1f} MB" for part in (1, 2))
        streamed = path.suffix in (".png", ".jpg", ".webp")
        others = "pip install 'sincut[big]', a TIFF copy" if streamed else "a TIFF copy"
        assert refused == (
            f"{path} has {SIDE}×{SIDE} pixels, which takes {amount} of memory to decode, allowed "
            f"are {half}; try {others}, --max-memory {math.ceil(int(foreseen) / 1e5) / 10}MB"
        )


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    """libvips remembers files that it cannot read from top to bottom, as interlaced ones."""
    vips, path = pytest.importorskip("pyvips"), tmp_path / "in.png"
    for value in (100, 200):
        array = np.full((9, 8, 3), value, np.uint16)
        image = vips.Image.new_from_array(array).copy(interpretation="rgb16")
        image.write_to_file(str(path), interlace=True)
        np.testing.assert_array_equal(everything(path)[0], array)


def test_what_the_process_takes_already_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.gif", pixels(2000, 2000, 1)[..., 0])
    size = {"max_pixels": 10**7, "max_memory": 300_000_000, "held": 355_000_000}
    assert refusal(open_source, path, **size) == (
        f"{path} has 2000×2000 pixels, which takes 22.3 MB of memory to decode beside 355.0 MB in "
        "use, allowed are 300.0 MB; try a TIFF copy, --max-memory 377.3MB"
    )


def test_rows_are_asked_for_from_top_to_bottom(tmp_path: Path) -> None:
    with opened(saved(tmp_path / "in.tif", pixels(9, 9))) as source:
        source.rows(2, 5)
        for start, stop in ((4, 6), (5, 10), (7, 6)):
            with pytest.raises(ValueError, match="after row 5"):
                source.rows(start, stop)
        assert source.rows(5, 5).shape == (0, 9, 3)
        assert source.rows(9, 9).shape == (0, 9, 3)


def test_without_codecs_the_extra_is_named(tmp_path: Path) -> None:
    """In a fresh interpreter: tifffile looks for its codecs when it is loaded."""
    deep, eight = tmp_path / "deep.tif", tmp_path / "eight.tif"
    Image.fromarray(values((50, 50), "uint16")).save(deep, compression="tiff_lzw")
    saved(eight, pixels(50, 50), compression="tiff_lzw")
    code = f"""
import sys
from pathlib import Path
sys.modules["imagecodecs"] = sys.modules["pyvips"] = sys.modules["rasterio"] = None
from sincut.images.reading.open import open_source
for name, memory in (({str(deep)!r}, 10**9), ({str(eight)!r}, 0), ({str(eight)!r}, 10**9)):
    try:
        source = open_source(Path(name), max_pixels=9999, max_memory=memory, stream_above=0)
        print(source.rows(0, 50).shape)
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = (
        "has the compression LZW, which takes an extra package; "
        "try pip install 'sincut[big]' or a copy with Deflate compression"
    )
    assert done.stdout.splitlines() == [
        f"SincutError {deep} {told}",
        f"SincutError {eight} {told}",
        "(50, 50, 3)",
    ]
    assert done.stderr == ""


def test_nothing_is_said_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyvips")
    path = saved(tmp_path / "in.png", pixels(100, 100), icc_profile=b"nonsense" * 30)
    everything(path)
    path = saved(tmp_path / "in.jpg", pixels(100, 100))
    path.write_bytes(path.read_bytes()[:900])
    refusal(everything, path)
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", ["tiles", "strips", "plain"])
def test_reading_holds_what_it_says(tmp_path: Path, name: str) -> None:
    """Of 48 MB, in chunks of 0.4 MB."""
    path = tmp_path / "in.tif"
    array = np.zeros((4000, 2000, 3), np.uint16)
    options: dict[str, Any] = {
        "tiles": {"tile": (256, 256), "compression": "deflate"},
        "strips": {"rowsperstrip": 64, "compression": "deflate"},
        "plain": {"rowsperstrip": 4000},
    }[name]
    tifffile.imwrite(path, array, photometric="rgb", **options)
    del array
    with opened(path) as source:
        tracemalloc.start()
        for start in range(0, 4000, 32):
            source.rows(start, start + 32)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows = 32 * 2000 * 6
        assert peak < source.resident_bytes + 4 * rows + 2_000_000
        assert source.resident_bytes < 45_000_000
        if name != "plain":
            assert peak > 0.2 * source.resident_bytes


# ------------------------------------------------------------------------------ whole pictures


def same_pictures(a: Picture, b: Picture) -> None:
    np.testing.assert_array_equal(a.rgb, b.rgb)
    assert (a.alpha is None) == (b.alpha is None)
    if a.alpha is not None and b.alpha is not None:
        np.testing.assert_array_equal(a.alpha, b.alpha)
    for name in ("profile", "converted", "exif", "dpi", "notices"):
        assert getattr(a, name) == getattr(b, name)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_a_picture_of_8_bits_is_that_of_images(tmp_path: Path, ending: str) -> None:
    channels = 3 if ending == ".jpg" else 4
    path = saved(tmp_path / f"in{ending}", pixels(channels=channels), icc_profile=WIDE)
    same_pictures(read_picture(path), decode_picture(path))


def test_a_streamed_picture_of_8_bits_is_that_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "in.tif", pixels(channels=4), icc_profile=WIDE, dpi=(300, 300))
    whole = decode_picture(path)
    monkeypatch.setattr("sincut.images.reading.open.STREAM_ABOVE", 0)
    monkeypatch.setattr("sincut.images.reading.open.STREAM_ABOVE", 0)
    same_pictures(read_picture(path), whole)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_a_deep_picture_is_rounded(tmp_path: Path, dtype: str) -> None:
    top = 65535 if dtype == "uint16" else 1
    array = values((30, 20, 4), dtype)
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"])
    picture = read_picture(path)
    expected = np.rint(array.astype(np.float64) * (255 / top)).astype(np.uint8)
    np.testing.assert_array_equal(picture.rgb, expected[..., :3])
    np.testing.assert_array_equal(picture.alpha, expected[..., 3])


def test_every_value_of_16_bits_is_rounded_to_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    tifffile.imwrite(path, ramp, photometric="minisblack")
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.rgb[..., 1], np.rint(ramp.astype(float) * 255 / 65535))


def test_a_picture_that_takes_too_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, np.zeros((1000, 1000, 3), np.uint16), photometric="rgb")
    assert refusal(read_picture, path, max_memory=2_000_000) == (
        f"{path} has 1000×1000 pixels, which takes 3.0 MB of memory to decode, allowed are "
        "2.0 MB; try --max-memory 3.0MB"
    )
    assert read_picture(path, max_memory=3_000_000).rgb.shape == (1000, 1000, 3)


# ------------------------------------------------- small files that only the own reader can read


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_sparse_file_is_black_where_it_is_empty(
    tmp_path: Path, compression: str | None, stream: bool
) -> None:
    """GDAL leaves out what is empty: offset and length are 0, where the file's header lies."""
    path = tmp_path / "in.tif"
    array = np.full((32, 20, 3), 200, np.uint8)
    tifffile.imwrite(path, array, photometric="rgb", rowsperstrip=8, compression=compression)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for tag in (273, 279):
            found = file.pages.first.tags[tag]
            struct.pack_into("<H" if found.dtype == 3 else "<I", data, found.valueoffset, 0)
    path.write_bytes(data)
    rows, source = everything(path, stream=stream)
    array[:8] = 0
    assert np.array_equal(rows, array)
    assert source.notices == ()


@pytest.mark.parametrize(
    ("samples", "options", "channels"),
    [
        (5, {"photometric": "minisblack", "planarconfig": "contig"}, 3),
        (3, {"photometric": "minisblack", "planarconfig": "contig"}, 3),
        (8, {"photometric": "rgb"}, 3),
        (6, {"photometric": "rgb", "planarconfig": "separate"}, 3),
        (3, {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}, 3),
        (2, {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": [2]}, 4),
    ],
    ids=["5 bands", "3 bands", "8 bands", "planes", "big-endian", "grey alpha"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_small_files_of_many_bands(
    tmp_path: Path, samples: int, options: dict[str, Any], channels: int, dtype: Any
) -> None:
    random = np.random.default_rng(0)
    array = random.integers(0, np.iinfo(dtype).max, (9, 14, samples), dtype=dtype)
    stored = np.moveaxis(array, 2, 0) if options.get("planarconfig") == "separate" else array
    tifffile.imwrite(tmp_path / "in.tif", stored, **options)
    rows, source = everything(tmp_path / "in.tif", 3, stream=False)
    assert source.channels == channels
    # GDAL writes three deep bands without saying that they are colour.
    grey = options["photometric"] == "minisblack" and not (samples == 3 and dtype == np.uint16)
    expected = np.repeat(array[..., :1], 3, axis=2) if grey else array[..., :3]
    assert np.array_equal(rows[..., :3], expected)
    if channels == 4:
        assert np.array_equal(rows[..., 3], array[..., 1])


def test_of_several_untold_channels_none_is_alpha(tmp_path: Path) -> None:
    tags, array = tiff_tags(10, 6, *(8,) * 5), pixels(channels=5)
    path = tmp_path / "in.tif"
    tiff(path, tags, array.tobytes())
    rows, source = everything(path)
    assert np.array_equal(rows, array[..., :3])
    assert source.notices == ("its channels beyond colour and alpha are not kept",)


def test_a_thumbnail_as_the_first_page_is_passed_over_or_told(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((5, 6, 3), np.uint8), photometric="rgb", subfiletype=1)
        file.write(np.zeros((10, 12, 3), np.uint8), photometric="rgb")
    for rows, source in (everything(path), everything(path, stream=False)):
        assert rows.shape == (10, 12, 3)
        assert source.notices == ()
    assert decode_picture(path).rgb.shape == (10, 12, 3)
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((5, 6, 3), np.uint8), photometric="rgb", subfiletype=1, subifds=1)
        file.write(np.zeros((10, 12, 3), np.uint8), photometric="rgb")
    assert everything(path)[1].notices == ("it has 2 images; the first is used",)


UNTRUE = {
    "tifffile": '{"shape": [3, 8, 9], "axes": "ZYX"}',
    "old tifffile": "shape=(3, 8, 9)",
    "ImageJ": "ImageJ=1.54f\nimages=3\nslices=3\n",
    "OME": '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/2016"></OME>',
    "Aperio": "Aperio Image Library v11\r\n46000x32914 [0,100 46000x32914] (256x256) Q=30|MPP=0.5",
    "Leica": '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"/>',
    "Philips": '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport"/>',
    "MetaMorph": '<MetaData><prop id="Description" type="string" value=""/></MetaData>',
}
LEFT_OUT = "its ImageDescription is not kept: it tells a program about pages, sizes or channels"


@pytest.mark.parametrize("ending", [".tif", ".jpg"])
@pytest.mark.parametrize("name", UNTRUE)
def test_a_description_for_a_program_is_left_out(tmp_path: Path, name: str, ending: str) -> None:
    path, out = tmp_path / "in.tif", tmp_path / f"out{ending}"
    more = {"description": UNTRUE[name], "metadata": None, "software": "by me"}
    tifffile.imwrite(path, pixels(8, 9), photometric="rgb", **more)
    for stream in (True, False):
        assert everything(path, stream=stream)[1].notices.count(LEFT_OUT) == 1
    read = decode_picture(path)
    assert read.notices.count(LEFT_OUT) == 1
    with Image.open(written(out, read)) as image:
        assert image.getexif().get(270) is None
        assert image.getexif()[305] == "by me"
    if ending == ".tif":
        assert tifffile.imread(out).shape == (8, 9, 3)


@pytest.mark.parametrize(
    "words", ["A tree {in shape}", "Images=3 of ImageJ", "shape (8, 9)", '{"title": "a tree"}']
)
def test_a_description_for_people_is_kept(tmp_path: Path, words: str) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, pixels(8, 9), photometric="rgb", description=words, metadata=None)
    read = decode_picture(path)
    assert read.notices == everything(path)[1].notices == ()
    with Image.open(written(tmp_path / "out.tif", read)) as image:
        assert image.getexif()[270] == words


@pytest.mark.parametrize("name", ["tifffile", "ImageJ"])
def test_a_stack_in_one_directory_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, pixels(8, 9)[..., 0], description=UNTRUE[name], metadata=None)
    told = ("it has 3 images; the first is used", LEFT_OUT)
    for stream in (True, False):
        assert everything(path, stream=stream)[1].notices == told
    assert decode_picture(path).notices == told


@pytest.mark.parametrize("stream", [True, False])
def test_resolutions_are_turned_with_the_image(tmp_path: Path, stream: bool) -> None:
    image = Image.fromarray(pixels())
    exif = Image.Exif()
    for orientation, dpi in ((1, (300, 150)), (3, (300, 150)), (6, (150, 300))):
        exif[0x0112] = orientation
        path = tmp_path / "in.png"
        image.save(path, exif=exif, dpi=(300, 150))
        with opened(path, stream=False) as source:
            assert source.carried.dpi == pytest.approx(dpi, abs=0.1)
        path = tmp_path / "in.tif"
        image.save(path, tiffinfo={0x0112: orientation}, dpi=(300, 150))
        with opened(path, stream=stream) as source:
            assert source.carried.dpi == pytest.approx(dpi)
        assert decode_picture(path).dpi == pytest.approx(dpi)  # Pillow turns it by itself


def with_nodata(path: Path, array: np.ndarray, value: str) -> Path:
    tags = [(42113, "s", 0, value, True)]
    tifffile.imwrite(path, array, photometric="rgb", extratags=tags, rowsperstrip=4)
    return path


def test_where_nothing_is_known_values_are_not_looked_at(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((40, 20, 3), np.float32)
    array[:30] = -9999
    path = with_nodata(tmp_path / "in.tif", array, "-9999")
    rows, source = everything(path, 5)
    assert source.nodata == -9999
    assert source.notices == ()
    assert np.array_equal(rows, array)
    array[0, 0] = (2, 2, 2)
    assert everything(with_nodata(path, array, "-9999"))[1].notices == (
        "0.5% of its values lie outside 0…1 and were clipped",
    )


@pytest.mark.parametrize(
    ("value", "dtype", "found"),
    [
        ("0", np.uint8, 0),
        ("255 ", np.uint8, 255),
        ("256", np.uint8, None),
        ("-9999", np.uint16, None),
        ("0.5", np.uint16, None),
        ("65535", np.uint16, 65535),
        ("nan", np.float32, None),
        ("-3.4028234663852886e+38", np.float32, -3.4028234663852886e38),
        ("1e300", np.float32, None),
        ("none", np.float32, None),
    ],
)
def test_the_value_for_nothing_known(
    tmp_path: Path, value: str, dtype: Any, found: float | None
) -> None:
    path = with_nodata(tmp_path / "in.tif", np.zeros((8, 8, 3), dtype), value)
    with opened(path) as source:
        assert source.nodata == found


# ------------------------------------------------------------------ JPEG with rows missing


def jpeg_of_height(data: bytes, height: int) -> bytes:
    """A JPEG whose header claims another height."""
    place = 2
    while not 0xC0 <= data[place + 1] <= 0xC2:
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return data[: place + 5] + struct.pack(">H", height) + data[place + 7 :]


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {"subsampling": "4:4:4"},
    "subsampled": {"subsampling": "4:2:0", "optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 3},
}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_with_fewer_rows_than_it_claims_is_broken(
    tmp_path: Path, name: str, mode: str
) -> None:
    """However many, and whether the rows that are there are flat or not."""
    path = tmp_path / "in.jpg"
    for height, width in ((1, 1), (7, 3), (100, 33), (64, 300)):
        for flat in (False, True):
            array = pixels(height, width, 1 if mode == "L" else len(mode))
            array[flat * 1 :] = 77 if flat else array[:1]
            image = Image.fromarray(array[..., 0] if mode == "L" else array, mode)
            saved(path, image, **JPEGS[name])
            data = path.read_bytes()
            whole, source = everything(path, stream=False)
            assert whole.shape == (height, width, 3)
            assert not [each for each in source.notices if "damage" in each]
            for more in (height + 16, 2 * height + 40) if height > 1 else ():
                path.write_bytes(jpeg_of_height(data, more))
                assert refusal(everything, path, stream=False) == (
                    f"{path} is broken or cut short (the data end before its last row); "
                    "try another copy of the file"
                )


@pytest.mark.parametrize("name", ["baseline", "subsampled", "restarts"])
def test_a_jpeg_cut_and_ended_is_broken(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "in.jpg", pixels(200, 130), **JPEGS[name])
    data = path.read_bytes()
    for part in (0.5, 0.9):
        path.write_bytes(data[: int(part * len(data))] + b"\xff\xd9")
        assert "the data end before its last row" in refusal(decode_picture, path)


def segments_of(data: bytes, *markers: int) -> bytes:
    """A JPEG's segments of these kinds."""
    place, found = 2, b""
    while data[place + 1] != 0xDA:
        end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        found += data[place:end] if data[place + 1] in markers else b""
        place = end
    return found


def scan_of(data: bytes) -> bytes:
    """The data of a JPEG's last scan."""
    place = data.rindex(b"\xff\xda")
    return data[place + 2 + struct.unpack_from(">H", data, place + 2)[0] : -2]


def jpeg_by_components(array: np.ndarray, last: int | None = None) -> bytes:
    """A sequential JPEG of (H, W, 3) with a scan for each component, the last cut to some bytes."""
    planes = []
    for each in range(3):
        with io.BytesIO() as file:
            Image.fromarray(array[..., each]).save(file, "JPEG", quality=90)
            planes.append(file.getvalue())
    frame = struct.pack(">BHHB9B", 8, *array.shape[:2], 3, 1, 17, 0, 2, 17, 0, 3, 17, 0)
    data = b"\xff\xd8" + segments_of(planes[0], 0xDB, 0xC4)
    data += b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame
    for each, plane in enumerate(planes):
        data += b"\xff\xda\0\x08\x01" + bytes((each + 1, 0, 0, 63, 0))
        data += scan_of(plane)[: last if each == 2 else None]
    return data + b"\xff\xd9"


def test_a_jpeg_of_several_scans_cut_in_the_last_is_broken(tmp_path: Path) -> None:
    path, array = tmp_path / "in.jpg", pixels(60, 90)
    path.write_bytes(jpeg_by_components(array))
    assert everything(path, stream=False)[0].shape == (60, 90, 3)
    length = len(scan_of(jpeg_by_components(array)))
    for last in (0, length // 2, length - 9):
        path.write_bytes(jpeg_by_components(array, last))
        assert "the data end before its last row" in refusal(decode_picture, path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_jpeg_cut_in_its_last_scan_is_broken(tmp_path: Path, mode: str) -> None:
    array = pixels(60, 90, {"L": 1}.get(mode, len(mode))).squeeze()
    path = saved(tmp_path / "in.jpg", Image.fromarray(array, mode), progressive=True)
    data = path.read_bytes()
    for missing in (9, len(scan_of(data)) // 2, len(scan_of(data))):
        path.write_bytes(data[: -2 - missing] + data[-2:])
        assert "the data end before its last row" in refusal(decode_picture, path)


def test_a_jpeg_cut_between_restarts_is_broken(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.jpg", pixels(200, 130), restart_marker_rows=1)
    data = path.read_bytes()
    place = data.index(b"\xff\xd3")
    for missing in (9, 99, place - data.index(b"\xff\xd2")):
        path.write_bytes(data[: place - missing] + data[place:])
        assert "the data end before its last row" in refusal(decode_picture, path)
    path.write_bytes(data[:place] + b"more" + data[place:])  # too much is not too little
    np.testing.assert_array_equal(decode_picture(path).rgb, pixels_of(data))


def pixels_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", JPEGS)
def test_a_streamed_jpeg_with_missing_rows_is_broken(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyvips")
    path = saved(tmp_path / "in.jpg", pixels(64, 48), **JPEGS[name])
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes(4) + data[-2:])  # too much is not too little
    assert everything(path, 3)[0].shape == (64, 48, 3)
    path.write_bytes(jpeg_of_height(data, 200))
    assert refusal(everything, path).startswith(f"{path} is broken or cut short (")


@pytest.mark.parametrize("damage", [b"\xff", b"\x55"])
def test_what_libtiff_prints_is_damage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: bytes
) -> None:
    """Its lines on standard error are told in ours; what others print there meanwhile stays."""
    path, array = tmp_path / "in.tif", pixels(60, 90, 1)[..., 0] > 128
    Image.fromarray(array).save(path, compression="group4")
    assert everything(path)[0].shape == (60, 90, 3)
    data = bytearray(path.read_bytes())
    with Image.open(path) as image:
        start = image.tag_v2[273][0]
    data[start + 100 : start + 140] = damage * 40
    path.write_bytes(data)
    assert refusal(everything, path).startswith(f"{path} is broken or cut short (Fax")
    assert capfd.readouterr().err == ""
    with pillow.heard(pillow._LIBTIFF):
        os.write(2, b"not of libtiff\n")
    assert capfd.readouterr().err == "not of libtiff\n"


# --------------------------------------------------- kinds that need more, or that no one reads

ALLOWED = (
    "; allowed: grey, RGB, palette and CMYK of 8 bits, grey and RGB of 16 bits or floats; "
    "try a copy of 8 bits per channel"
)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("number", [50001, 34934, 34712, 33003, 50002])
def test_a_compression_that_pillow_lacks_takes_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, streamed: bool
) -> None:
    """WebP, JPEG XR, JPEG 2000 under two numbers, JPEG XL."""
    tags = tiff_tags(10, 6, 8, 8, 8, t259=(SHORT, number))
    path = tiff(tmp_path / "in.tif", tags, bytes(100))
    name = tifffile.COMPRESSION(number).name
    monkeypatch.setattr(tiffs.TiffReader, "missing_codec", name)
    monkeypatch.setattr(tiffs, "has_imagecodecs", lambda: False)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert refusal(opened, path, stream=streamed) == (
        f"{path} has the compression {name}, which takes an extra package; "
        "try pip install 'sincut[big]' or a copy with Deflate compression"
    )


def test_a_codec_that_wants_a_newer_python_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tifffile has one for ZSTD, and it imports what is not there. Pillow reads it."""

    def decode(data: bytes, *_: Any, **__: Any) -> bytes:
        raise ModuleNotFoundError("No module named 'compression'")

    array = pixels()
    path = tmp_path / "in.tif"
    Image.fromarray(array).save(path, compression="zstd")
    monkeypatch.setattr(tiffs, "_installed", lambda: False)
    monkeypatch.setitem(tifffile.TIFF.DECOMPRESSORS._codecs, 50000, decode)
    for stream in (True, False):
        np.testing.assert_array_equal(everything(path, stream=stream)[0], array)
    deep = tiff(tmp_path / "deep.tif", tiff_tags(2, 2, 16, 16, 16, t259=(SHORT, 50000)), bytes(9))
    monkeypatch.setattr(tiffs, "has_imagecodecs", lambda: False)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert refusal(opened, deep).startswith(
        f"{deep} has the compression ZSTD, which takes an extra package"
    )


@pytest.mark.parametrize("factors", [(2, 1), (2, 2)])
def test_raw_subsampled_colour_is_refused_by_name(tmp_path: Path, factors: tuple[int, int]) -> None:
    tags = tiff_tags(4, 4, 8, 8, 8, photometric=6, t530=(SHORT, factors))
    path = tiff(tmp_path / "in.tif", tags, bytes(48))
    for stream in (True, False):
        assert refusal(opened, path, stream=stream) == (
            f"{path} is a TIFF of 3 channels of 8 bits with colour subsampled {factors[0]}×"
            f"{factors[1]} (photometric YCBCR, compression NONE), which is not supported{ALLOWED}"
        )


@pytest.mark.parametrize("bits", [3, 5, 7])
def test_unusual_bits_are_refused_by_name(tmp_path: Path, bits: int) -> None:
    path = tiff(tmp_path / "in.tif", tiff_tags(8, 4, *(bits,) * 3), bytes(12 * bits))
    assert refusal(opened, path) == (
        f"{path} is a TIFF of 3 channels of {bits} bits (photometric RGB, compression NONE), which "
        f"is not supported{ALLOWED}"
    )


@pytest.mark.parametrize("alpha", [2, 0])
@pytest.mark.parametrize("stream", [True, False])
def test_cmyk_with_another_channel(tmp_path: Path, alpha: int, stream: bool) -> None:
    array = pixels(channels=5)
    tags = tiff_tags(10, 6, *(8,) * 5, photometric=5, t338=(SHORT, alpha))
    path = tiff(tmp_path / "in.tif", tags, array.tobytes())
    rows, source = everything(path, 3, stream=stream)
    plain = np.asarray(Image.fromarray(array[..., :4].copy(), "CMYK").convert("RGB"))
    np.testing.assert_array_equal(rows[..., :3], plain)
    assert "CMYK is converted to sRGB" in source.notices
    if alpha:
        np.testing.assert_array_equal(rows[..., 3], array[..., 4])
    else:
        assert "its channels beyond colour and alpha are not kept" in source.notices


@pytest.mark.parametrize("kind", ["iCCP", "zTXt", "iTXt", "tEXt"])
def test_a_png_with_a_large_profile_or_text_is_not_broken(tmp_path: Path, kind: str) -> None:
    long = bytes(3 << 20) if kind == "iCCP" else b"a" * (3 << 20)
    head = {"iCCP": b"p\0\0", "zTXt": b"k\0\0", "iTXt": b"k\0\1\0\0\0", "tEXt": b"k\0"}[kind]
    body = long if kind == "tEXt" else zlib.compress(long)
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], **{kind: head + body})
    picture = decode_picture(path)
    if kind == "iCCP":
        told = "its ICC profile cannot be used and is not kept; sRGB is assumed"
        assert picture.notices == (told,)
    else:
        assert picture.records.texts == ((kind.encode(), head + body),)
        assert decode_picture(written(tmp_path / "out.png", picture)).records == picture.records


def test_a_png_with_too_long_a_text_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow, "_TEXT", 2 << 20)
    text = b"k\0\0" + zlib.compress(bytes(3 << 20))
    path = png(tmp_path / "in.png", 1, 1, 8, 2, [bytes(3)], zTXt=text)
    assert refusal(decode_picture, path) == (
        f"{path} has a profile or texts of more than 2 MiB, which are not read; "
        "try a copy without them"
    )


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.jpg", tmp_path / "link.jpg"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link, Path("/dev/zero")):
        for function in (opened, decode_picture, read_picture, image_size):
            assert refusal(function, path) == (
                f"{path} is a pipe or a device, not a file; give an image file"
            )


@pytest.mark.parametrize("tag", [256, 257, 277, 317])
def test_numbers_that_are_none_are_one_line(
    tmp_path: Path, tag: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Width, height, samples, predictor: several at once, of another type, absurd."""
    for value in ((SHORT, (10, 6)), (2, b"ab\0"), (4, 2**32 - 1)):
        tags = tiff_tags(10, 6, 8, 8, 8, t259=(SHORT, 8)) | {tag: value}
        path = tiff(tmp_path / "in.tif", tags, zlib.compress(bytes(180)))
        for stream in (True, False):
            with contextlib.suppress(SincutError):
                everything(path, stream=stream)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_a_tiff_is_decoded_where_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str | None
) -> None:
    with open(tmp_path / "log", "w") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed if stderr else None)
    path = tmp_path / "in.tif"
    Image.fromarray(pixels()[..., 0] > 128).save(path, compression="group4")
    assert everything(path)[0].shape == (*pixels().shape[:2], 3)


@pytest.mark.parametrize(
    "ending", [".png", ".jpg", ".tif", ".heic", ".jp2", ".vrt", ".nef", ".dng", ".svs", ".dcm"]
)
def test_an_empty_file_is_called_empty(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in{ending}"
    path.touch()
    for function in (opened, image_size):
        assert refusal(function, path) == (
            f"{path} is empty: it has 0 bytes; try another copy of the file"
        )
