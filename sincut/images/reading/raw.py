"""Camera raw, developed by LibRaw to sRGB of 16 bits. No torch."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from sincut.errors import SincutError, one_line
from sincut.images.metadata import DAMAGE, damage_told, tiff_exif, upright_exif
from sincut.images.reading.endings import RAW_ENDINGS
from sincut.images.reading.extras import library
from sincut.images.reading.pillow import heard
from sincut.images.reading.rows import Array, ArrayRows, tiff_directory
from sincut.images.reading.samples import Samples
from sincut.images.reading.source import (
    Header,
    Source,
    _Limits,
    _source,
    _too_much,
    check_size,
    reading,
)
from sincut.images.records import NO_RECORDS, Records, not_kept, tiff_records

_TIFF = (b"II*\0", b"MM\0*")
_DNG_VERSION = 50706
_SRGB_CURVE = (2.4, 12.92)  # power and slope at black
_PIXEL_BYTES = 20  # that LibRaw holds of an image and its result, as measured: 16
_QUARTER = 4  # the bit of a flip that turns by one


def is_raw(path: Path, head: bytes) -> bool:
    """Whether a file is camera raw: by its ending, or as it says that it is a DNG."""
    if path.suffix.lower() in RAW_ENDINGS:
        return True
    if head[:4] not in _TIFF:
        return False
    # What is damaged is told by the reader that takes it.
    with open(path, "rb") as file, damage_told(), contextlib.suppress(*DAMAGE):
        directory = tiff_directory(file)
        file.seek(directory.next)
        directory.load(file)
        return _DNG_VERSION in directory
    return False


def raw_source(path: Path, limits: _Limits) -> Source:
    """A camera's file, developed whole."""
    with damage_told() as damage, _opened(path) as raw:
        width, height = raw.sizes.iwidth, raw.sizes.iheight
        check_size(path, width, height, limits.max_pixels)
        needed = _PIXEL_BYTES * width * height
        if needed > limits.max_memory:
            size, most = (height, width), limits.max_memory
            raise _too_much(path, size, needed, most, "a TIFF copy, ", limits.held)
        pixels = _developed(path, raw)
        header = _header(path, raw)
        notices = [_told(raw), *header.notices]
    layout = Samples("L" if pixels.shape[2] == 1 else "RGB", dtype=np.uint16)
    size = (pixels.shape[0], pixels.shape[1])
    return _source(path, ArrayRows(pixels), layout, size, header, notices, damage, limits)


def raw_size(path: Path, max_pixels: int) -> tuple[int, int]:
    """Width and height as it is developed."""
    with _opened(path) as raw:
        sizes = raw.sizes
        check_size(path, sizes.iwidth, sizes.iheight, max_pixels)
        if sizes.pixel_aspect != 1:  # LibRaw stretches it
            height, width, _ = _developed(path, raw).shape
            return width, height
        turned = sizes.flip & _QUARTER
        size: tuple[int, int] = (sizes.iwidth, sizes.iheight)
        return size[::-1] if turned else size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file that LibRaw knows, not decoded."""
    rawpy = library("rawpy", "rawpy", "photo", path)
    with contextlib.ExitStack() as stack:
        with _libraw(path), open(path, "rb"):  # LibRaw would not say why it cannot be read
            raw = stack.enter_context(rawpy.imread(str(path)))
        yield raw


def _developed(path: Path, raw: Any) -> Array:
    """(H, W, 1 or 3) uint16 sRGB, upright."""
    import rawpy

    with _libraw(path):
        pixels: Array = raw.postprocess(
            output_color=rawpy.ColorSpace.sRGB,
            output_bps=16,
            gamma=_SRGB_CURVE,
            use_camera_wb=True,
            no_auto_bright=True,
        )
    return pixels.reshape(*pixels.shape[:2], -1)


@contextlib.contextmanager
def _libraw(path: Path) -> Iterator[None]:
    """What LibRaw says is wrong, in one line: some of it it prints, and goes on."""
    import rawpy

    printed = re.compile(re.escape(str(path)) + ": ")
    with reading(path), heard(printed):
        try:
            yield
        except (rawpy.LibRawFileUnsupportedError, rawpy.NotSupportedError) as error:
            raise SincutError(
                f"{path} is not a camera raw file that LibRaw {_version()} can read "
                f"({_words(error)}); try a copy as TIFF or PNG"
            ) from None
        except rawpy.LibRawError as error:
            raise OSError(_words(error)) from None


def _words(error: Exception) -> str:
    (text,) = error.args or (b"",)
    return one_line(text.decode(errors="replace") if isinstance(text, bytes) else text)


def _version() -> str:
    import rawpy

    return ".".join(map(str, rawpy.libraw_version))


def _told(raw: Any) -> str:
    """How it was developed."""
    camera = all(factor > 0 for factor in raw.camera_whitebalance[:3])
    balance = "the camera's white balance" if camera else "the white balance of daylight"
    return (
        f"it is developed by LibRaw {_version()}, from linear 16 bits to sRGB, with {balance} and "
        "its exposure as it is"
    )


def _header(path: Path, raw: Any) -> Header:
    """What the file says, if it is a kind of TIFF, or else the JPEG in it."""
    exif, records, notices = None, NO_RECORDS, []
    try:
        with open(path, "rb") as file:
            if file.read(4) in _TIFF:
                exif, records, lost = _of_tiff(file)
                notices += not_kept(lost)
            else:
                exif = _of_preview(raw)
    except DAMAGE:
        notices.append("its EXIF is damaged and not kept")
    if exif is None and not notices:
        notices.append("no EXIF was found in it")
    return Header(1, None, exif, None, None, tuple(notices), records)


def _of_tiff(file: IO[bytes]) -> tuple[bytes | None, Records, list[str]]:
    directory = tiff_directory(file)
    file.seek(directory.next)
    directory.load(file)
    records, lost = tiff_records(directory)
    return tiff_exif(file), Records(records.xmp, records.iptc), lost


def _of_preview(raw: Any) -> bytes | None:
    import rawpy

    try:
        preview = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    if preview.format != rawpy.ThumbFormat.JPEG:
        return None
    with Image.open(io.BytesIO(preview.data), formats=("JPEG",)) as image:
        return upright_exif(image.info)
