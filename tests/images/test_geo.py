"""GeoTIFF and GDAL: what stays true of the output is kept, the rest is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sincut.images.geo import beside_nodata
from sincut.images.reading.open import open_source
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Source
from tests.images.test_pillow import geo_of, pixels, written

PLACE = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True),
]


def raster(path: Path, array: np.ndarray, metadata: str = "", **more: Any) -> Path:
    tags = [*PLACE, *more.pop("extratags", [])]
    if metadata:
        tags.append((42112, "s", 0, f"<GDALMetadata>{metadata}\n</GDALMetadata>\n", True))
    options = {"photometric": "rgb" if array.shape[-1] == 3 else "minisblack", **more}
    tifffile.imwrite(path, array, extratags=tags, metadata=None, **options)
    return path


def source_of(path: Path) -> tuple[np.ndarray, Source]:
    with open_source(path, max_pixels=10**6, max_memory=10**9, stream_above=0) as source:
        return source.rows(0, source.height), source


def item(name: str, value: str, **attributes: str) -> str:
    said = "".join(f' {key}="{each}"' for key, each in attributes.items())
    return f'\n  <Item name="{name}"{said}>{value}</Item>'


UNTRUE = {
    "statistics": item("STATISTICS_MAXIMUM", "9", sample="0") + item("STATISTICS_MEAN", "4"),
    "scale": item("SCALE", "0.01", sample="0", role="scale"),
    "offset": item("OFFSET", "5", sample="0", role="offset"),
    "unit": item("UNITTYPE", "metre", sample="0", role="unittype"),
    "colour interpretation": item("COLORINTERP", "Gray", sample="0", role="colorinterp"),
}
WORDS = item("AREA", "Paris") + item("nir", "a & b", domain="mine")


@pytest.mark.parametrize("name", UNTRUE)
def test_what_is_true_of_the_input_s_values_only_is_left_out(tmp_path: Path, name: str) -> None:
    for words in ("", WORDS):
        path = raster(tmp_path / "in.tif", pixels(), UNTRUE[name] + words)
        picture = decode_picture(path)
        verb = "are" if name == "statistics" else "is"
        assert picture.notices == source_of(path)[1].notices == (f"its {name} {verb} not kept",)
        kept = geo_of(written(tmp_path / "out.tif", picture))
        assert set(kept) == {33550, 33922} | ({42112} if words else set())
        if words:
            assert kept[42112][1].strip("\0") == f"<GDALMetadata>{words}\n</GDALMetadata>\n"


def test_metadata_that_stays_true_is_kept_as_it_is(tmp_path: Path) -> None:
    words = WORDS + item("DESCRIPTION", "red", sample="0", role="description")
    path = raster(tmp_path / "in.tif", pixels(), words)
    picture = decode_picture(path)
    assert picture.notices == ()
    assert geo_of(written(tmp_path / "out.tif", picture)) == geo_of(path)
    path = raster(tmp_path / "in.tif", pixels(channels=1)[..., 0], words)  # it becomes three bands
    assert decode_picture(path).notices == ("its words on its bands are not kept",)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_place_that_is_not_turned_with_the_pixels_is_left_out(
    tmp_path: Path, orientation: int
) -> None:
    tags = [(274, "H", 1, orientation, True), (42113, "s", 0, "7", True)]
    path = raster(tmp_path / "in.tif", pixels(), extratags=tags)
    picture = decode_picture(path)
    told = "its place on the map (its orientation turns the pixels, not the map) is not kept"
    assert picture.notices == source_of(path)[1].notices == (told,)
    assert set(geo_of(written(tmp_path / "out.tif", picture))) == {42113}
    assert set(source_of(path)[1].carried.geo or ()) == {42113}


def test_a_colour_table_of_greys_is_said(tmp_path: Path) -> None:
    table = [(320, "H", 768, tuple(range(768)), True)]
    path = raster(tmp_path / "in.tif", pixels(channels=1)[..., 0], extratags=table)
    assert decode_picture(path).notices == ("its colour table is not kept",)


def test_a_transparency_mask_is_said_and_no_image(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(pixels(), photometric="rgb", metadata=None)
        file.write(np.ones((10, 10), bool), subfiletype=4, photometric=4, metadata=None)
    told = ("its transparency mask is not kept",)
    assert source_of(path)[1].notices == decode_picture(path).notices == told


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("bands", "extra"), [(3, [0, 0]), (4, [0, 0, 0]), (4, [0, 0, 2])], ids=["3", "4", "alpha"]
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deep_bands_that_nobody_names_are_colour(
    tmp_path: Path, planar: str, bands: int, extra: list[int], dtype: str
) -> None:
    array = pixels(channels=bands).astype(dtype) / (1 if dtype == "uint16" else 255)
    array = array.astype(dtype)
    stored = array if planar == "contig" else np.moveaxis(array, 2, 0)
    path = raster(
        tmp_path / "in.tif", stored, photometric="minisblack", extrasamples=extra,
        planarconfig=planar,
    )  # fmt: skip
    rows, source = source_of(path)
    np.testing.assert_array_equal(rows, array if extra[-1] else array[..., :3])
    told = [
        f"it does not say what its {bands} bands are: the first three are taken for red, green "
        "and blue"
    ]
    if bands == 4 and not extra[-1]:
        told.insert(0, "its channels beyond colour and alpha are not kept")
    assert source.notices == tuple(told)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_bands_that_gdal_names_in_another_order(tmp_path: Path, dtype: str) -> None:
    names = ("Blue", "Green", "Red")
    items = [
        item("COLORINTERP", name, sample=str(band), role="colorinterp")
        for band, name in enumerate(names)
    ]
    array = pixels().astype(dtype)
    path = raster(tmp_path / "in.tif", array, "".join(items), photometric="minisblack",
                  extrasamples=[0, 0], planarconfig="contig")  # fmt: skip
    rows, source = source_of(path)
    np.testing.assert_array_equal(rows, array[..., ::-1])
    assert source.notices == ("its colour interpretation is not kept",)


@pytest.mark.parametrize("kind", ["palette", "rgb"])
def test_the_page_behind_a_thumbnail_says_what_is_kept(tmp_path: Path, kind: str) -> None:
    """Its own pixels, tags and EXIF, by tifffile and by Pillow."""
    path, array = tmp_path / "in.tif", pixels(20, 30)
    more = {"colormap": np.zeros((3, 256), np.uint16)} if kind == "palette" else {}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels(4, 6), photometric="rgb", subfiletype=1, software="small")
        file.write(array if kind == "rgb" else array[..., 0], photometric=kind, metadata=None,
                   software="large", extratags=PLACE, compression="deflate", **more)  # fmt: skip
    rows, source = source_of(path)
    assert rows.shape == (20, 30, 3)
    assert set(source.carried.geo or ()) == {33550, 33922}
    tags = Image.Exif()
    tags.load(source.carried.exif or b"")
    assert tags[305] == "large"
    if kind == "rgb":
        np.testing.assert_array_equal(rows, array)
    assert decode_picture(path).geo is not None


@pytest.mark.parametrize(
    ("dtype", "nodata", "moved"),
    [("uint8", 0, 1), ("uint8", 255, 254), ("uint16", 7, 8), ("float32", 0.0, 1e-45)],
)
def test_values_are_moved_beside_nodata(dtype: str, nodata: float, moved: float) -> None:
    array = np.full((2, 3, 3), 9, dtype)
    array[0, 0] = nodata
    array[0, 1, 2] = nodata
    array[1, 1] = nodata
    valid = np.ones((2, 3), bool)
    valid[1, 1] = False
    expected = array.copy()
    expected[0, 0] = expected[0, 1, 2] = moved
    assert beside_nodata(array, valid, nodata) == 2
    np.testing.assert_array_equal(array, expected)
