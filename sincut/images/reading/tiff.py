"""TIFF and BigTIFF by rows: each tile or strip is decoded once, some at a time. No torch.

tifffile finds the segments and decodes them; what is not compressed is read row by row, however
long its strips are. Rows come as they are stored: sources.py turns and interprets them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import COMPRESSION_INFO

from sincut.errors import SincutError, one_line
from sincut.images.geo import colour_order
from sincut.images.metadata import DAMAGE, EXTRA_SAMPLES, damage_told, orientation_of
from sincut.images.profiles import has_imagecodecs
from sincut.images.reading.asked import no_bands, with_bands, with_others
from sincut.images.reading.pages import Pages, pages_of
from sincut.images.reading.pillow import _decoded_source, fits, opened_picture
from sincut.images.reading.rasters import gdal_rows
from sincut.images.reading.rows import Masked, PlainRows, Rows, check_end, read_bytes
from sincut.images.reading.samples import BANDS, Samples
from sincut.images.reading.source import (
    Source,
    _Limits,
    _source,
    _too_much,
    check_size,
    reading,
)
from sincut.images.reading.tiff_header import DROPPED, tiff_header
from sincut.images.vips import VipsRows, libvips

_LARGEST_PIECE = 64_000_000  # bytes of a strip that tifffile decodes as one
_UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, RuntimeError)


def _tiff_source(path: Path, limits: _Limits) -> Source | None:
    """A TIFF by rows, or None where Pillow has to say what is wrong with it."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        try:
            with damage_told() as early:
                pages = pages_of(file)
                tiff = TiffReader(path, file, pages)
        except _UNREADABLE:
            return None
        size = (tiff.height, tiff.width)
        if min(size) < 1:
            return None
        if not tiff.tiled:  # of one in tiles the part that is asked for counts
            check_size(path, tiff.width, tiff.height, limits.max_pixels)
        with reading(path):
            tiff.check_counts()
            missing = tiff.missing_codec
        by_gdal = None
        if missing and tiff.supported and tiff.known_to_gdal:
            by_gdal = gdal_rows(path, tiff.samples, limits)
        if by_gdal is not None:
            stack.callback(by_gdal.close)
        elif not tiff.supported or (missing and not tiff.deep):
            return _whole(path, tiff, missing, limits)
        elif missing:
            raise _no_codec(path, missing)
        with reading(path), damage_told() as damage:
            grey = tiff.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
            layout, more = _tiff_layout(tiff)
            beyond = 0 in tiff.beyond
            if bands := limits.asked.bands:
                layout, told = with_bands(path, layout, tiff.samples, bands)
                more, beyond = [told] * bool(told), False
                lost_mask = pages.lost_mask or pages.mask is not None
                pages = replace(pages, mask=None, lost_mask=lost_mask)
            if limits.asked.copied:
                layout, told = with_others(layout, tiff.samples)
                kept = [each for each in more if each != DROPPED and not bands]
                more, beyond = [*kept, *[told] * bool(told)], False
            places = layout.places(masked=pages.mask is not None)
            header = tiff_header(file, pages, grey=grey, beyond=beyond, places=places)
            rows: Rows
            if by_gdal is not None:
                rows = by_gdal
                tiff.close()
            else:
                tiff.check()
                rows = _tiff_rows(path, tiff, limits)
            if pages.mask is not None:
                mask = _mask_of(path, stack.enter_context(open(path, "rb")), pages)
                count, others = BANDS[layout.mode], layout.others
                rows = Masked(rows, mask, count, others)
                behind = tuple(range(count + 1, count + 1 + len(others)))
                layout = replace(layout, alpha=True, others=behind)
        stack.pop_all()
    damage = list(dict.fromkeys((*early, *damage)))
    return _source(path, rows, layout, size, header, [*header.notices, *more], damage, limits)


def _whole(path: Path, tiff: TiffReader, missing: str | None, limits: _Limits) -> Source:
    """A TIFF decoded by Pillow, for lack of ``missing`` or because tifffile does not know its kind.

    Raises:
        SincutError: Pillow does not know it either, with the true reason.
    """
    asked = limits.asked.bands or limits.asked.copied
    if missing and (tiff.compression_number not in COMPRESSION_INFO or (tiff.supported and asked)):
        raise _no_codec(path, missing)
    if limits.asked.bands:
        raise no_bands(path, f"a TIFF of {tiff.kind}")
    if limits.asked.copied:
        raise SincutError(
            f"{path} is a TIFF of {tiff.kind}, whose other bands cannot be copied; try it without "
            "--other-bands copy"
        )
    if tiff.subsampled:
        raise _no_kind(path, tiff)
    try:
        with opened_picture(path) as opened:
            if missing and tiff.supported and not fits(opened, limits):
                raise _no_codec(path, missing)
            return _decoded_source(path, limits, opened)
    except SincutError as error:
        if missing and _NOT_CONFIGURED in str(error):  # Pillow's libtiff has not all codecs
            raise _no_codec(path, missing) from None
        if _NO_IMAGE in str(error):  # it is one, but not of Pillow's
            raise _no_kind(path, tiff) from None
        raise


def _no_kind(path: Path, tiff: TiffReader) -> SincutError:
    return SincutError(
        f"{path} is a TIFF of {tiff.kind}, which is not supported; allowed: grey, RGB, palette and "
        "CMYK of 8 bits, grey and RGB of 16 bits or floats; try a copy of 8 bits per channel"
    )


def _tiff_rows(path: Path, tiff: TiffReader, limits: _Limits) -> Rows:
    """Rows of a TIFF, from libvips where tifffile would have to decode too much at once: a page
    that is compressed in one piece, which libvips decodes line by line."""
    if tiff.piece_bytes <= _LARGEST_PIECE:
        return TiledRows(tiff) if tiff.tiled else tiff
    vips = libvips()
    if vips and tiff.read_by_lines:
        rows = VipsRows(vips, path)
        tiff.close()
        return rows
    if tiff.resident_bytes > limits.max_memory:
        others = "pip install 'sincut[big]', " if tiff.read_by_lines else ""
        others += "a copy in tiles, "
        size, needed = (tiff.height, tiff.width), tiff.resident_bytes
        raise _too_much(path, size, needed, limits.max_memory, others, limits.held)
    return TiledRows(tiff) if tiff.tiled else tiff


def _mask_of(path: Path, file: IO[bytes], pages: Pages) -> TiffReader:
    """The page that is the image's transparency. ``file`` is for it alone."""
    mask = TiffReader(path, file, pages, pages.mask)
    mask.check_counts()
    mask.check()
    return mask


def _tiff_layout(tiff: TiffReader) -> tuple[Samples, list[str]]:
    mode = {RGB: "RGB", YCBCR: "RGB", CMYK: "CMYK"}.get(tiff.photometric, "L")
    beyond = tiff.samples - BANDS[mode]
    # Without the tag a single one is alpha, as Pillow has it; of several nobody knows.
    first = tiff.beyond[0] if tiff.beyond else (2 if beyond == 1 and not tiff.extra else 0)
    alpha = beyond > 0 and first in (1, 2, 999)  # 999: CorelDRAW
    notices = []
    if tiff.dtype == np.float64:
        notices.append("its values of 64 bits are read as 32 bits")
    if tiff.untold:
        notices.append(
            f"it does not say what its {tiff.samples} bands are: the first three are taken for "
            "red, green and blue"
        )
    if beyond > alpha and 0 not in tiff.beyond:
        notices.append(DROPPED)
    dtype = tiff.dtype if tiff.dtype.kind == "u" else np.dtype(np.float32)
    layout = Samples(
        mode,
        alpha,
        dtype,
        premultiplied=alpha and first == 1,
        inverted=tiff.photometric == WHITE_IS_ZERO,
        order=tiff.order,
    )
    return layout, notices


def _no_codec(path: Path, codec: str) -> SincutError:
    if not has_imagecodecs():
        return SincutError(
            f"{path} has the compression {codec}, which takes an extra package; "
            "try pip install 'sincut[big]' or a copy with Deflate compression"
        )
    return SincutError(
        f"{path} has the compression {codec}, which is not supported; "
        "try a copy with Deflate compression"
    )


Array = npt.NDArray[Any]

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SAMPLES = ("uint8", "uint16", "float16", "float32", "float64")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK, YCBCR = 0, 1, 2, 5, 6
_SUBSAMPLING = 530
_NOT_CONFIGURED, _NO_IMAGE = "support is not configured", "is not an image that can be read"
_OLD_JPEG, _JPEG = 6, 7
# Aperio's JPEG 2000, of YCbCr and of RGB whatever the photometric tag says.
_APERIO_YCBCR, _APERIO_RGB = 33003, 33005
_CODESTREAM = b"\xff\x4f\xff\x51"  # how one begins that stands in no file of its own
_DECODED_BY_LINES = (5, 8, 32946, 32773)  # LZW, Deflate under two numbers, PackBits
_FORMATS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
# Segments decoded at a time reach this many bytes: enough for the threads to share.
_BAND_BYTES = 16_000_000
_THREADS = min(4, os.cpu_count() or 1)


class TiffReader:
    """A page of a TIFF: what it is, and its rows as they are stored.

    ``dtype`` is what ``read`` gives. ``supported`` says whether ``read`` can give it at all: of
    other kinds (palettes, inks, fewer than 8 bits) only the rest is known.
    """

    any_order = True

    def __init__(
        self, path: Path, file: IO[bytes], pages: Pages, number: int | None = None
    ) -> None:
        """``number`` is that of the page, if it is not the image's. Raises what damage raises, and
        SincutError for samples of a kind that no one reads."""
        import tifffile

        logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else it goes to stderr
        self._file, self._lock = file, threading.Lock()
        file.seek(0)
        self._tiff = tifffile.TiffFile(file)
        self._number = pages.number if number is None else number
        self.tags, self.orientation = pages.tags, orientation_of(pages.tags)
        self._page = page = self._tiff.pages[self._number].aspage()
        # Damaged ones are no numbers.
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        self.samples = int(page.samplesperpixel)
        self.photometric = int(page.photometric)
        self.compression = getattr(page.compression, "name", str(page.compression))
        extra = self.tags.get(EXTRA_SAMPLES, ())
        self.extra: tuple[int, ...] = extra if isinstance(extra, tuple) else (extra,)
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
        self._packed = bits % 8 != 0  # several samples to a byte
        kind = f"{_FORMATS.get(page.sampleformat, 'void')}{page.bitspersample}"
        self.order, self.untold = self._bands(bits)
        self.compression_number = int(page.compression)
        if self.compression_number in (_APERIO_YCBCR, _APERIO_RGB) and self.samples == 3:
            self.photometric = RGB
            page.subsampling = (1, 1)  # tifffile's guess where it is not said, and refuses
        streamed = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
        odd = page.sampleformat != 1 or bits > 8
        if self.photometric in streamed and kind not in SAMPLES and odd:
            raise SincutError(
                f"{path} has samples of the kind {kind}, which is not supported; allowed: "
                f"{', '.join(SAMPLES)}; try a copy of 16 bits per channel"
            )
        self.deep = bits > 8
        self.supported = (
            (
                self.photometric in streamed
                # tifffile brings these to RGB where it can decode them.
                or (self.photometric == YCBCR and int(page.compression) == _JPEG)
                # Pillow has no CMYK with more channels.
                or (self.photometric == CMYK and bits == 8 and self.samples > 4)
            )
            and kind in SAMPLES
            and page.imagedepth == 1
            and self.samples >= (3 if self.photometric in (RGB, YCBCR) else 1)
        )
        self.dtype = np.dtype(kind if self.supported else np.uint8)
        self.row_bytes = self.width * self.samples * self.dtype.itemsize
        self._rows: PlainRows | _Bands | None = None

    def _bands(self, bits: int) -> tuple[tuple[int, int, int] | None, bool]:
        """The order of red, green and blue where GDAL says it, and whether nobody says what the
        bands are. Such deep files are colour, as GDAL writes three bands of more than 8 bits."""
        if self.photometric != BLACK_IS_ZERO or self.samples not in (3, 4):
            return None, False
        order = colour_order(self.tags)
        untold = order is None and bits > 8 and not any(self.extra[:2])
        if order or untold:
            self.photometric = RGB
        return (None if order == (0, 1, 2) else order), untold

    @property
    def beyond(self) -> tuple[int, ...]:
        """What the file says of its samples beyond colour."""
        count = self.samples - {RGB: 3, YCBCR: 3, CMYK: 4}.get(self.photometric, 1)
        return self.extra[-count:] if count > 0 else ()

    @property
    def subsampled(self) -> bool:
        """Whether its colour has fewer samples than its light in a form that no one unpacks."""
        factors = self.tags.get(_SUBSAMPLING, (1, 1))
        plain = self.compression_number == 1 and self.photometric == YCBCR
        return plain and tuple(factors) != (1, 1)

    @property
    def kind(self) -> str:
        """What its samples are, for a message."""
        page = self._page
        photometric = getattr(page.photometric, "name", str(page.photometric))
        bits = page.bitspersample
        words = f"{self.samples} channels of {bits} bits"
        if self.subsampled:
            words += f" with colour subsampled {'×'.join(map(str, self.tags[_SUBSAMPLING]))}"
        return f"{words} (photometric {photometric}, compression {self.compression})"

    @property
    def read_by_lines(self) -> bool:
        """Whether libvips gives the same rows line by line, without decoding whole strips."""
        page = self._page
        return (
            not page.is_tiled
            and self._number == 0
            and int(page.planarconfig) == 1
            and int(page.compression) in _DECODED_BY_LINES
            # It inverts and divides some kinds itself, and does not know float16 and float64.
            and self.photometric in (BLACK_IS_ZERO, RGB)
            and self.samples == (3 if self.photometric == RGB else 1)
            and self.dtype.name in ("uint8", "uint16", "float32")
        )

    @property
    def known_to_gdal(self) -> bool:
        """Whether GDAL, which opens the first page, gives its samples as they are stored."""
        plain = self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
        return plain and self._number == 0

    @property
    def tiled(self) -> bool:
        """Whether its pixels stand in tiles."""
        return bool(self._page.is_tiled)

    @property
    def missing_codec(self) -> str | None:
        """The compression or predictor that tifffile cannot undo as it is installed."""
        from tifffile import TIFF

        page = self._page
        try:
            decode = TIFF.DECOMPRESSORS[page.compression]
            if not _installed():
                try:
                    decode(b"")  # one of tifffile's own wants a newer Python
                except (MemoryError, ImportError):
                    raise
                except Exception:  # which says that nothing is no data, each by its own error
                    pass
            if int(page.predictor) != 1 and page.compression not in TIFF.IMAGE_COMPRESSIONS:
                TIFF.UNPREDICTORS[page.predictor]
        except (KeyError, ImportError):
            predictor = getattr(page.predictor, "name", str(page.predictor))
            plain = int(page.predictor) == 1
            return self.compression if plain else f"{self.compression} with predictor {predictor}"
        if int(page.fillorder) != 1 and not _installed():
            return f"{self.compression} with reversed bits"
        return None

    @property
    def piece_bytes(self) -> int:
        """What has to be decoded to have one row, in bytes; one row where nothing is compressed."""
        page = self._page
        rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.height)
        return (1 if self._plain else rows) * self.width * self.samples * self.dtype.itemsize

    @property
    def resident_bytes(self) -> int:
        """A band of segments, and what each thread has in its hands: data, decoded, in order."""
        if self._plain:
            return 0
        page = self._page
        segment = self.piece_bytes
        if page.is_tiled:
            segment = page.tilelength * page.tilewidth * self.samples * self.dtype.itemsize
        return self._band_rows * self.width * self.samples * self.dtype.itemsize + (
            _THREADS * 3 * segment
        )

    @property
    def _plain(self) -> bool:
        page = self._page
        plain = int(page.compression) == 1 and int(page.predictor) == 1 and int(page.fillorder) == 1
        return plain and not (page.is_tiled or self._packed)

    @property
    def _segment_rows(self) -> int:
        page = self._page
        return int(page.tilelength if page.is_tiled else min(page.rowsperstrip, self.height))

    @property
    def _band_rows(self) -> int:
        """Rows that are decoded together: some rows of segments, for the threads to share."""
        pieces = math.ceil(_BAND_BYTES / max(1, self.piece_bytes))
        if self._page.is_tiled:
            pieces = 1
        return min(self.height, max(1, pieces) * self._segment_rows)

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) as stored; sequential from the top or from the bottom."""
        if self._rows is None:
            self._rows = self._opened()
        return self._rows.read(start, stop)

    def check_counts(self) -> None:
        """Raise ValueError where a strip or tile has a place and no bytes, or bytes and no place.

        Sparse files leave out what is empty: neither place nor bytes. Other decoders fill in black
        where only one of the two is missing.
        """
        page = self._page
        if int(page.compression) == _OLD_JPEG:  # which lies elsewhere
            return
        pairs = zip(page.dataoffsets, page.databytecounts, strict=False)
        if wrong := sum((offset > 0) != (count > 0) for offset, count in pairs):
            kind = "tiles" if page.is_tiled else "strips"
            raise ValueError(f"of {wrong} {kind} only the place or only the byte count is there")

    @property
    def tiles(self) -> _Bands:
        """What decodes its tiles."""
        self.check()
        assert isinstance(self._rows, _Bands)
        return self._rows

    def check(self) -> None:
        """Raise what damage raises if the file ends before its pixels do."""
        if self._rows is None:
            self._rows = self._opened()

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._rows, _Bands):
            self._rows.close()
        self._tiff.close()
        self._file.close()

    def _opened(self) -> PlainRows | _Bands:
        page = self._page
        planes = self.samples if int(page.planarconfig) == 2 else 1
        across = math.ceil(self.width / page.tilewidth) if page.is_tiled else 1
        down = math.ceil(self.height / self._segment_rows)
        count = planes * down * across
        offsets = np.asarray(page.dataoffsets, np.int64)
        lengths = np.asarray(page.databytecounts, np.int64)
        if offsets.size != count or lengths.size != count:
            kind = "tiles" if page.is_tiled else "strips"
            raise ValueError(f"{min(offsets.size, lengths.size)} {kind} instead of {count}")
        if self._plain:
            return PlainRows(
                self._file,
                offsets.reshape(planes, down),
                self._segment_rows,
                (self.height, self.width, self.samples),
                self.dtype.newbyteorder(self._tiff.byteorder),
                page.nodata,
            )
        check_end(self._file, int(np.where(offsets > 0, offsets + lengths, 0).max()))
        return _Bands(self, self._file, page, offsets, lengths, (planes, down, across))


class TiledRows:
    """Rows and windows of a TIFF in tiles."""

    any_order = keeps_rows = True

    def __init__(self, tiff: TiffReader) -> None:
        self._tiff = tiff
        self.resident_bytes, self.row_bytes = tiff.resident_bytes, tiff.row_bytes

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) as stored; sequential from the top or from the bottom."""
        return self._tiff.read(start, stop)

    def window(self, top: int, bottom: int, left: int, right: int) -> Array:
        """(bottom - top, right - left, samples) as stored: only its tiles are decoded."""
        return self._tiff.tiles.window(top, bottom, left, right)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()


class _Bands:
    """Rows of compressed or tiled segments. The last band stays for the rows that follow."""

    def __init__(
        self,
        tiff: TiffReader,
        file: IO[bytes],
        page: Any,
        offsets: Array,
        lengths: Array,
        grid: tuple[int, int, int],
    ) -> None:
        self._tiff, self._file, self._page = tiff, file, page
        self._offsets, self._lengths, self._grid = offsets, lengths, grid
        self.resident_bytes = tiff.resident_bytes
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS)
        self._top = -1
        self._band: Array = np.empty(0)
        self._options: dict[str, Any] = {}
        if int(page.compression) == _JPEG:
            self._options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        page.decode  # noqa: B018 - it is made on first use, which must not happen in a thread

    def read(self, start: int, stop: int) -> Array:
        tiff = self._tiff
        rows = np.empty((stop - start, tiff.width, tiff.samples), tiff.dtype)
        height = tiff._band_rows
        bands = range(start // height, math.ceil(stop / height))
        if tiff.orientation in (3, 4):  # it is read from the bottom: the topmost band stays
            bands = bands[::-1]
        for band in bands:
            top = band * height
            if top != self._top:
                self._decode(top, min(top + height, tiff.height))
            first, last = max(start, top), min(stop, top + height)
            rows[first - start : last - start] = self._band[first - top : last - top]
        return rows

    def window(self, top: int, bottom: int, left: int, right: int) -> Array:
        result = np.empty((bottom - top, right - left, self._tiff.samples), self._tiff.dtype)
        self._fill(result, top, left)
        return result

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._band = np.empty(0)

    def _decode(self, top: int, bottom: int) -> None:
        shape = (bottom - top, self._tiff.width, self._tiff.samples)
        self._top = -1  # until it is complete
        if self._band.shape != shape:
            self._band = np.empty(0)  # before the next is there
            self._band = np.empty(shape, self._tiff.dtype)
        self._fill(self._band, top, 0)
        self._top = top

    def _fill(self, result: Array, top: int, left: int) -> None:
        """Decode what (rows, columns, samples) from there on have, each segment once."""
        tiff, page, (planes, down, across) = self._tiff, self._page, self._grid
        bottom, right = top + result.shape[0], left + result.shape[1]
        high, wide = tiff._segment_rows, page.tilewidth if page.is_tiled else tiff.width

        def segments() -> Iterator[int]:
            for plane in range(planes):
                for row in range(top // high, math.ceil(bottom / high)):
                    start = (plane * down + row) * across
                    yield from range(start + left // wide, start + math.ceil(right / wide))

        def fill(index: int) -> None:
            pixels, plane, y, x = self._segment(index)
            rows = slice(max(top, y), min(bottom, y + high))
            columns = slice(max(left, x), min(right, x + wide))
            part = result[
                rows.start - top : rows.stop - top,
                columns.start - left : columns.stop - left,
                plane : plane + tiff.samples // planes,
            ]
            if pixels is None:
                part[:] = page.nodata
            else:
                part[:] = pixels[
                    rows.start - y : rows.stop - y, columns.start - x : columns.stop - x
                ]

        # Not more at a time than the result has: map would hold on to results, here there are none.
        for _ in self._pool.map(fill, segments()):
            pass

    def _segment(self, index: int) -> tuple[Array | None, int, int, int]:
        """A strip or tile (rows, columns, samples), or nothing where it is sparse; its plane, its
        first row and column."""
        data = None
        if offset := int(self._offsets[index]):
            data = read_bytes(self._file, self._lock, offset, int(self._lengths[index]))
        try:
            pixels, (plane, _, y, x, _), _ = self._page.decode(data, index, **self._options)
        except DAMAGE:
            raise
        except MemoryError:
            raise
        except Exception as error:  # the codecs' own errors
            raise ValueError(one_line(error)) from None
        if pixels is not None and _is_aperio_ycbcr(self._tiff.compression_number, data):
            pixels = _rgb_of_ycbcr(pixels)
        return None if pixels is None else pixels[0], plane, y, x


def _is_aperio_ycbcr(compression: int, data: bytes | None) -> bool:
    """Whether a decoded segment is YCbCr still: the codec brings to RGB only what says that it is
    YCbCr, as a file, or has subsampled colour."""
    if compression != _APERIO_YCBCR or not data or not data.startswith(_CODESTREAM):
        return False
    components, second = data[40:42], data[46:48]  # count; the second's steps across and down
    return components == b"\0\x03" and second == b"\x01\x01"


def _rgb_of_ycbcr(pixels: Array) -> Array:
    """(1, H, W, 3) uint8 YCbCr, as JPEG has it, to RGB."""
    return np.asarray(Image.fromarray(pixels[0], "YCbCr").convert("RGB"))[None]


def _installed() -> bool:
    """Whether tifffile found imagecodecs, and not only its own few codecs."""
    import tifffile.tifffile as module

    return "tifffile" not in str(vars(module)["imagecodecs"].__name__)
