"""Images of any size and depth, read by rows from top to bottom. No torch.

TIFF is decoded by tifffile while it is read, but for its rarer kinds. Of the other formats what is
small is decoded at once (images.py), and larger and deeper files are decoded while they are read:
binary PPM as it stands, PNG, JPEG and WebP by pyvips, which is an extra package. What would take
more memory than allowed is refused before it is decoded.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from sincut.depth import as_depth
from sincut.errors import SincutError
from sincut.files.images import (
    INPUT_FORMATS,
    Header,
    Picture,
    check_size,
    decoding_bytes,
    early_notices,
    header_of,
    is_deep,
    opened_picture,
    reading,
    tiff_pages,
    turned_dpi,
)
from sincut.files.images import read_picture as read_whole
from sincut.files.metadata import DAMAGE, Carried, damage_told, nodata_of
from sincut.files.profiles import Colours, has_imagecodecs, interpreted
from sincut.files.rows import PlainRows, Rows, Turned, VipsRows, libvips, upright
from sincut.files.samples import BANDS, Samples, Seen
from sincut.files.tiff_source import MAGIC, RGB, WHITE_IS_ZERO, YCBCR, Tiff

Array = npt.NDArray[Any]

STREAM_ABOVE = 64_000_000  # bytes
_LARGEST_PIECE = 64_000_000  # bytes of a strip that tifffile decodes as one
_UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, RuntimeError)
_STREAMED_BY_VIPS = ("JPEG", "MPO", "PNG", "WEBP")


class Source:
    """An image that is read in rows, from top to bottom.

    ``height`` and ``width`` are those of the upright image. ``dtype`` is ``uint8``, ``uint16`` or
    ``float32``, and ``channels`` 3 or 4: RGB, or RGB and straight alpha. The RGB is in the file's
    own colours; ``colours`` brings it to sRGB and back. ``carried`` is what the output keeps.
    ``nodata`` is the value of all three where a GeoTIFF says that nothing is known.
    ``resident_bytes`` is the host memory that reading holds beside the rows it returns;
    ``decoded`` says whether the whole image is held, as ``picture``, until it is closed.
    """

    def __init__(
        self,
        path: Path,
        rows: Rows,
        layout: Samples,
        size: tuple[int, int],
        carried: Carried,
        colours: Colours,
        notices: tuple[str, ...],
        picture: Picture | None = None,
    ) -> None:
        """``size`` is (H, W); ``picture`` the image if it is decoded already."""
        self.path, self.carried, self.colours = path, carried, colours
        self.picture, self.decoded = picture, picture is not None
        self.height, self.width = size
        self.dtype, self.channels = np.dtype(layout.dtype), 3 + layout.alpha
        self.resident_bytes = rows.resident_bytes
        self._rows, self._layout, self._notices, self._next = rows, layout, notices, 0
        # It is told of the samples as they stand: no use where they come as other numbers.
        plain = not (layout.inverted or layout.premultiplied or colours.converted)
        self.nodata = nodata_of(carried.geo, self.dtype) if plain else None
        self._seen = Seen(path, colours, size, self.dtype, self.nodata)

    def rows(self, start: int, stop: int) -> Array:
        """(stop - start, W, channels), C-contiguous. ``start`` is where the last call stopped, or
        further down. Float values are the file's own, also outside 0…1.

        Raises:
            SincutError: the file is damaged, or its float values are not of 0…1.
        """
        if not self._next <= start <= stop <= self.height:
            raise ValueError(f"rows {start} to {stop} of {self.height} after row {self._next}")
        with reading(self.path):
            pixels = self._layout(self._rows.read(start, stop))
        self._next = stop
        if not self.decoded:
            self._seen.add(pixels[..., :3], start)
        return np.ascontiguousarray(pixels)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the person who gave the file; complete when all rows are read."""
        return (*self._notices, *self._seen.notices("stay so"))

    def told_of_integers(self) -> tuple[str, ...]:
        """The same where the pixels are brought to integers, which know no NaN."""
        return (*self._notices, *self._seen.notices("become black"))

    def close(self) -> None:
        """Let go of the file and of what is decoded."""
        self._rows.close()
        self.picture = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_source(
    path: Path,
    *,
    max_pixels: int,
    max_memory: int,
    held: int = 0,
    stream_above: int | None = None,
) -> Source:
    """Open an image, to be closed again.

    Args:
        path: a file of one of ``INPUT_FORMATS``.
        max_pixels: compared with the header before anything is decoded.
        max_memory: bytes that an image may take to decode which cannot be read by rows, and
        held: what the process takes already of them.
        stream_above: an image of 8 bits is decoded at once up to this many bytes of pixels; if not
            given, ``STREAM_ABOVE``.

    Raises:
        SincutError: no such file, not an image, damaged, too large, of a kind that is not
            supported, or one that takes an absent package.
    """
    if stream_above is None:
        stream_above = STREAM_ABOVE
    limits = _Limits(path, max_pixels, max_memory - held, held, stream_above)
    with reading(path), open(path, "rb") as file:
        magic = file.read(4)
    if magic in MAGIC and (source := _tiff_source(path, limits)):
        return source
    with opened_picture(path) as (image, file, damage):
        check_size(path, image.width, image.height, max_pixels)
        deep = is_deep(image)
        if not deep and math.prod(image.size) * len(image.getbands()) <= stream_above:
            return _decoded_source(path, limits)
        found = _rows_of(path, image)
        if found is None and deep:
            raise _no_deep(path, image)
        if found is None:
            return _decoded_source(path, limits, image)
        rows, layout = found
        header, notices = _lazy_header(image, file)
    return _source(path, rows, layout, (image.height, image.width), header, notices, damage, limits)


def in_srgb(source: Source, rows: Array) -> Array:
    """(rows, columns, 3 or 4) of a source as (rows, columns, 3) sRGB; floats within 0 … 1, with 0
    for what is not a number."""
    rgb = source.colours.to_srgb(rows[..., :3])
    if rgb.dtype != np.float32:
        return rgb
    clipped: Array = np.nan_to_num(rgb, posinf=1.0, neginf=0.0).clip(0, 1)
    return clipped


def read_picture(
    path: Path, max_pixels: int = 1_000_000_000, max_memory: int | None = None
) -> Picture:
    """A whole image as sRGB of 8 bits, from any file that ``open_source`` reads. Deeper images are
    rounded, a float NaN becomes black.

    Raises:
        SincutError: as ``open_source``, or the image takes more than ``max_memory`` bytes.
    """
    most = sys.maxsize if max_memory is None else max_memory
    with open_source(path, max_pixels=max_pixels, max_memory=most) as source:
        if source.picture is not None:
            rgb = source.colours.to_srgb(source.picture.rgb)
            return replace(source.picture, rgb=rgb)
        shape = (source.height, source.width)
        needed = math.prod(shape) * source.channels + source.resident_bytes
        if needed > most:
            raise _too_much(path, shape, needed, most, "")
        rgb = np.empty((*shape, 3), np.uint8)
        alpha = np.empty(shape, np.uint8) if source.channels == 4 else None
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
            notices=source.told_of_integers(),
        )


# ------------------------------------------------------------------------------------- limits


@dataclass(frozen=True)
class _Limits:
    path: Path
    max_pixels: int
    max_memory: int
    held: int
    stream_above: int


def _too_much(
    path: Path, size: tuple[int, int], needed: int, most: int, others: str, held: int = 0
) -> SincutError:
    """``others`` is what to try besides ``--max-memory``, with a comma at its end."""
    enough = _amount(needed + held, up=True)
    return SincutError(
        f"{path} has {size[1]}×{size[0]} pixels, which takes {_amount(needed)} of memory to "
        f"decode, allowed are {_amount(max(most, 0))}; try {others}--max-memory {enough}"
    )


def _amount(count: int, *, up: bool = False) -> str:
    """Bytes for a person; ``up`` as an option's value that suffices."""
    scale, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    tenths = math.ceil(count / scale * 10) if up else max(1, round(count / scale * 10))
    return f"{tenths / 10:.1f}{'' if up else ' '}{unit}"


# --------------------------------------------------------------------------------- the kinds


def _source(
    path: Path,
    rows: Rows,
    layout: Samples,
    size: tuple[int, int],
    header: Header,
    notices: list[str],
    damage: list[str],
    limits: _Limits,
) -> Source:
    """A source of rows as they are stored, which it closes where it refuses them."""
    try:
        rows, upright_size = upright(rows, size, header.orientation)
        if isinstance(rows, Turned) and rows.resident_bytes > limits.max_memory:
            raise SincutError(
                f"{path} is turned by its orientation {header.orientation}: its "
                f"{size[1]}×{size[0]} pixels take {_amount(rows.resident_bytes)} of memory to "
                f"turn, allowed are {_amount(limits.max_memory)}; try a copy turned upright or "
                f"--max-memory {_amount(rows.resident_bytes + limits.held, up=True)}"
            )
        colours, device, more = interpreted(path, header.profile, layout.mode, layout.dtype)
    except SincutError:
        rows.close()
        raise
    return Source(
        path,
        rows,
        replace(layout, device=device),
        upright_size,
        Carried(
            colours.profile, header.exif, turned_dpi(header.dpi, header.orientation), header.geo
        ),
        colours,
        (*notices, *more, *damage),
    )


def _decoded_source(
    path: Path, limits: _Limits, image: ImageFile.ImageFile | None = None
) -> Source:
    """A source that is decoded at once. ``image`` is its header where the limit is to be asked."""
    if image is not None and (needed := decoding_bytes(image)) > limits.max_memory:
        extra = image.format in _STREAMED_BY_VIPS and not libvips()
        others = "pip install 'sincut[big]', a TIFF copy, " if extra else "a TIFF copy, "
        size = (image.height, image.width)
        raise _too_much(path, size, needed, limits.max_memory, others, limits.held)
    picture = read_whole(path, limits.max_pixels, as_stored=True)
    return Source(
        path,
        _PictureRows(picture),
        Samples("RGB", picture.alpha is not None),
        (picture.height, picture.width),
        Carried(picture.profile, picture.exif, picture.dpi, picture.geo),
        Colours(picture.profile, picture.converted),
        picture.notices,
        picture,
    )


def _tiff_source(path: Path, limits: _Limits) -> Source | None:
    """A TIFF by rows, or None where Pillow has to say what is wrong with it."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        try:
            with damage_told() as early:
                tiff = Tiff(path, file)
        except _UNREADABLE:
            return None
        size = (tiff.height, tiff.width)
        if min(size) < 1:
            return None
        check_size(path, tiff.width, tiff.height, limits.max_pixels)
        missing = tiff.missing_codec if tiff.supported else None
        if not tiff.supported or (missing and not tiff.deep):
            if not tiff.deep and math.prod(size) * tiff.samples <= limits.stream_above:
                return _decoded_source(path, limits)
            with opened_picture(path) as (image, _, _):
                if not missing or decoding_bytes(image) <= limits.max_memory:
                    return _decoded_source(path, limits, image)
        if missing:
            raise _no_codec(path, missing)
        with reading(path), damage_told() as damage:
            header, notices = _tiff_header(tiff, file)
            layout, more = _tiff_layout(tiff)
            tiff.check()
            rows = _tiff_rows(path, tiff, limits)
        stack.pop_all()
    damage = list(dict.fromkeys((*early, *damage)))
    return _source(path, rows, layout, size, header, [*notices, *more], damage, limits)


def _tiff_rows(path: Path, tiff: Tiff, limits: _Limits) -> Rows:
    """Rows of a TIFF, from libvips where tifffile would have to decode too much at once: a page
    that is compressed in one piece, which libvips decodes line by line."""
    if tiff.piece_bytes <= _LARGEST_PIECE:
        return tiff
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
    return tiff


def _tiff_header(tiff: Tiff, file: IO[bytes]) -> tuple[Header, list[str]]:
    notices, exif = [], None
    pages = tiff_pages(file)
    if pages > 1:
        notices.append(f"it has {pages} images; the first is used")
    if 0 in tiff.extra:
        notices.append("its channels beyond colour and alpha are not kept")
    notices += [f"its {name} is not kept" for name in tiff.dropped]
    if tiff.no_exif:
        notices.append("its EXIF is not kept: it is a BigTIFF in big-endian order")
    try:
        exif = tiff.exif()
    except DAMAGE:
        notices.append("its EXIF is damaged and not kept")
    header = Header(tiff.orientation, tiff.profile, exif, tiff.dpi, tiff.geo, ())
    return header, notices


def _tiff_layout(tiff: Tiff) -> tuple[Samples, list[str]]:
    mode = "RGB" if tiff.photometric in (RGB, YCBCR) else "L"
    beyond = tiff.samples - BANDS[mode]
    # Without the tag a single one is alpha, as Pillow has it; of several nobody knows.
    first = tiff.extra[0] if tiff.extra else (2 if beyond == 1 else 0)
    alpha = beyond > 0 and first in (1, 2, 999)  # 999: CorelDRAW
    notices = []
    if tiff.dtype == np.float64:
        notices.append("its values of 64 bits are read as 32 bits")
    if beyond > alpha and 0 not in tiff.extra:
        notices.append("its channels beyond colour and alpha are not kept")
    dtype = tiff.dtype if tiff.dtype.kind == "u" else np.dtype(np.float32)
    layout = Samples(
        mode,
        alpha,
        dtype,
        premultiplied=alpha and first == 1,
        inverted=tiff.photometric == WHITE_IS_ZERO,
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


def _no_deep(path: Path, image: ImageFile.ImageFile) -> SincutError:
    if image.format == "PNG":
        return SincutError(
            f"{path} has 16 bits per channel, which as PNG takes an extra package; "
            "try pip install 'sincut[big]' or a TIFF copy"
        )
    return SincutError(
        f"{path} has more than 8 bits per channel in a kind of {image.format} that is not "
        "supported; allowed: binary PPM and PGM of 16 bits; try a TIFF copy"
    )


def _rows_of(path: Path, image: ImageFile.ImageFile) -> tuple[Rows, Samples] | None:
    """Rows of a file that is no TIFF, where there is a way to have them without the whole."""
    if image.format == "PPM":
        return _ppm_rows(path, image)
    if image.format in _STREAMED_BY_VIPS and (vips := libvips()):
        rows = VipsRows(vips, path, _kept_by_vips(image))
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


def _lazy_header(image: ImageFile.ImageFile, file: IO[bytes]) -> tuple[Header, list[str]]:
    """What a file says beside its pixels, without decoding them, and notices."""
    notices = early_notices(image, file)
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


class _PictureRows:
    """Rows of an image that is decoded."""

    any_order = True

    def __init__(self, picture: Picture) -> None:
        self._rgb, self._alpha = picture.rgb, picture.alpha
        self.row_bytes = picture.width * (3 if picture.alpha is None else 4)
        self.resident_bytes = picture.height * self.row_bytes

    def read(self, start: int, stop: int) -> Array:
        rgb = self._rgb[start:stop]
        if self._alpha is None:
            return rgb
        return np.concatenate((rgb, self._alpha[start:stop, :, None]), axis=-1)

    def close(self) -> None:
        """Let go of the pixels."""
        self._rgb, self._alpha = self._rgb[:0].copy(), None
