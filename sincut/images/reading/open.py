"""Any image file, opened by the reader that it needs. No torch.

TIFF is decoded by tifffile while it is read, but for its rarer kinds. Of the other formats what is
small is decoded at once (pillow.py), and larger and deeper files are decoded while they are read:
binary PPM as it stands, PNG, JPEG and WebP by pyvips, which is an extra package. Slides, OME-Zarr,
JPEG 2000 and VRT take extra packages too (slides.py, ome_zarr.py, rasters.py) and are read by
windows; HEIF, AVIF and camera raw as well (heif.py, raw.py), which are decoded whole.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from sincut.errors import SincutError
from sincut.images.bit_depth import as_depth
from sincut.images.identity import is_zarr
from sincut.images.metadata import ORIENTATION
from sincut.images.reading.asked import (
    AS_STORED,
    WHOLE,
    AskedPart,
    AskedValues,
    Region,
    no_bands,
)
from sincut.images.reading.heif import heif_size, heif_source, is_heif
from sincut.images.reading.ome_zarr import zarr_source
from sincut.images.reading.pillow import (
    INPUT_FORMATS,
    Opened,
    _decoded_source,
    _no_deep,
    early_notices,
    fits,
    header_of,
    is_deep,
    opened_picture,
)
from sincut.images.reading.rasters import is_raster, raster_source
from sincut.images.reading.raw import is_raw, raw_size, raw_source
from sincut.images.reading.rows import PlainRows, Rows
from sincut.images.reading.samples import Samples
from sincut.images.reading.slides import has_openslide, is_slide, slide_source
from sincut.images.reading.source import (
    Header,
    Picture,
    Source,
    _Limits,
    _source,
    _too_much,
    check_region,
    check_size,
    reading,
)
from sincut.images.reading.tiff import MAGIC, _tiff_source
from sincut.images.reading.value_range import found_range
from sincut.images.vips import _STREAMED_BY_VIPS, VipsRows, libvips

STREAM_ABOVE = 64_000_000  # bytes
_TURNED = (5, 6, 7, 8)  # orientations by a quarter


def open_source(
    path: Path,
    *,
    max_pixels: int,
    max_memory: int,
    held: int = 0,
    stream_above: int | None = None,
    level: int = 0,
    region: Region | None = None,
    asked: AskedValues = AS_STORED,
) -> Source:
    """Open an image, to be closed again.

    Args:
        path: a file of one of ``INPUT_FORMATS``, a slide, or a folder of OME-Zarr.
        max_pixels: compared with the header before anything is decoded; of what is read by windows
            the part that is asked for counts, of all else the whole.
        max_memory: bytes that an image may take to decode which cannot be read by rows, and
        held: what the process takes already of them.
        stream_above: an image of 8 bits is decoded at once up to this many bytes of pixels; if not
            given, ``STREAM_ABOVE``.
        level: of an image that has smaller copies of itself; 0 is the largest.
        region: the part that is wanted, in the level's pixels.
        asked: how its values are taken. A range that has to be found takes a pass over the part.

    Raises:
        SincutError: no such file, not an image, damaged, too large, of a kind that is not
            supported, or one that takes an absent package; it lacks the level, the region, the
            range or the bands.
    """
    if asked.automatic:
        bare = replace(asked, automatic=False)
        with open_source(
            path,
            max_pixels=max_pixels,
            max_memory=max_memory,
            held=held,
            level=level,
            region=region,
            asked=bare,
        ) as bare_source:
            found = found_range(bare_source)
        asked = replace(bare, range=found.range, why=found.why)
    if stream_above is None:
        stream_above = STREAM_ABOVE
    limits = _Limits(path, max_pixels, max_memory - held, held, stream_above, asked)
    source = _opened(path, limits, level)
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        if region is not None:
            source.crop(region)
        check_size(path, source.width, source.height, max_pixels)
        stack.pop_all()
    return source


def _opened(path: Path, limits: _Limits, level: int) -> Source:
    """The whole of a level."""
    if is_zarr(path):
        if limits.asked.bands:
            raise no_bands(path, "an OME-Zarr")
        return zarr_source(path, limits, level)
    magic = _magic(path)
    if is_raster(path, magic):
        return raster_source(path, limits, level)
    if limits.asked.bands and magic[:4] not in MAGIC:
        raise no_bands(path, "no TIFF")
    if level or (is_slide(path) and (magic[:4] not in MAGIC or has_openslide())):
        if limits.asked.bands:
            raise no_bands(path, "a slide")
        return slide_source(path, limits, level)
    return _file_source(path, limits, magic)


def _magic(path: Path) -> bytes:
    """The bytes that tell what a file is."""
    with reading(path), open(path, "rb") as file:
        magic = file.read(16)
    if not magic and path.suffix.lower() != ".mrxs":  # whose pixels lie in a folder beside it
        raise SincutError(f"{path} is empty: it has 0 bytes; try another copy of the file")
    return magic


def _file_source(path: Path, limits: _Limits, magic: bytes) -> Source:
    if is_raw(path, magic):
        return raw_source(path, limits)
    if is_heif(magic):
        return heif_source(path, limits)
    if magic[:4] in MAGIC and (source := _tiff_source(path, limits)):
        return source
    with opened_picture(path) as opened:
        image = opened.image
        check_size(path, image.width, image.height, limits.max_pixels)
        deep = is_deep(image)
        small = math.prod(image.size) * len(image.getbands()) <= limits.stream_above
        if not deep and small and fits(opened, limits):
            return _decoded_source(path, limits, opened)
        rows_there = _rows_of(path, image)
        if rows_there is None and deep:
            raise _no_deep(path, image)
        if rows_there is None:
            return _decoded_source(path, limits, opened)
        rows, layout = rows_there
        header, notices = _lazy_header(opened)
    size, damage = (image.height, image.width), opened.damage
    return _source(path, rows, layout, size, header, notices, damage, limits)


def image_size(
    path: Path, max_pixels: int = 1_000_000_000, part: AskedPart = WHOLE
) -> tuple[int, int]:
    """Width and height of an image, or of a part of one, as it is upright, from its header.

    Raises:
        SincutError: as far as a header tells, what :func:`open_source` raises.
    """
    magic = b""
    if not is_zarr(path):
        magic = _magic(path)
    by_rows = magic[:4] in MAGIC or is_zarr(path) or is_slide(path) or is_raster(path, magic)
    if part.level or (by_rows and not is_raw(path, magic)):
        with open_source(
            path,
            max_pixels=max_pixels,
            max_memory=sys.maxsize,
            level=part.level,
            region=part.region,
        ) as source:
            return source.width, source.height
    width, height = _size_of_file(path, max_pixels, magic)
    if part.region is None:
        return width, height
    check_region(path, width, height, part.region)
    return part.region.width, part.region.height


def _size_of_file(path: Path, max_pixels: int, magic: bytes) -> tuple[int, int]:
    """Of a file that is no TIFF and no slide."""
    if is_raw(path, magic):
        return raw_size(path, max_pixels)
    if is_heif(magic):
        return heif_size(path, max_pixels)
    with opened_picture(path) as opened:
        image = opened.image
        check_size(path, image.width, image.height, max_pixels)
        turned = image.getexif().get(ORIENTATION, 1) in _TURNED
        return (image.height, image.width) if turned else (image.width, image.height)


def read_picture(
    path: Path,
    max_pixels: int = 1_000_000_000,
    max_memory: int | None = None,
    asked: AskedValues = AS_STORED,
    part: AskedPart = WHOLE,
) -> Picture:
    """An image or a part of one as sRGB of 8 bits, from any file that ``open_source`` reads. Deeper
    images are rounded, a float NaN becomes black.

    Raises:
        SincutError: as ``open_source``, or what is read takes more than ``max_memory`` bytes.
    """
    most = sys.maxsize if max_memory is None else max_memory
    with open_source(
        path,
        max_pixels=max_pixels,
        max_memory=most,
        level=part.level,
        region=part.region,
        asked=asked,
    ) as source:
        if source.picture is not None:
            rgb = source.colours.to_srgb(source.picture.rgb)
            return replace(source.picture, rgb=rgb)
        shape = (source.height, source.width)
        needed = math.prod(shape) * source.channels + source.resident_bytes
        if needed > most:
            raise _too_much(path, shape, needed, most, "")
        rgb = np.empty((*shape, 3), np.uint8)
        alpha = np.empty(shape, np.uint8) if source.alpha else None
        step = max(1, (1 << 22) // source.width)
        for top in range(0, source.height, step):
            bottom = min(top + step, source.height)
            rows = source.rows(top, bottom)
            rgb[top:bottom] = as_depth(source.colours.to_srgb(rows[..., :3]), rgb.dtype)
            if alpha is not None:
                alpha[top:bottom] = as_depth(rows[..., 3], alpha.dtype)
        return Picture(
            rgb=rgb,
            alpha=alpha,
            profile=source.carried.profile,
            converted=source.colours.converted,
            exif=source.carried.exif,
            dpi=source.carried.dpi,
            geo=source.carried.geo,
            records=source.carried.records,
            notices=source.told_of_integers(),
            range=source.colours.range,
            kind=source.dtype.name,
        )


def _rows_of(path: Path, image: ImageFile.ImageFile) -> tuple[Rows, Samples] | None:
    """Rows of a file that is no TIFF, where there is a way to have them without the whole."""
    if image.format == "PPM":
        return _ppm_rows(path, image)
    if image.format in _STREAMED_BY_VIPS and (vips := libvips()):
        jpeg = image.format in ("JPEG", "MPO")
        rows = VipsRows(vips, path, _kept_by_vips(image), warned=jpeg)
        return rows, Samples(rows.mode, rows.alpha, rows.dtype)
    return None


def _ppm_rows(path: Path, image: ImageFile.ImageFile) -> tuple[Rows, Samples] | None:
    """Rows of a binary PGM or PPM of 8 bits up to 255, or of 16 bits."""
    _, _, offset, arguments = image.tile[0]
    deep = is_deep(image)
    highest = 65535 if deep else 255
    if isinstance(arguments, tuple) and isinstance(arguments[1], int) and arguments[1] > 0:
        highest = arguments[1]
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        if file.read(2) not in (b"P5", b"P6") or (highest != 255 and not deep):
            return None
        shape = (image.height, image.width, len(image.getbands()))
        kind = np.dtype(">u2" if deep else np.uint8)
        rows = PlainRows(file, np.array([[offset]]), image.height, shape, kind)
        stack.pop_all()
    mode = "L" if shape[2] == 1 else "RGB"
    if not deep:
        return rows, Samples(mode)
    return rows, Samples(mode, dtype=np.uint16, highest=highest)


def _kept_by_vips(image: ImageFile.ImageFile) -> int:
    """Bytes that a decoder keeps of the whole image before the first row."""
    pixels = image.width * image.height
    if image.format == "WEBP":
        return 8 * pixels
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        return 2 * len(image.getbands()) * pixels
    if image.format == "PNG" and image.info.get("interlace"):
        return len(image.getbands()) * pixels * (2 if is_deep(image) else 1)
    return 0


def _lazy_header(opened: Opened) -> tuple[Header, list[str]]:
    """What a file says beside its pixels, without decoding them, and notices."""
    image, file = opened.image, opened.file
    notices = early_notices(opened)
    if image.format == "PNG":
        with Image.open(_png_of_one_pixel(file), formats=INPUT_FORMATS) as small:
            small.load()
            header = header_of(small, file)
    else:
        header = header_of(image, file)
    notices += header.notices
    if image.mode in ("P", "PA"):
        notices.append("its palette is converted to RGB")
    return header, notices


def _png_of_one_pixel(file: IO[bytes]) -> IO[bytes]:
    """A PNG that says the same as another: Pillow reads what stands behind the pixels only after
    decoding them."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    small = io.BytesIO()
    small.write(file.read(8))
    pixel = zlib.compress(bytes(9))  # a filter, and at most four samples of two bytes
    written = False
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if file.tell() + length > end:
            raise EOFError(f"{file.tell() + length - end} bytes of it are missing")
        if name in (b"IDAT", b"acTL", b"fcTL", b"fdAT"):
            file.seek(length + 4, io.SEEK_CUR)
            if name != b"IDAT" or written:
                continue
            data, written = pixel, True
        else:
            data = file.read(length)
            file.seek(4, io.SEEK_CUR)
        if name == b"IHDR":
            data = struct.pack(">II", 1, 1) + data[8:12] + b"\0"
        check = zlib.crc32(name + data)
        small.write(struct.pack(">I4s", len(data), name) + data + struct.pack(">I", check))
    small.seek(0)
    return small
