"""Rasters by windows through GDAL, which rasterio brings: JPEG 2000, VRT, ERDAS Imagine. No torch.

A VRT takes its pixels from other files. Only files on a disk are opened, nothing over a network.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from sincut.errors import SincutError, one_line
from sincut.images.reading.asked import told_of_copies, with_bands
from sincut.images.reading.extras import library
from sincut.images.reading.ome_zarr import check_level
from sincut.images.reading.pages import pages_of
from sincut.images.reading.samples import BANDS, Samples
from sincut.images.reading.source import Header, Source, _Limits, _source, reading
from sincut.images.reading.tiff_header import DROPPED, tiff_header
from sincut.images.records import not_kept

Array = npt.NDArray[Any]

# By how a file begins, the driver of GDAL that may open it.
_DRIVERS = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"EHFA_HEADER_TAG": "HFA",
    b"<VRTDataset": "VRT",
}
_VRT_ENDING = ".vrt"  # which may begin with a declaration of XML
_DTYPES = ("uint8", "uint16", "float32", "float64")
_SMALLEST_CACHE = 64 << 20  # bytes
_THREADS = min(4, os.cpu_count() or 1)  # that decode JPEG 2000
# Measured: bytes a sample that a thread takes beside the cache, and what GDAL takes of its own.
_DECODING, _BASE = 8, 32 << 20

# Of a VRT, whose names GDAL takes in capitals and without: what names a file, how the rest of its
# files may begin, and what names datasets in ways of its own.
_NAMING = ("sourcefilename", "sourcedataset")
_ORIGINS = (*_DRIVERS, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n", b"\xff\xd8\xff")
_CLASSES = ("", "vrtwarpeddataset")
_REFUSED = ("geoloctransformer", "rpctransformer", "pixelfunctioncode")


class RasterRows:
    """Rows and windows of some bands of a raster, among them the mask of all where it has one."""

    any_order, keeps_rows = True, False

    def __init__(self, dataset: Any, bands: Sequence[int], mask_at: int | None, cache: int) -> None:
        """``bands`` are counted from 1; ``mask_at`` is where the mask stands among them, from 0;
        ``cache`` is how many bytes of blocks GDAL keeps."""
        self._dataset, self._bands, self._mask_at = dataset, list(bands), mask_at
        self._lock, self._cache = threading.Lock(), cache
        dtype = np.dtype(dataset.dtypes[bands[0] - 1])
        block = int(np.prod(dataset.block_shapes[0])) * dataset.count * _DECODING
        self.row_bytes = dataset.width * (len(bands) + (mask_at is not None)) * dtype.itemsize
        self.resident_bytes = _BASE + cache + _THREADS * block

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, bands)."""
        return self.window(start, stop, 0, self._dataset.width)

    def window(self, top: int, bottom: int, left: int, right: int) -> Array:
        """(bottom - top, right - left, bands)."""
        place = ((top, bottom), (left, right))
        with self._lock, _gdal(self._cache):
            pixels = self._dataset.read(self._bands, window=place)
            if self._mask_at is not None:
                seen = self._dataset.read_masks(self._bands[0], window=place) > 0
                highest = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
                alpha = seen * pixels.dtype.type(highest)
                pixels = np.insert(pixels, self._mask_at, alpha, axis=0)
        return np.asarray(pixels).transpose(1, 2, 0)

    def close(self) -> None:
        """Close the raster."""
        self._dataset.close()


def is_raster(path: Path, magic: bytes) -> bool:
    """Whether a file, of which ``magic`` are the first 16 bytes, is one that GDAL has to read."""
    return magic.startswith(tuple(_DRIVERS)) or path.suffix.lower() == _VRT_ENDING


def gdal_rows(path: Path, samples: int, limits: _Limits) -> RasterRows | None:
    """All samples of a TIFF's first page as they are stored, where rasterio is installed and can
    decode them: some compressions tifffile does not know alone."""
    try:
        library("rasterio", "rasterio", "geo", path)
        dataset = _opened(path, "GTiff", 0)
    except (SincutError, ValueError):
        return None
    if dataset.count != samples:
        dataset.close()
        return None
    return RasterRows(dataset, dataset.indexes, None, _cache(dataset, limits))


def raster_source(path: Path, limits: _Limits, level: int) -> Source:
    """A level of a raster.

    Raises:
        SincutError: rasterio is absent, the raster is damaged or of a kind that is not supported,
            it takes pixels from what is no file on a disk, or it lacks the level or the bands.
    """
    library("rasterio", "rasterio", "geo", path)
    with reading(path), contextlib.ExitStack() as stack:
        magic = _magic(path) or b""
        driver = next((name for head, name in _DRIVERS.items() if magic.startswith(head)), "VRT")
        if driver == "VRT":
            _check_vrt(path, set())
        dataset = stack.enter_context(_opened(path, driver, level))
        bands, layout, notices = _layout(path, dataset)
        masked = not layout.alpha and _has_mask(dataset)
        if limits.asked.bands:
            layout, told = with_bands(path, layout, dataset.count, limits.asked.bands)
            layout, bands = replace(layout, order=None), list(limits.asked.bands)
            notices = [told] * bool(told)
        if limits.asked.copied:
            others = [number for number in dataset.indexes if number not in bands]
            first = len(bands) + masked
            layout = replace(layout, others=tuple(range(first, first + len(others))))
            bands = [*bands, *others]
            told = told_of_copies([number - 1 for number in others])
            kept = [each for each in notices if each != DROPPED and not limits.asked.bands]
            notices = [*kept, *[told] * bool(told)]
        if masked:
            layout = replace(layout, alpha=True)
            notices.append("its transparency mask becomes an alpha channel")
        _check_samples(path, dataset, bands)
        header, told_of_it = _header(dataset, bands[: BANDS[layout.mode]])
        notices += told_of_it
        if not limits.asked.range:
            notices += _told_of_bits(dataset, bands)
        mask_at = BANDS[layout.mode] if masked else None
        rows = RasterRows(dataset, bands, mask_at, _cache(dataset, limits))
        stack.pop_all()
    size = (dataset.height, dataset.width)
    return _source(path, rows, layout, size, header, notices, [], limits)


@contextlib.contextmanager
def _gdal(cache: int = _SMALLEST_CACHE) -> Iterator[None]:
    """GDAL as it is to work here: within some memory, without a network, Python code or a word on
    rasters without a place. What it raises becomes ValueError."""
    # GDAL's own threads print their warnings, unless this is set before the first of them.
    os.environ.setdefault("CPL_LOG", os.devnull)
    import rasterio

    options = {
        "GDAL_CACHEMAX": cache,
        "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
        "GDAL_HTTP_PROXY": "none://",
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "VRT_NUM_THREADS": "1",
        "GDAL_NUM_THREADS": str(_THREADS),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.Env(**options):
                yield
        except rasterio.errors.RasterioError as error:
            cause = error.__cause__ or error
            raise ValueError(one_line(cause)) from None


def _opened(path: Path, driver: str, level: int) -> Any:
    """A dataset of rasterio's; of smaller levels the places on the map are theirs."""
    import rasterio

    with _gdal():
        dataset = rasterio.open(path.resolve(), driver=driver)
        if level:
            count = 1 + len(dataset.overviews(1))
            dataset.close()
            check_level(path, level, count)
            dataset = rasterio.open(path.resolve(), driver=driver, overview_level=level - 1)
        return dataset


def _layout(path: Path, dataset: Any) -> tuple[list[int], Samples, list[str]]:
    """Which bands are colours, and alpha, without ``--bands``; notices."""
    names = [each.name for each in dataset.colorinterp]
    if names[0] == "palette":
        raise SincutError(
            f"{path} has a colour table, which is not read of such files; try a copy made with "
            "gdal_translate -expand rgb"
        )
    alpha = [names.index("alpha") + 1] if "alpha" in names else []
    others = [number for number in dataset.indexes if number not in alpha]
    notices = []
    if {"red", "green", "blue"} <= set(names):
        bands = [names.index(colour) + 1 for colour in ("red", "green", "blue")]
    elif len(others) in (3, 4):
        bands = others[:3]
        notices.append(
            f"it does not say what its {len(others)} bands are: the first three are taken for red, "
            "green and blue"
        )
    else:
        bands = others[:1]
    if len(others) > len(bands):
        notices.append(DROPPED)
    if dataset.dtypes[0] == "float64":
        notices.append("its values of 64 bits are read as 32 bits")
    dtype = np.dtype(dataset.dtypes[0] if dataset.dtypes[0] in _DTYPES[:3] else "float32")
    layout = Samples("RGB" if len(bands) == 3 else "L", bool(alpha), dtype)
    return bands + alpha, layout, notices


def _check_samples(path: Path, dataset: Any, bands: Sequence[int]) -> None:
    kinds = list(dict.fromkeys(dataset.dtypes[number - 1] for number in bands))
    if len(kinds) > 1 or kinds[0] not in _DTYPES:
        raise SincutError(
            f"{path} has samples of the kind {' and '.join(kinds)}, which is not supported; "
            f"allowed: {', '.join(_DTYPES)}; try a copy of 16 bits per channel"
        )


def _has_mask(dataset: Any) -> bool:
    """Whether one mask is that of all bands; nodata makes none, nor does alpha among the bands."""
    flags = [{flag.name for flag in each} for each in dataset.mask_flag_enums]
    return all(each == {"per_dataset"} for each in flags)


def _told_of_bits(dataset: Any, bands: Sequence[int]) -> list[str]:
    """That a file says of its samples how few bits they have."""
    bits = dataset.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", "")
    if not bits.isdigit() or dataset.dtypes[bands[0] - 1] != "uint16":
        return []
    return [f"its samples have {bits} bits of 16; try --range 0,{2 ** int(bits) - 1}"]


def _cache(dataset: Any, limits: _Limits) -> int:
    """Bytes of blocks that GDAL keeps: those of a row, so that each is decoded once, as far as a
    quarter of the memory allows."""
    sizes = [np.dtype(each).itemsize for each in dataset.dtypes]
    row = dataset.width * dataset.block_shapes[0][0] * sum(sizes)
    return int(max(_SMALLEST_CACHE, min(2 * row, limits.max_memory // 4)))


# -------------------------------------------------------------------------- beside the pixels


def _header(dataset: Any, bands: Sequence[int]) -> tuple[Header, list[str]]:
    """What a raster says beside its pixels, ``bands`` being its colours, by way of the directory
    of a GeoTIFF that GDAL writes of one pixel; and what of it is lost."""
    with _gdal():
        data, lost = _geotiff(dataset, bands)
    file = io.BytesIO(data)
    header = tiff_header(file, pages_of(file), grey=False, beyond=False)
    return header, [*header.notices, *not_kept(lost)]


def _geotiff(dataset: Any, bands: Sequence[int]) -> tuple[bytes, list[str]]:
    import rasterio

    nodata, lost = _nodata(dataset, bands)
    points, system = dataset.gcps
    place: dict[str, Any] = {"gcps": points, "crs": system} if points else {"crs": dataset.crs}
    if not points and not dataset.transform.is_identity:
        place["transform"] = dataset.transform
    if dataset.rpcs is not None:
        place["rpcs"] = dataset.rpcs
    size = {"width": 1, "height": 1, "count": len(bands), "dtype": dataset.dtypes[bands[0] - 1]}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", nodata=nodata, **size, **place) as small:
            small.update_tags(**dataset.tags())
            for number, band in enumerate(bands, 1):
                small.update_tags(number, **dataset.tags(band))
                small.set_band_description(number, dataset.descriptions[band - 1] or "")
                small.set_band_unit(number, dataset.units[band - 1] or "")
            small.scales = [dataset.scales[band - 1] for band in bands]
            small.offsets = [dataset.offsets[band - 1] for band in bands]
        return memory.read(), lost


def _nodata(dataset: Any, bands: Sequence[int]) -> tuple[float | None, list[str]]:
    """The value of all bands, and the name of what is not kept."""
    values = [dataset.nodatavals[band - 1] for band in bands]
    if len({str(value) for value in values}) > 1:
        return None, ["value of nodata (it is not the same in all bands)"]
    return values[0], []


# ------------------------------------------------------------------------------------- VRT


def _check_vrt(path: Path, seen: set[Path]) -> None:
    """Refuse a VRT that takes pixels from anything but files on a disk.

    Raises:
        SincutError: it does, or in a way that is not looked through.
        ValueError: it is no VRT.
    """
    seen.add(path.resolve())
    text = path.read_bytes()
    if b"<!DOCTYPE" in text.upper():
        raise ValueError("it has a document type")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(one_line(error)) from None
    if root.tag.lower() != "vrtdataset":
        raise ValueError("it is no VRT")
    for element in root.iter():
        name, said = element.tag.lower(), {k.lower(): v for k, v in element.attrib.items()}
        kind = said.get("subclass", "") if name == "vrtdataset" else ""
        if kind.lower() not in _CLASSES or name in _REFUSED:
            raise SincutError(
                f"{path} is a VRT with {kind or element.tag}, which is not supported; try a copy "
                "made with gdal_translate"
            )
        for origin in _origins(name, element.text, said):
            _check_origin(path, origin, said, seen)


def _origins(name: str, text: str | None, said: Mapping[str, str]) -> list[str]:
    """The names of files in an element, or in attributes, which GDAL takes for elements."""
    found = [said[each] for each in _NAMING if each in said]
    return [*found, text or ""] if name in _NAMING else found


def _check_origin(path: Path, origin: str, said: Mapping[str, str], seen: set[Path]) -> None:
    relative = said.get("relativetovrt", "0") == "1"
    there = path.resolve().parent / origin if relative else Path(origin)
    # Two letters and a colon: how GDAL names what is no file, not a drive.
    magic = None if re.match(r"\w{2,}:", origin) else _magic(there)
    if magic is None:
        raise SincutError(
            f"{path} takes pixels from {one_line(origin)[:200]}, which is no file here; allowed "
            "are files on a disk, nothing over a network; try a copy made with gdal_translate"
        )
    nested = magic.startswith(b"<VRTDataset") or there.suffix.lower() == _VRT_ENDING
    if not (nested or magic.startswith(_ORIGINS)):
        raise SincutError(
            f"{path} takes pixels from {there}, which is of no kind that is allowed; allowed: "
            "TIFF, JPEG 2000, ERDAS Imagine, PNG, JPEG, VRT; try a copy made with gdal_translate"
        )
    if nested and there.resolve() not in seen:
        _check_vrt(there, seen)


def _magic(path: Path) -> bytes | None:
    """How a file begins, or nothing where there is none."""
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return None
