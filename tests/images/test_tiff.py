"""Tiled TIFF: tiles, pyramid, directories, and the large form."""

from __future__ import annotations

import itertools
import struct
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sincut.images.metadata import KeptMetadata, tiff_exif
from sincut.images.reading.open import open_source
from sincut.images.reading.source import Picture
from sincut.images.writing import tiff as tiffs
from sincut.images.writing.tiff import half_size, levels, tiles_bytes
from sincut.images.writing.writer import Layout
from tests.images.by_pillow import write_picture
from tests.images.test_pillow import exif_of, geo_of
from tests.images.test_writing import F32, U8, U16, add, everything, opened, picture, read, write


@pytest.fixture
def tifffile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """tifffile as it is without imagecodecs."""
    gone = [name for name in sys.modules if name.partition(".")[0] in ("tifffile", "imagecodecs")]
    for name in gone:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    import tifffile

    yield tifffile
    for name in [name for name in sys.modules if name.partition(".")[0] == "tifffile"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture(params=["classic", "big"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "big":
        monkeypatch.setattr(tiffs, "CLASSIC_LIMIT", 1000)
    return str(request.param)


@pytest.mark.parametrize("compression", ["deflate", "none"])
@pytest.mark.parametrize("dtype", [U8, U16, F32])
def test_tifffile_reads_it_without_more_codecs(
    tmp_path: Path, tifffile: Any, form: str, dtype: np.dtype[Any], compression: str
) -> None:
    for channels, (height, width) in ((3, (1, 1)), (4, (257, 333)), (3, (513, 300))):
        pixels = picture(height, width, channels, dtype)
        path = write(tmp_path / "a.tif", pixels, compression=compression, pyramid=True)
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff == (form == "big")
            expected = pixels
            for page, size in zip(
                file.pages, levels(Layout(*pixels.shape, dtype), True), strict=True
            ):
                assert page.shape == (*size, channels)
                np.testing.assert_array_equal(page.asarray(), expected, strict=True)
                assert page.is_tiled
                assert page.is_reduced == (page.index > 0)
                assert page.photometric == 2
                assert page.extrasamples == ((2,) if channels == 4 else ())
                expected = half_size(expected)


def test_levels_are_halves_down_to_a_tile() -> None:
    assert levels(Layout(1, 1, 3, U8), True) == [(1, 1)]
    assert levels(Layout(256, 256, 3, U8), True) == [(256, 256)]
    assert levels(Layout(257, 3, 3, U8), True) == [(257, 3), (129, 2)]
    assert levels(Layout(2001, 999, 3, U8), True) == [
        (2001, 999),
        (1001, 500),
        (501, 250),
        (251, 125),
    ]
    assert levels(Layout(2001, 999, 3, U8), False) == [(2001, 999)]


@pytest.mark.parametrize("dtype", [U8, U16, F32])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (5, 7), (1, 8)])
def test_halving_takes_means(height: int, width: int, dtype: np.dtype[Any]) -> None:
    pixels = picture(height, width, 4, dtype)
    result = half_size(pixels)
    assert result.shape == ((height + 1) // 2, (width + 1) // 2, 4)
    assert result.dtype == dtype
    for row, column in np.ndindex(result.shape[:2]):
        rows = [min(2 * row + each, height - 1) for each in (0, 1)]
        columns = [min(2 * column + each, width - 1) for each in (0, 1)]
        mean = pixels[np.ix_(rows, columns)].astype(np.float64).mean(axis=(0, 1))
        if dtype != F32:
            mean = np.floor(mean + 0.5)
        np.testing.assert_allclose(result[row, column], mean, rtol=1e-6)


def test_halving_floats_tells_nothing_of_infinities() -> None:
    pixels = np.array([[[np.inf] * 3, [-np.inf] * 3], [[np.nan] * 3, [1.0] * 3]], np.float32)
    assert np.isnan(half_size(pixels)).all()
    assert half_size(np.full((2, 2, 3), 3e38, np.float32)).dtype == F32


def test_libvips_sees_the_levels(tmp_path: Path) -> None:
    vips = pytest.importorskip("pyvips")
    pixels = picture(1000, 700, dtype=U16)
    path = write(tmp_path / "pyramid.tif", pixels, pyramid=True)
    expected = pixels
    for page in range(3):
        image = vips.Image.new_from_file(str(path), page=page)
        np.testing.assert_array_equal(image.numpy(), expected)
        expected = half_size(expected)
    assert image.get("n-pages") == 3


def test_pillow_reads_the_large_form(tmp_path: Path, form: str) -> None:
    pixels = picture(520, 300, 4)
    path = write(tmp_path / "a.tif", pixels, pyramid=True)
    np.testing.assert_array_equal(read(path), pixels)
    with Image.open(path) as image:
        assert image.n_frames == 3
        image.seek(1)
        np.testing.assert_array_equal(np.asarray(image), half_size(pixels))


def test_metadata_in_both_forms(tmp_path: Path, form: str) -> None:
    pixels, carried = picture(300, 260), everything(tmp_path)
    path = write(tmp_path / "a.tif", pixels, carried, pyramid=True)
    other = tmp_path / "b.tif"
    source = Picture(
        pixels, profile=carried.profile, exif=carried.exif, dpi=carried.dpi, geo=carried.geo
    )
    write_picture(other, pixels, source, strip_metadata=False)
    assert path.read_bytes()[:4] == (b"II+\0" if form == "big" else b"II*\0")
    assert exif_of(path) == exif_of(other)
    assert exif_of(path)["make"] == "Make"
    assert geo_of(path) == geo_of(other) != {}
    with open(path, "rb") as ours, open(other, "rb") as theirs:
        assert tiff_exif(ours) == tiff_exif(theirs) is not None
    with Image.open(path) as image:
        assert image.info["icc_profile"] == carried.profile
        assert image.info["dpi"] == (300, 150.5)


def test_directories_lie_at_even_offsets(tmp_path: Path, form: str) -> None:
    for height in (1, 2, 300):
        path = write(tmp_path / "a.tif", picture(height, 300), everything(tmp_path), pyramid=True)
        data = path.read_bytes()
        offset, count, entry, next_ = ("<Q", "<Q", 20, 8) if form == "big" else ("<I", "<H", 12, 4)
        (place,) = struct.unpack_from(offset, data, next_)
        seen = 0
        while place:
            seen += 1
            assert place % 2 == 0
            (entries,) = struct.unpack_from(count, data, place)
            tags = [
                struct.unpack_from("<H", data, place + struct.calcsize(count) + entry * each)[0]
                for each in range(entries)
            ]
            assert tags == sorted(set(tags))
            (place,) = struct.unpack_from(
                offset, data, place + struct.calcsize(count) + entry * entries
            )
        assert seen == 2


def test_the_large_form_is_chosen_by_size(tmp_path: Path) -> None:
    def large(height: int, width: int, dtype: np.dtype[Any], pyramid: bool = False) -> bool:
        encoder = tiffs.Tiff(
            Layout(height, width, 3, dtype), KeptMetadata(), False, deflate=True, pyramid=pyramid
        )
        return encoder.start()[:4] == b"II+\0"

    assert not large(30_000, 40_000, U8)
    assert large(40_000, 40_000, U8)
    assert large(30_000, 40_000, F32)
    assert large(30_000, 40_000, U8, pyramid=True)  # 3.6 GB and a third
    assert tiles_bytes(Layout(256, 257, 3, U8), False) == 2 * 256 * 256 * 3


def test_tiles_beyond_4_gigabytes(
    tmp_path: Path, tifffile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiffs, "CLASSIC_LIMIT", 1000)
    pixels, path, far = picture(300, 260), tmp_path / "a.tif", 5 * 2**30 + 8
    layout = Layout(*pixels.shape, dtype=U8)
    encoder = tiffs.Tiff(
        layout, replace(everything(tmp_path), geo=None), False, deflate=True, pyramid=False
    )
    pieces = encoder.encode(0, pixels).pieces
    sizes = [len(piece) for piece in pieces]
    places = [far + sum(sizes[:index]) for index in range(4)]
    front = encoder._front(places, sizes)
    assert len(front) == len(encoder.start())
    with open(path, "wb") as file:  # mostly a hole
        file.write(front)
        file.seek(far)
        file.write(b"".join(pieces))
    with tifffile.TiffFile(path) as opened_file:
        np.testing.assert_array_equal(opened_file.asarray(), pixels)
        assert opened_file.pages[0].dataoffsets == tuple(places)
    np.testing.assert_array_equal(read(path), pixels)
    assert exif_of(path)["bias"] == pytest.approx(-1 / 3)


def test_a_pyramid_reads_back_no_more_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller levels come from the part file, a tile at a time; then all of it is copied."""
    pixels, sizes = picture(1500, 1300), []
    real = tiffs.PartFile.read

    def reading(self: Any, offset: int, size: int) -> bytes:
        sizes.append(size)
        return real(self, offset, size)

    monkeypatch.setattr(tiffs.PartFile, "read", reading)
    with opened(tmp_path / "a.tif", pixels, pyramid=True, compression="none") as writer:
        add(writer, pixels)
        writer.finish()
    tile, halved = 256 * 256 * 3, 6 * 6 + 3 * 3 + 2 * 2
    assert set(sizes) == {tile}
    assert len(sizes) == halved + halved + 1


@pytest.mark.parametrize("compression", ["deflate", "none"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(900, 700), (256, 100)])
def test_a_pyramid_is_a_cloud_optimized_geotiff(
    tmp_path: Path, form: str, compression: str, channels: int, size: tuple[int, int]
) -> None:
    """What GDAL's validate_cloud_optimized_geotiff and rio cogeo validate ask of offsets."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    pixels, carried = picture(*size, channels), everything(tmp_path)
    path = write(tmp_path / "a.tif", pixels, carried, pyramid=True, compression=compression)
    directories, tiles = [], []
    for level in range(3 if max(size) > 256 else 1):
        options = {"overview_level": level - 1} if level else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, **options) as image:
                assert level or image.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                np.testing.assert_array_equal(image.read().transpose(1, 2, 0), pixels)
                assert level or image.overviews(1) == [2, 4][: 2 * (max(size) > 256)]
                directories.append(int(image.get_tag_item("IFD_OFFSET", "TIFF", bidx=1)))
                across, down = (-(-side // 256) for side in (image.width, image.height))
                for y, x in itertools.product(range(down), range(across)):
                    place = image.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1)
                    tiles.append((-level, y, x, int(place)))
        pixels = half_size(pixels)
    assert directories[0] < 300
    assert directories == sorted(directories)
    assert directories[-1] < min(place for *_, place in tiles)
    places = [place for *_, place in sorted(tiles)]
    assert places == sorted(places)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_windows_of_tiles_are_read_in_any_order(
    tmp_path: Path, tifffile: Any, planar: str, compression: str | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (150, 170, 3), np.uint16)
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "in.tif", stored, photometric="rgb", planarconfig=planar, tile=(32, 48),
        compression=compression, predictor=compression is not None,
    )  # fmt: skip
    with open_source(tmp_path / "in.tif", max_pixels=10**9, max_memory=10**9) as source:
        assert source.by_window
        assert np.array_equal(source.rows(0, 40), pixels[:40])
        for top, bottom, left, right in ((100, 150, 90, 170), (3, 4, 0, 1), (0, 150, 0, 170)):
            window = source.read(slice(top, bottom), slice(left, right))
            assert np.array_equal(window, pixels[top:bottom, left:right])
        assert np.array_equal(source.rows(40, 150), pixels[40:])
    tifffile.imwrite(tmp_path / "strips.tif", pixels, photometric="rgb", compression="deflate")
    with open_source(tmp_path / "strips.tif", max_pixels=10**9, max_memory=10**9) as source:
        assert not source.by_window
