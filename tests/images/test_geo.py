"""GeoTIFF and GDAL: what stays true of the output is kept, the rest is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sincut.images.geo import beside_nodata
from sincut.images.metadata import text_of
from sincut.images.reading.asked import AskedValues
from sincut.images.reading.open import open_source
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.rows import TURNS
from sincut.images.reading.source import Source
from sincut.translation.translate import translate
from tests.images.test_pillow import geo_of, pixels, refusal, written

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


SKEWED = (34264, "d", 16, (3.0, 1.0, 0, 5e5, 0.5, -2.0, 0, 4.6e6, *[0.0] * 7, 1.0), True)
TIES = (33922, "d", 12, (0.0, 0.0, 0.0, 5.0, 50.0, 0.0, 7.0, 3.0, 0.0, 6.0, 40.0, 2.0), True)
PLACED = {"scale": PLACE, "transformation": [SKEWED], "ties": [TIES]}


def keys(raster_type: int) -> list[Any]:
    """Corners of pixels, or their centres, have the places."""
    return [(34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, raster_type), True)]


def on_the_ground(path: Path) -> dict[tuple[int, ...], tuple[float, ...]]:
    """Where the centre of each pixel lies, by its colour; or each tie's place and rest."""
    with tifffile.TiffFile(path) as file:
        array, tags = file.pages[0].asarray(), {tag.code: tag.value for tag in file.pages[0].tags}
    half = 0 if tags[34735][7] == 2 else 0.5
    if 33550 not in tags and 34264 not in tags:
        ties = np.reshape(tags[33922], (-1, 6))
        pixel = [(int(row - half), int(column - half)) for column, row in ties[:, :2]]
        return {
            tuple(array[at].tolist()): tuple(tie[2:]) for at, tie in zip(pixel, ties, strict=True)
        }
    rows, columns = np.indices(array.shape[:2]) + half
    if 33550 in tags:
        tie, scale = tags[33922], tags[33550]
        x, y = tie[3] + (columns - tie[0]) * scale[0], tie[4] - (rows - tie[1]) * scale[1]
    else:
        a, b, _, c, d, e, _, f = tags[34264][:8]
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
    return {tuple(array[at].tolist()): (float(x[at]), float(y[at])) for at in np.ndindex(x.shape)}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("raster_type", [1, 2])
@pytest.mark.parametrize("form", PLACED)
def test_a_turned_pixel_keeps_its_place_on_the_ground(
    tmp_path: Path, form: str, raster_type: int, orientation: int
) -> None:
    array = np.arange(7 * 10 * 3, dtype=np.uint8).reshape(7, 10, 3)
    ties = list(TIES[3])
    ties[0:2] = ties[0] + 0.5 * (raster_type == 1), ties[1] + 0.5 * (raster_type == 1)
    ties[6:8] = ties[6] + 0.5 * (raster_type == 1), ties[7] + 0.5 * (raster_type == 1)
    place = [(*TIES[:3], tuple(ties), True)] if form == "ties" else PLACED[form]
    path, out = tmp_path / "in.tif", tmp_path / "out.tif"
    tags = [(274, "H", 1, orientation, True), (42113, "s", 0, "7", True), *place]
    tifffile.imwrite(
        path, array, photometric="rgb", metadata=None, extratags=[*tags, *keys(raster_type)]
    )
    picture = decode_picture(path)
    assert picture.notices == source_of(path)[1].notices == ()
    written(out, picture)
    before, after = on_the_ground(path), on_the_ground(out)
    assert len(before) == (2 if form == "ties" else 70)
    assert after == before
    assert 42113 in geo_of(out)
    carried = source_of(path)[1].carried.geo
    assert carried is not None
    assert {tag: carried[tag] for tag in carried} == {tag: picture.geo[tag] for tag in picture.geo}


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("raster_type", [1, 2])
@pytest.mark.parametrize("form", ["scale", "transformation"])
def test_a_region_keeps_its_place_on_the_ground(
    tmp_path: Path, tiny_run: Path, form: str, raster_type: int, orientation: int
) -> None:
    array = np.arange(7 * 10 * 3, dtype=np.uint8).reshape(7, 10, 3)
    path, out = tmp_path / "in.tif", tmp_path / "out.tif"
    tags = [(274, "H", 1, orientation, True), *PLACED[form], *keys(raster_type)]
    tifffile.imwrite(path, array, photometric="rgb", metadata=None, extratags=tags)
    (done,) = translate(tiny_run, path, out, region=(2, 1, 4, 5), strength=0)
    assert done.notices == ()
    before, after = on_the_ground(path), on_the_ground(out)
    assert len(after) == 20
    assert after == {colour: before[colour] for colour in after}


@pytest.mark.parametrize("orientation", [3, 6])
def test_rasterio_finds_a_turned_pixel_at_its_place(tmp_path: Path, orientation: int) -> None:
    rasterio = pytest.importorskip("rasterio")
    path, out = tmp_path / "in.tif", tmp_path / "out.tif"
    array = np.arange(7 * 10 * 3, dtype=np.uint8).reshape(7, 10, 3)
    tags = [(274, "H", 1, orientation, True), *PLACE]
    tifffile.imwrite(path, array, photometric="rgb", metadata=None, extratags=tags)
    written(out, decode_picture(path))
    places = []
    for each in (path, out):
        with rasterio.open(each) as file:
            bands = file.read()
            places.append(
                {
                    tuple(bands[:, row, column].tolist()): file.xy(row, column)
                    for row, column in np.ndindex(bands.shape[1:])
                }
            )
    assert places[0] == places[1]


def test_a_place_that_cannot_be_turned_is_left_out(tmp_path: Path) -> None:
    turned = (274, "H", 1, 6, True)
    polynomials = (50844, "d", 92, (1.0,) * 92, True)
    path = raster(tmp_path / "in.tif", pixels(), extratags=[turned, polynomials])
    picture = decode_picture(path)
    told = "its rational polynomials (its orientation turns the pixels, not these) are not kept"
    assert picture.notices == source_of(path)[1].notices == (told,)
    assert set(geo_of(written(tmp_path / "out.tif", picture))) == {34264}
    damaged = (33922, "d", 5, (0.0,) * 5, True)
    tifffile.imwrite(path, pixels(), photometric="rgb", extratags=[turned, PLACE[0], damaged])
    told = "its place on the map (it is damaged, and its orientation turns the pixels) is not kept"
    picture = decode_picture(path)
    assert picture.notices == source_of(path)[1].notices == (told,)
    assert picture.geo is None


def test_a_colour_table_of_greys_is_said(tmp_path: Path) -> None:
    table = [(320, "H", 768, tuple(range(768)), True)]
    path = raster(tmp_path / "in.tif", pixels(channels=1)[..., 0], extratags=table)
    assert decode_picture(path).notices == ("its colour table is not kept",)


def masked(
    path: Path, array: np.ndarray, mask: np.ndarray, orientation: int = 1, **options: Any
) -> Path:
    tags = [(274, "H", 1, orientation, True), *PLACE]
    with tifffile.TiffWriter(path) as file:
        file.write(array, metadata=None, extratags=tags, **options)
        options = {name: options[name] for name in ("tile", "rowsperstrip") if name in options}
        file.write(mask, subfiletype=2, metadata=None, photometric="minisblack", **options)
    with tifffile.TiffFile(path) as file:
        places = [file.pages[1].tags[tag].valueoffset for tag in (254, 262)]
    data = bytearray(path.read_bytes())
    for place in places:  # tifffile refuses to write masks of bytes
        data[place] = 4
    path.write_bytes(data)
    return path


SEEN = pixels(40, 50, 1)[..., 0] > 99
BECOMES_ALPHA = "its transparency mask becomes an alpha channel"
MASKED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "rgb": ("uint8", 3, {"photometric": "rgb"}),
    "strips": ("uint16", 3, {"photometric": "rgb", "rowsperstrip": 7}),
    "tiles": ("float32", 3, {"photometric": "rgb", "tile": (16, 32), "compression": "deflate"}),
    "grey": ("uint8", 1, {"photometric": "minisblack"}),
    "beyond": ("uint8", 5, {"photometric": "rgb", "extrasamples": [0, 0]}),
    "palette": ("uint8", 1, {"photometric": 3, "colormap": np.zeros((3, 256), np.uint16)}),
}


@pytest.mark.parametrize("kind", ["bits", "bytes"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("name", MASKED)
def test_a_transparency_mask_becomes_alpha(
    tmp_path: Path, name: str, orientation: int, kind: str
) -> None:
    dtype, channels, options = MASKED[name]
    array = pixels(40, 50, channels).squeeze().astype(dtype) / (255 if dtype == "float32" else 1)
    mask = SEEN if kind == "bits" else SEEN * np.uint8(255)
    path = masked(tmp_path / "in.tif", array.astype(dtype), mask, orientation, **options)
    rows, source = source_of(path)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    expected = TURNS.get(orientation, lambda a: a)(SEEN) * np.float64(top)
    np.testing.assert_array_equal(rows[..., 3], expected)
    assert rows.dtype == dtype
    assert source.notices[0] == BECOMES_ALPHA
    if dtype == "uint8":
        picture = decode_picture(path)
        np.testing.assert_array_equal(picture.alpha, expected)
        np.testing.assert_array_equal(picture.rgb, rows[..., :3])
        assert picture.notices == source.notices
        for ending in (".tif", ".png", ".webp"):
            alpha = decode_picture(written(tmp_path / f"out{ending}", picture)).alpha
            np.testing.assert_array_equal(alpha, expected)


def test_a_transparency_mask_that_is_not_used_is_said_and_no_image(tmp_path: Path) -> None:
    """Of another size; of another image; beside alpha."""
    path, told = tmp_path / "in.tif", ("its transparency mask is not kept",)
    rgb: dict[str, Any] = {"photometric": "rgb"}
    for array in (pixels(), pixels(40, 50, 4)):
        masked(path, array, SEEN, **rgb)
        assert source_of(path)[1].notices == decode_picture(path).notices == told
    with tifffile.TiffWriter(path) as file:
        file.write(pixels(40, 50), metadata=None, **rgb)
        file.write(pixels(40, 50), metadata=None, **rgb)
        file.write(SEEN, subfiletype=4, photometric=4, metadata=None)
    told = ("it has 2 images; the first is used", *told)
    assert source_of(path)[1].notices == decode_picture(path).notices == told


def test_a_damaged_transparency_mask_is_damage(tmp_path: Path) -> None:
    path = masked(tmp_path / "in.tif", pixels(40, 50), SEEN, photometric="rgb")
    path.write_bytes(path.read_bytes()[:-20])
    for read in (source_of, decode_picture):
        assert "is broken or cut short" in refusal(read, path)


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


@pytest.mark.parametrize(
    ("bands", "copied", "expected"),
    [
        ((4, 2, 1), False, ["nir", "green", "red"]),
        ((4, 2, 1), True, ["nir", "green", "red", "blue"]),
        (None, False, ["red", "green", "blue"]),
        (None, True, ["red", "green", "blue", "nir"]),
    ],
)
def test_words_on_bands_follow_their_bands(
    tmp_path: Path, bands: tuple[int, int, int] | None, copied: bool, expected: list[str]
) -> None:
    words = "".join(
        item("DESCRIPTION", name, sample=str(number), role="description")
        for number, name in enumerate(("red", "green", "blue", "nir"))
    )
    array = np.zeros((8, 9, 4), np.uint8)
    path = raster(tmp_path / "in.tif", array, words, photometric="rgb", extrasamples=(0,))
    asked = AskedValues(bands=bands, copied=copied)
    with open_source(path, max_pixels=10**6, max_memory=10**9, asked=asked) as source:
        geo, told = source.carried.geo, source.notices
    assert geo is not None
    found = re.findall(r'sample="(\d)"[^>]*>(\w+)<', text_of(geo[42112]))
    assert dict(found) == {str(number): name for number, name in enumerate(expected)}
    assert ("its words on its bands are not kept" in told) != copied


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
