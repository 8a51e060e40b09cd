"""Images that Pillow decodes whole, with everything that has to survive on the way. No torch.

The network sees sRGB at 8 bits. An image with another ICC profile is converted when it is read and
the output converted back into that profile, whose bytes are kept. What cannot be kept is refused
with one clear line, or told in a notice; nothing is degraded in silence.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from sincut.errors import SincutError, one_line
from sincut.images.metadata import (
    BITS,
    DAMAGE,
    EXTRA_SAMPLES,
    ORIENTATION,
    damage_told,
    orientation_of,
    resolution,
    upright_exif,
)
from sincut.images.profiles import Colours, clipping_told, interpreted, rgb_of, sparse
from sincut.images.reading.asked import ranged
from sincut.images.reading.jpeg import load_whole
from sincut.images.reading.pages import Pages, pages_of
from sincut.images.reading.rows import TURNS
from sincut.images.reading.samples import Samples
from sincut.images.reading.source import (
    Array,
    Header,
    Picture,
    Pixels,
    Source,
    _Limits,
    _too_much,
    check_size,
    reading,
    turned_dpi,
    turned_records,
)
from sincut.images.reading.stated import (
    Stated,
    bmp_colours,
    exif_colours,
    png_colours,
    refuse_hdr,
)
from sincut.images.reading.tiff_header import tiff_header
from sincut.images.records import (
    Chunks,
    not_kept,
    png_chunks,
    records_of,
    without_impostors,
)
from sincut.images.vips import _STREAMED_BY_VIPS, libvips


def _decoded_source(path: Path, limits: _Limits, opened: Opened) -> Source:
    """A source that is decoded at once. ``opened`` is its header.

    Raises:
        SincutError: it takes more memory than allowed, or what ``decode_picture`` raises.
    """
    if not fits(opened, limits):
        image, needed = opened.image, decoding_bytes(opened)
        extra = image.format in _STREAMED_BY_VIPS and not libvips()
        others = "pip install 'sincut[big]', a TIFF copy, " if extra else "a TIFF copy, "
        size = (image.height, image.width)
        raise _too_much(path, size, needed, limits.max_memory, others, limits.held)
    picture = decode_picture(path, limits.max_pixels, as_stored=True)
    layout = Samples("RGB", picture.alpha is not None)
    colours = Colours(picture.profile, picture.converted)
    colours, notices = ranged(path, colours, layout, limits.asked)
    return Source(
        path,
        _PictureRows(picture),
        layout,
        (picture.height, picture.width),
        picture.carried,
        colours,
        (*picture.notices, *notices),
        picture if colours.range is None else None,  # what a range clips is seen in its rows
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


INPUT_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")  # MPO comes with JPEG

# EXIF orientation to what turns the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TEXT = 64 << 20  # bytes that a PNG's profile or text may have when it is inflated
_LIBTIFF = re.compile(r"[\w.-]+: .*\.$")  # a line of its
_STRIP = 1 << 18  # pixels that are brought from Pillow's memory to an array at a time
_STRIP_BYTES = 24  # for each of them, measured
_LITTLE = 16_000_000  # bytes


def decode_picture(
    path: Path, max_pixels: int = 1_000_000_000, *, as_stored: bool = False
) -> Picture:
    """Decode a file. ``max_pixels`` is compared with the header before anything is decoded.

    With ``as_stored`` the pixels stay in the colours of ``profile`` where ``converted`` says that
    these differ from sRGB.

    Raises:
        SincutError: no such file, a folder, not an image, cut short, too large, more than 8 bits
            per channel, or a colour mode or ICC profile without a conversion.
    """
    with opened_picture(path) as opened:
        image = opened.image
        check_size(path, image.width, image.height, max_pixels)
        if is_deep(image):
            raise SincutError(
                f"{path} has more than 8 bits per channel (mode {image.mode}), which is not "
                "supported yet; try an 8-bit copy"
            )
        picture = _decoded(opened, path, as_stored)
    return replace(picture, notices=(*picture.notices, *opened.damage))


@dataclass(frozen=True)
class Opened:
    """A file that Pillow identified and did not decode: its ``image``, the ``file`` itself, a
    TIFF's ``pages``, and a list that holds notices of ``damage`` afterwards."""

    image: ImageFile.ImageFile
    file: IO[bytes]
    pages: Pages | None
    damage: list[str]


@contextlib.contextmanager
def opened_picture(path: Path) -> Iterator[Opened]:
    """A file to look at. Whatever is wrong with it becomes a ``SincutError``."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it goes to stderr
    with (
        reading(path),
        _texts_bounded(path),
        without_bomb_limit(),
        damage_told() as damage,
        open(path, "rb") as file,
        Image.open(file, formats=INPUT_FORMATS) as image,
    ):
        if image.format == "PNG":
            refuse_hdr(path, png_chunks(file))
            without_impostors(image)
        pages = pages_of(file) if image.format == "TIFF" else None
        if pages and pages.number:
            image.seek(pages.number)
        yield Opened(image, file, pages, damage)


@contextlib.contextmanager
def _texts_bounded(path: Path) -> Iterator[None]:
    """A PNG with more text than is read is not broken."""
    try:
        yield
    except ValueError as error:
        if "MAX_TEXT" not in str(error) and "text chunks" not in str(error):
            raise
        raise SincutError(
            f"{path} has a profile or texts of more than {_TEXT >> 20} MiB, which are not read; "
            "try a copy without them"
        ) from None


@contextlib.contextmanager
def heard(lines_of_its: re.Pattern[str]) -> Iterator[None]:
    """What a library prints on standard error, instead of failing, as a ``ValueError``."""
    with tempfile.TemporaryFile() as lines:
        try:
            saved = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        with contextlib.suppress(AttributeError, OSError, ValueError):  # nobody listens there
            sys.stderr.flush()
        os.dup2(lines.fileno(), 2)
        failed: OSError | None = None
        try:
            yield
        except OSError as error:  # of which the line says more
            failed = error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            lines.seek(0)
            told = lines.read().decode(errors="replace").splitlines(keepends=True)
            own = [line for line in told if lines_of_its.match(line)]
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.write("".join(line for line in told if line not in own))
    if own:
        raise ValueError(one_line(own[0].rstrip(".\n")))
    if failed:
        raise failed


@contextlib.contextmanager
def without_bomb_limit() -> Iterator[None]:
    """Pillow's own pixel limit off: ours is compared first, and says what to do. Its limits of a
    PNG's profile and texts, 1 MiB each, raised."""
    saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _TEXT, 4 * _TEXT
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = saved
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def is_deep(opened: ImageFile.ImageFile) -> bool:
    """Whether a channel has more than 8 bits: Pillow opens such RGB as if it had 8."""
    if isinstance(opened, TiffImageFile):
        return bool(max(opened.tag_v2.get(BITS, (1,))) > 8)
    decoding = [tile[3] for tile in opened.tile]  # the decoder's arguments
    if opened.format == "PPM" and any(
        isinstance(each, tuple) and each[1] > 255 for each in decoding
    ):
        return True
    return opened.mode[0] in "IF" or (opened.format == "PNG" and "16" in str(decoding))


def fits(opened: Opened, limits: _Limits) -> bool:
    """Whether the memory allows to decode it at once. What takes little is decoded anyhow: the plan
    of the whole translation says what is enough for all."""
    little = min(_LITTLE, limits.stream_above)
    return decoding_bytes(opened) <= max(limits.max_memory, little)


def decoding_bytes(opened: Opened) -> int:
    """Host memory that ``decode_picture`` holds at its peak: Pillow's image, with what its decoder
    and a change of orientation or mode take beside it, and the arrays."""
    image = opened.image
    stored = 1 if image.mode in ("1", "L", "P") else 4
    decoder = {"WEBP": 13, "TIFF": len(image.getbands())}.get(image.format or "", 0)
    if image.info.get("progressive"):
        decoder = 2 * len(image.getbands())  # all coefficients
    if image.format == "PPM" and not image.tile[0][0].startswith("raw"):
        decoder = 4 * len(image.getbands())
    kept = 8 if image.format == "WEBP" else 0  # until the file is closed
    turned = stored if _is_turned(opened) else 0
    seen = image.has_transparency_data or image.mode == "La"
    changed = 1 if image.mode == "1" else 4 if seen or image.mode in ("P", "PA", "YCbCr") else 0
    masked = 3 if opened.pages and opened.pages.mask is not None else 0
    arrays = 3 + seen + masked
    most = max(decoder, kept + turned + changed, kept + (changed or turned) + arrays)
    # WebP's bytes are read, a JPEG's are mapped into memory, and those of several scans copied.
    copies = {"WEBP": 1, "JPEG": 3, "MPO": 3}.get(image.format or "", 0)
    file = copies * os.fstat(opened.file.fileno()).st_size
    pixels = image.width * image.height
    return pixels * (stored + most) + _STRIP_BYTES * min(pixels, _STRIP) + file


def _is_turned(opened: Opened) -> bool:
    """Whether its orientation turns it, as far as is known before it is decoded."""
    if opened.pages:
        return orientation_of(opened.pages.tags) in TURNS
    # A PNG that says nothing before its pixels would be decoded to be asked.
    if opened.image.format == "PNG" and "exif" not in opened.image.info:
        return False
    try:
        return opened.image.getexif().get(ORIENTATION) in TURNS
    except DAMAGE:
        return False


def early_notices(opened: Opened) -> list[str]:
    """Notices of what is left out of a file that is no TIFF. To be asked before it is decoded."""
    frames = getattr(opened.image, "n_frames", 1)
    if frames > 1 and opened.image.format != "MPO":  # its further frames are a camera's previews
        return [f"it has {frames} images; the first is used"]
    return []


def header_of(image: ImageFile.ImageFile, file: IO[bytes]) -> Header:
    """What a file that is no TIFF says beside its pixels. Of a PNG, to be asked when it is decoded:
    some of it may stand behind the pixels."""
    tags, orientation, exif, notices = Image.Exif(), 1, None, []
    if image.format == "PNG":
        without_impostors(image)  # those behind the pixels
    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)
        exif = upright_exif(image.info)
    except DAMAGE:
        notices.append("its EXIF is damaged and not kept")
    chunks = png_chunks(file) if image.format == "PNG" else ()
    profile, told = _profile_of(image, file, tags, chunks)
    records, lost = records_of(image, file, chunks)
    return Header(
        orientation=orientation,
        profile=profile,
        exif=exif,
        dpi=resolution(image, tags),
        geo=None,
        notices=(*notices, *told, *not_kept(lost)),
        records=records,
    )


def _profile_of(
    opened: ImageFile.ImageFile, file: IO[bytes], tags: Image.Exif, chunks: Chunks
) -> Stated:
    """The file's ICC profile, or one of what it states of its colours otherwise; notices."""
    grey = opened.mode[0] in "1LIF"
    # Pillow has None for a profile that it could not unpack.
    own = (opened.info["icc_profile"] or b"") if "icc_profile" in opened.info else None
    if opened.format == "PNG" and (stated := png_colours(chunks, grey)):
        return stated
    if own is not None or opened.mode == "CMYK":
        return own, []
    if opened.format == "BMP":
        return bmp_colours(file)
    try:
        return (None, []) if grey else exif_colours(tags.get_ifd(34665), tags.get_ifd(40965))
    except DAMAGE:
        return None, []


def _decoded(it: Opened, path: Path, as_stored: bool) -> Picture:
    opened, file, pages = it.image, it.file, it.pages
    notices = [] if pages else early_notices(it)
    if opened.format == "PNG" and opened.mode == "L" and "transparency" in opened.info:
        # Pillow brings greys of 2 and 4 bits to 8, but not the one that is transparent.
        opened.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(str(opened.tile[0][3]), 1)
    if opened.format in ("JPEG", "MPO"):
        load_whole(opened, file)
    elif isinstance(opened, TiffImageFile):
        with heard(_LIBTIFF):
            opened.load()  # which turns it upright
    else:
        opened.load()
    if pages:
        beyond = 0 in getattr(opened, "tag_v2", {}).get(EXTRA_SAMPLES, ())
        header = tiff_header(file, pages, grey=opened.mode[0] in "1LIF", beyond=beyond)
    else:
        header = header_of(opened, file)
    notices += header.notices
    image: Image.Image = opened
    if header.orientation in _UPRIGHT and opened.format != "TIFF":
        image = image.transpose(_UPRIGHT[header.orientation])
    if image.mode in ("P", "PA"):
        notices.append("its palette is converted to RGB")
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
    if image.mode in ("P", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise SincutError(
            f"{path} has the colour mode {image.mode}, which is not supported; allowed: greyscale, "
            "RGB, palette, CMYK; try an RGB copy"
        )
    colours, device, more = interpreted(
        path, header.profile, image.mode.removesuffix("A"), np.uint8
    )
    rgb, alpha = _arrays(image, device)
    if pages and pages.mask is not None:
        alpha = _mask_of(file, pages.mask, header.orientation)
    notices += more
    notices += _clipping(rgb, colours)
    return Picture(
        rgb=rgb if as_stored else colours.to_srgb(rgb),
        alpha=alpha,
        profile=colours.profile,
        converted=colours.converted,
        exif=header.exif,
        dpi=turned_dpi(header.dpi, header.orientation),
        geo=header.geo,
        notices=tuple(notices),
        records=turned_records(header.records, header.orientation),
    )


def _arrays(image: Image.Image, device: bytes | None) -> tuple[Pixels, Pixels | None]:
    """Colours and alpha of an image of the mode L, LA, RGB, RGBA or CMYK. In strips: all at once
    would take the image's memory three times."""
    mode = image.mode.removesuffix("A")
    bands = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    alpha = np.empty(rgb.shape[:2], np.uint8) if image.mode != mode else None
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = np.asarray(image.crop((0, top, image.width, bottom)))
        strip = strip.reshape(*strip.shape[:2], -1)
        colour = strip[..., :bands]
        rgb[top:bottom] = colour if mode == "RGB" else rgb_of(colour, mode, device)
        if alpha is not None:
            alpha[top:bottom] = strip[..., -1]
    return rgb, alpha


def _mask_of(file: IO[bytes], number: int, orientation: int) -> Pixels:
    """The page of a TIFF that is the transparency of its image, as (H, W) alpha, upright."""
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        seen = tiff.pages[number].asarray() > 0
    turned = TURNS[orientation](seen) if orientation in TURNS else seen
    return np.ascontiguousarray(turned) * np.uint8(255)


def _clipping(rgb: Pixels, colours: Colours) -> list[str]:
    """A notice of what lies outside sRGB, from a sparse sample."""
    sample = rgb[:: sparse(rgb.shape[0]), :: sparse(rgb.shape[1])]
    return clipping_told(colours.outside_srgb(sample), sample.shape[0] * sample.shape[1])
