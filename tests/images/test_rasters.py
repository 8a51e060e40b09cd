"""JPEG 2000, VRT and ERDAS Imagine, through GDAL."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sincut.errors import SincutError
from sincut.images.reading import rasters
from sincut.images.reading import tiff as tiffs
from sincut.images.reading.asked import AskedValues
from sincut.images.reading.open import image_size, open_source
from sincut.images.reading.source import Source
from sincut.translation.translate import translate

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")

PLACE = {"crs": "EPSG:32631", "transform": (10.0, 0.0, 5e5, 0.0, -10.0, 4.6e6)}
LOSSLESS = {"REVERSIBLE": "YES", "QUALITY": "100"}


def pixels(bands: int = 3, dtype: str = "uint8", size: tuple[int, int] = (90, 120)) -> np.ndarray:
    values = np.random.default_rng(bands).integers(1, 200, (bands, *size))
    return (values / 256 if dtype.startswith("float") else values).astype(dtype)


@contextmanager
def dataset(path: Path, mode: str = "r", **options: Any) -> Iterator[Any]:
    """A dataset of rasterio's, without its warning of rasters that have no place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        if "transform" in options:
            options["transform"] = rasterio.Affine(*options["transform"])
        with rasterio.open(path, mode, **options) as opened:
            yield opened


def raster(path: Path, array: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> Path:
    drivers = {".jp2": "JP2OpenJPEG", ".img": "HFA", ".tif": "GTiff", ".vrt": "VRT"}
    driver = drivers[path.suffix]
    if driver == "JP2OpenJPEG":
        options = LOSSLESS | options
    count, height, width = array.shape
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
    interpreted = options.pop("colorinterp", None)
    if driver != "JP2OpenJPEG":
        with dataset(path, "w", driver=driver, **shape, **options) as made:
            if interpreted:
                made.colorinterp = [rasterio.enums.ColorInterp[name] for name in interpreted]
            made.write(array)
            if mask is not None:
                made.write_mask(mask)
        return path
    with dataset(path, "w", driver=driver, **shape, **options) as made:
        made.write(array)
    return path


def vrt(path: Path, *sources: Path, **options: Any) -> Path:
    """What gdalbuildvrt writes: the bands of the sources behind each other."""
    with dataset(sources[0]) as first:
        size, dtype = (first.width, first.height), first.dtypes[0]
        place = first.crs.to_wkt(), ",".join(map(str, first.transform.to_gdal()))
    kind = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}[dtype]
    bands = ""
    for source in sources:
        name = options.get("name") or source.name
        with dataset(source) as one:
            for band in one.indexes:
                number = bands.count("<VRTRasterBand") + 1
                bands += (
                    f'<VRTRasterBand dataType="{kind}" band="{number}">{options.get("said", "")}'
                    f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
                    f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
                )
    path.write_text(
        f'<VRTDataset rasterXSize="{size[0]}" rasterYSize="{size[1]}"><SRS>{place[0]}</SRS>'
        f"<GeoTransform>{place[1]}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def opened(path: Path, **options: Any) -> Source:
    return open_source(path, max_pixels=10**9, max_memory=10**9, **options)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(SincutError) as caught, opened(path, **options) as source:
        source.rows(0, source.height)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows_of(path: Path, **options: Any) -> tuple[np.ndarray, Source]:
    with opened(path, **options) as source:
        return source.rows(0, source.height).transpose(2, 0, 1), source


def made(kind: str, folder: Path, array: np.ndarray, **options: Any) -> Path:
    """A raster of a kind, a VRT of a GeoTIFF."""
    if kind != "vrt":
        return raster(folder / f"in.{kind}", array, **PLACE, **options)
    return vrt(folder / "in.vrt", raster(folder / "source.tif", array, **PLACE, **options))


# -------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["jp2", "vrt", "img"])
def test_a_raster_is_read_by_windows_as_gdal_reads_it(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    if kind == "jp2" and dtype == "float32":
        dtype = "uint16"
    path = made(kind, tmp_path, pixels(3, dtype))
    with dataset(path) as other:
        expected = other.read()
    assert np.array_equal(expected, pixels(3, dtype))
    got, source = rows_of(path)
    assert (source.by_window, source.dtype, source.channels) == (True, np.dtype(dtype), 3)
    assert np.array_equal(got, expected)
    with opened(path) as source:
        window = source.read(slice(20, 71), slice(33, 99))
    assert np.array_equal(window.transpose(2, 0, 1), expected[:, 20:71, 33:99])
    assert image_size(path) == (120, 90)


def test_a_level_of_jpeg_2000(tmp_path: Path) -> None:
    path = made("jp2", tmp_path, pixels(3, size=(600, 800)))
    with dataset(path, overview_level=0) as other:
        expected, place = other.read(), other.transform
    got, source = rows_of(path, level=1)
    assert np.array_equal(got, expected)
    assert source.carried.geo is not None
    assert tuple(source.carried.geo[33550][:2]) == (20, 20) == (place.a, -place.e)
    assert refusal(path, level=9).startswith(f"{path} has ")
    assert "got level 9; allowed: 0 to" in refusal(path, level=9)


def test_bands_are_chosen_and_the_others_said(tmp_path: Path) -> None:
    array = pixels(5, "uint16")
    path = made("jp2", tmp_path, array)
    got, source = rows_of(path, asked=AskedValues(bands=(4, 2, 1)))
    assert np.array_equal(got, array[[3, 1, 0]])
    assert source.notices == ("its bands 3, 5 are not kept",)
    assert refusal(path, asked=AskedValues(bands=(6, 2, 1))) == (
        f"{path} has 5 bands, got bands 6,2,1; try --bands 1,2,3"
    )
    got, source = rows_of(path)
    assert np.array_equal(got, array[[0, 0, 0]])
    assert source.notices == ("its channels beyond colour and alpha are not kept",)


def test_colours_in_another_order_and_alpha(tmp_path: Path) -> None:
    array = pixels(4)
    path = made("vrt", tmp_path, array)
    text = path.read_text()
    for number, name in enumerate(("Alpha", "Blue", "Green", "Red"), 1):
        band = f'band="{number}">'
        text = text.replace(band, f"{band}<ColorInterp>{name}</ColorInterp>")
    path.write_text(text)
    got, source = rows_of(path)
    assert np.array_equal(got, array[[3, 2, 1, 0]])
    assert (source.channels, source.notices) == (4, ())


@pytest.mark.parametrize("kind", ["img", "vrt"])
@pytest.mark.parametrize("bands", [None, (2, 1, 1)])
def test_a_mask_becomes_alpha(
    tmp_path: Path, kind: str, bands: tuple[int, int, int] | None
) -> None:
    mask = np.random.default_rng(1).random((90, 120)) > 0.5
    path = made(kind, tmp_path, pixels(2 if bands else 3, "uint16"), mask=mask)
    if kind == "vrt":
        text = path.read_text().replace(
            "</VRTDataset>",
            '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename '
            'relativeToVRT="1">source.tif</SourceFilename><SourceBand>mask,1</SourceBand>'
            "</SimpleSource></VRTRasterBand></MaskBand></VRTDataset>",
        )
        path.write_text(text)
    got, source = rows_of(path, asked=AskedValues(bands=bands))
    assert np.array_equal(got[3], np.where(mask, 65535, 0))
    assert source.notices[-1] == "its transparency mask becomes an alpha channel"


def test_few_bits_are_said(tmp_path: Path) -> None:
    path = made("jp2", tmp_path, pixels(1, "uint16"), NBITS=12)
    assert rows_of(path)[1].notices == ("its samples have 12 bits of 16; try --range 0,4095",)
    assert rows_of(path, asked=AskedValues((0, 4095)))[1].notices == (
        "its values 0 to 4095 become black to white",
    )


def test_what_is_not_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made("img", tmp_path, pixels(3).astype(np.int16))
    assert refusal(path) == (
        f"{path} has samples of the kind int16, which is not supported; allowed: uint8, uint16, "
        "float32, float64; try a copy of 16 bits per channel"
    )
    palette = made("vrt", tmp_path, pixels(1))
    text = palette.read_text().replace(
        'band="1">',
        'band="1"><ColorInterp>Palette</ColorInterp><ColorTable><Entry c1="1" c2="2" c3="3" '
        'c4="255"/></ColorTable>',
    )
    palette.write_text(text)
    assert refusal(palette) == (
        f"{palette} has a colour table, which is not read of such files; try a copy made with "
        "gdal_translate -expand rgb"
    )
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert refusal(path) == (
        f"{path} takes the package rasterio, which is not installed; try pip install 'sincut[geo]'"
    )


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_raster_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = made("jp2", tmp_path, pixels())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert refusal(path).startswith(f"{path} is broken or cut short (")


def test_memory_is_bounded_and_said(tmp_path: Path) -> None:
    path = raster(tmp_path / "in.img", pixels(3, size=(64, 3000)))
    with opened(path) as source:
        assert 96 << 20 < source.resident_bytes < 200 << 20


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
def test_gdal_decodes_what_tifffile_lacks_a_codec_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, options: dict[str, Any]
) -> None:
    array = pixels(5, dtype, (200, 150))
    path = raster(tmp_path / "in.tif", array, compress="lzw", interleave="band", **PLACE, **options)
    asked = AskedValues(bands=(3, 5, 1), copied=True)
    expected = array[[2, 4, 0, 1, 3]]
    monkeypatch.setattr(tiffs.TiffReader, "missing_codec", "LZW")
    got, source = rows_of(path, asked=asked)
    assert np.array_equal(got, expected)
    assert source.carried.geo is not None
    with opened(path, asked=asked) as source:
        window = source.read(slice(20, 171), slice(33, 99))
    assert np.array_equal(window.transpose(2, 0, 1), expected[:, 20:171, 33:99])
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setattr(tiffs, "has_imagecodecs", lambda: False)
    for asking in (AskedValues(bands=(3, 5, 1)), AskedValues(copied=True)):
        assert refusal(path, asked=asking) == (
            f"{path} has the compression LZW, which takes an extra package; try pip install "
            "'sincut[big]' or a copy with Deflate compression"
        )


def test_a_turned_tiff_is_turned_when_gdal_decodes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, array = tmp_path / "in.tif", pixels(3).transpose(1, 2, 0)
    Image.fromarray(array).save(path, compression="tiff_lzw", tiffinfo={274: 6})
    monkeypatch.setattr(tiffs.TiffReader, "missing_codec", "LZW")
    with opened(path) as source:
        assert source.resident_bytes > 64 << 20  # GDAL's cache
        assert np.array_equal(source.rows(0, source.height), np.rot90(array, -1))
    raster(path, pixels(3), compress="lzw")
    path.write_bytes(path.read_bytes()[:-1000])
    assert refusal(path).startswith(f"{path} is broken or cut short (")


# ---------------------------------------------------------------- what is carried


@pytest.mark.parametrize("kind", ["jp2", "vrt", "img", "tif"])
@pytest.mark.parametrize("region", [None, (7, 5, 60, 40)])
def test_a_place_is_kept_as_gdal_reads_it(
    kind: str, region: tuple[int, int, int, int] | None, tiny_run: Path, tmp_path: Path
) -> None:
    array = pixels(3, "uint16")
    array[:, 10:20, 30:50] = 0
    path = made(kind, tmp_path, array, **({} if kind == "jp2" else {"nodata": 0}))
    if kind == "vrt":
        text = path.read_text()
        path.write_text(
            text.replace("<SimpleSource>", "<NoDataValue>0</NoDataValue><SimpleSource>")
        )
    target = tmp_path / "out.tif"
    translate(tiny_run, path, target, strength=0, **({"region": region} if region else {}))
    left, top, width, height = region or (0, 0, 120, 90)
    with dataset(path) as source, dataset(target) as result:
        assert result.crs == source.crs
        assert result.nodatavals == source.nodatavals
        assert result.transform == source.transform @ rasterio.Affine.translation(left, top)
        assert region or result.bounds == source.bounds
        part = rasterio.windows.Window(left, top, width, height)
        assert np.array_equal(result.read(), source.read(window=part))


def test_pixels_that_are_points_and_points_on_the_ground(tmp_path: Path, tiny_run: Path) -> None:
    array, target = pixels(), tmp_path / "out.tif"
    source = raster(tmp_path / "source.tif", array, **PLACE)
    with dataset(source, "r+") as one:
        one.update_tags(AREA_OR_POINT="Point", OPERATOR="someone")
    path = vrt(tmp_path / "in.vrt", source)
    metadata = '<Metadata><MDI key="AREA_OR_POINT">Point</MDI><MDI key="BY">us</MDI></Metadata>'
    path.write_text(path.read_text().replace("<SRS>", f"{metadata}<SRS>"))
    translate(tiny_run, path, target, strength=0)
    with dataset(path) as before, dataset(target) as after:
        assert after.transform == before.transform
        assert (after.tags()["AREA_OR_POINT"], after.tags()["BY"]) == ("Point", "us")
    points = [
        rasterio.control.GroundControlPoint(row, column, 5e5 + column**1.01, 4e6 - row)
        for row, column in ((0, 0), (0, 119), (89, 0), (89, 119))
    ]
    tied = raster(tmp_path / "tied.img", array)
    with dataset(tied, "r+") as one:
        one.gcps = (points, rasterio.crs.CRS.from_epsg(32631))
    translate(tiny_run, tied, target, strength=0, force=True)
    with dataset(tied) as before, dataset(target) as after:
        assert [vars(each) | {"id": ""} for each in after.gcps[0]] == [
            vars(each) | {"id": ""} for each in before.gcps[0]
        ]
        assert after.gcps[1] == before.gcps[1]


def test_bands_with_other_nodata_values_are_said(tmp_path: Path) -> None:
    path = made("vrt", tmp_path, pixels())
    text = path.read_text()
    for value in (1, 2, 3):
        band = f'band="{value}">'
        text = text.replace(band, f"{band}<NoDataValue>{value}</NoDataValue>")
    path.write_text(text)
    _, source = rows_of(path)
    assert source.notices[-1] == (
        "its value of nodata (it is not the same in all bands) is not kept"
    )
    assert source.nodata is None


# ------------------------------------------------------------------------------ safety


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/{url}/a.tif",
        "{url}/a.tif",
        "WMS:{url}",
        "/vsigzip//vsicurl/{url}/a.gz",
        "&lt;GDAL_WMS&gt;{url}&lt;/GDAL_WMS&gt;",
        "absent.tif",
        "/dev/zero",
    ],
)
def test_a_vrt_of_what_is_no_file_is_refused(
    tmp_path: Path, name: str, server: tuple[str, list[str]]
) -> None:
    url, asked = server
    name = name.format(url=url)
    path = vrt(tmp_path / "in.vrt", raster(tmp_path / "source.tif", pixels(), **PLACE), name=name)
    said = name.replace("&lt;", "<").replace("&gt;", ">")
    expected = (
        f"{path} takes pixels from {said}, which is no file here; allowed are files on a disk, "
        "nothing over a network; try a copy made with gdal_translate"
    )
    assert refusal(path) == expected
    other = vrt(tmp_path / "outer.vrt", tmp_path / "source.tif", name="in.vrt")
    assert refusal(other) == expected
    # GDAL takes names of elements in any case, and attributes for elements.
    text, plain = path.read_text(), "SourceFilename"
    other.write_text(text.replace(plain, "sourceFILEname"))
    assert refusal(other) == expected.replace("in.vrt", "outer.vrt")
    attribute = f'><SimpleSource SourceFilename="{name}"><O>'
    text = text.replace(f'><SimpleSource><{plain} relativeToVRT="1">{name}', attribute)
    other.write_text(text.replace(f"</{plain}>", "</O>"))
    assert refusal(other) == expected.replace("in.vrt", "outer.vrt")
    assert not asked


def test_nothing_goes_over_a_network_even_where_a_name_is_not_seen(
    tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    url, asked = server
    path = tmp_path / "in.vrt"
    source = raster(tmp_path / "source.tif", pixels(), **PLACE)
    for name in (f"/vsicurl/{url}/a.tif", f"/vsigzip//vsicurl/{url}/a.gz"):
        vrt(path, source, name=name)
        with (
            pytest.raises(ValueError, match=r"IReadBlock failed|exist"),
            rasters._gdal(),
        ):
            rasterio.open(path).read()
    assert not asked


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<VRTDataset", "is broken or cut short ("),
        ("<!DOCTYPE x><VRTDataset/>", "is broken or cut short (it has a document type)"),
        ("<a/>", "is broken or cut short (it is no VRT)"),
        (
            '<VRTDataset subClass="VRTProcessedDataset"/>',
            "is a VRT with VRTProcessedDataset, which is not supported; try a copy made with "
            "gdal_translate",
        ),
        (
            "<VRTDataset><GeoLocTransformer/></VRTDataset>",
            "is a VRT with GeoLocTransformer, which is not supported; try a copy made with "
            "gdal_translate",
        ),
    ],
)
def test_a_vrt_of_another_kind_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "in.vrt").write_text(text)
    assert refusal(tmp_path / "in.vrt").startswith(f"{tmp_path / 'in.vrt'} {told}")


def test_a_vrt_of_any_file_s_bytes_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("not an image at all, but long enough")
    path = vrt(tmp_path / "in.vrt", raster(tmp_path / "source.tif", pixels(), **PLACE))
    path.write_text(path.read_text().replace("source.tif", "secret.txt"))
    assert refusal(path) == (
        f"{path} takes pixels from {secret}, which is of no kind that is allowed; allowed: TIFF, "
        "JPEG 2000, ERDAS Imagine, PNG, JPEG, VRT; try a copy made with gdal_translate"
    )
    path.write_text(path.read_text().replace("secret.txt", "in.vrt"))
    assert "is broken or cut short" in refusal(path)
