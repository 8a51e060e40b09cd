"""Image files ↔ arrays of sRGB, with everything that has to survive on the way. No torch.

The network sees sRGB at 8 bits. An image with another ICC profile is converted when it is read and
the output converted back into that profile, whose bytes are kept. What cannot be kept is refused
with one clear line, or told in a notice; nothing is degraded in silence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from PIL.TiffImagePlugin import TiffImageFile

from sincut.errors import SincutError, one_line
from sincut.files.metadata import (
    BITS,
    DAMAGE,
    EXTRA_SAMPLES,
    GEO_TAGS,
    ORIENTATION,
    append_directory,
    copied_tags,
    damage_told,
    dropped_tags,
    resolution,
    save_options,
    tiff_exif,
    upright_exif,
)
from sincut.files.profiles import Colours, clipping_told, interpreted, rgb_of, sparse
from sincut.files.rows import tiff_directory
from sincut.files_ import check_file, write_atomically

Pixels = npt.NDArray[np.uint8]

INPUT_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")  # MPO comes with JPEG
OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
# The longest side each format can hold, as its Pillow encoder has it.
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
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
_REDUCED = 254  # NewSubfileType, whose lowest bit marks a smaller copy of another page
_BELOW = 330  # SubIFDs
_IPTC = 0x0404  # among Photoshop's blocks in a JPEG
_STRIP = 1 << 22  # pixels that are brought from Pillow's memory to an array at a time


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright, with what its translation must carry on.

    ``rgb`` is (H, W, 3) uint8 sRGB; ``alpha`` (H, W) uint8 or absent. ``profile`` holds the bytes
    of the file's RGB profile, ``converted`` says whether it differs from sRGB. ``exif`` is a block
    as JPEG has it, its orientation reset; ``dpi`` counts across and down; ``geo`` holds the
    GeoTIFF tags. ``notices`` are lines for the person who gave the file.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    profile: bytes | None = None
    converted: bool = False
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    geo: Directory | None = None
    notices: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Rows of the upright image."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns of the upright image."""
        return int(self.rgb.shape[1])


@dataclass(frozen=True)
class Header:
    """What a file says beside its pixels: its EXIF orientation, its profile as it stands there,
    the rest as ``Picture`` has it."""

    orientation: int
    profile: object
    exif: bytes | None
    dpi: tuple[float, float] | None
    geo: Directory | None
    notices: tuple[str, ...]


def read_picture(
    path: Path, max_pixels: int = 1_000_000_000, *, as_stored: bool = False
) -> Picture:
    """Decode a file. ``max_pixels`` is compared with the header before anything is decoded.

    With ``as_stored`` the pixels stay in the colours of ``profile`` where ``converted`` says that
    these differ from sRGB.

    Raises:
        SincutError: no such file, a folder, not an image, cut short, too large, more than 8 bits
            per channel, or a colour mode or ICC profile without a conversion.
    """
    with opened_picture(path) as (image, file, damage):
        check_size(path, image.width, image.height, max_pixels)
        if is_deep(image):
            raise SincutError(
                f"{path} has more than 8 bits per channel (mode {image.mode}), which is not "
                "supported yet; try an 8-bit copy"
            )
        picture = _decoded(image, file, path, as_stored)
    return replace(picture, notices=(*picture.notices, *damage))


@contextlib.contextmanager
def opened_picture(
    path: Path,
) -> Iterator[tuple[ImageFile.ImageFile, IO[bytes], list[str]]]:
    """A file identified by Pillow but not decoded, the file itself, and a list that holds notices
    of damage afterwards. Whatever is wrong with the file becomes a ``SincutError``."""
    with (
        reading(path),
        without_bomb_limit(),
        damage_told() as damage,
        open(path, "rb") as file,
        Image.open(file, formats=INPUT_FORMATS) as image,
    ):
        yield image, file, damage


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong with an image file, in one line.

    Raises:
        SincutError: in place of what Pillow and others raise for files that are absent, closed,
            no images or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise SincutError(f"{path} does not exist; give an image file") from None
    except IsADirectoryError:
        raise SincutError(f"{path} is a folder, not an image; give the image file") from None
    except UnidentifiedImageError:
        raise SincutError(
            f"{path} is not an image that can be read; allowed: JPEG of 8 bits, PNG, TIFF, WebP, "
            "BMP, GIF, PPM; try another copy or one converted to PNG"
        ) from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise SincutError(
                f"cannot read {path} ({error.strerror}); check the place and its permissions"
            ) from None
        raise SincutError(
            f"{path} is broken or cut short ({one_line(error)}); try another copy of the file"
        ) from None


def check_output(path: Path, height: int, width: int, alpha: bool) -> None:
    """Refuse, before the work, an output that its format or place cannot hold."""
    check_file(path)
    kind = OUTPUT_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SincutError(
            f"{path} has no ending of an image format; allowed: {', '.join(OUTPUT_FORMATS)}; "
            f"try {path.with_suffix('.png').name}"
        )
    if max(height, width) > LONGEST_SIDE.get(kind, height + width):
        raise SincutError(
            f"{path} cannot be written: {kind} holds at most {LONGEST_SIDE[kind]} pixels a side, "
            f"got {width}×{height}; try {path.with_suffix('.tif').name}"
        )
    if alpha and kind == "JPEG":
        raise SincutError(
            f"{path} cannot be written: JPEG cannot hold the input's alpha channel; "
            f"try {path.with_suffix('.png').name} or {path.with_suffix('.tif').name}"
        )


def lost_metadata(path: Path, source: Picture) -> tuple[str, ...]:
    """Notices of what the format of ``path`` cannot keep of ``source``'s metadata."""
    lost = save_options(OUTPUT_FORMATS[path.suffix.lower()], source.exif, source.dpi, source.geo)[2]
    return tuple(notice for notice in lost if notice not in source.notices)


def write_picture(path: Path, rgb: Pixels, source: Picture, *, strip_metadata: bool) -> None:
    """Write (H, W, 3) sRGB in ``source``'s profile, with its alpha and metadata, atomically."""
    image = Image.fromarray(Colours(source.profile, source.converted).from_srgb(rgb))
    if source.alpha is not None:
        image.putalpha(Image.fromarray(source.alpha))
    kind = OUTPUT_FORMATS[path.suffix.lower()]
    per_kind: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": "4:4:4"},
        "PNG": {"compress_level": 6},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "WEBP": {"lossless": True, "exact": True},  # exact: also what lies under alpha 0
    }
    options = per_kind[kind]
    if source.profile is not None:
        options["icc_profile"] = source.profile
    directories: dict[int, Directory] = {}
    if not strip_metadata:
        metadata, directories, _ = save_options(kind, source.exif, source.dpi, source.geo)
        options |= metadata
    with write_atomically(path) as file:
        image.save(file, format=kind, **options)
        for tag, directory in directories.items():
            append_directory(file, tag, directory)


def write_png(path: Path, rgb: Pixels) -> None:
    """Write (H, W, 3) sRGB as a plain PNG, atomically."""
    with write_atomically(path) as file:
        Image.fromarray(rgb).save(file, format="PNG")


@contextlib.contextmanager
def without_bomb_limit() -> Iterator[None]:
    """Pillow's own pixel limit off: ours is compared first, and says what to do."""
    saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = saved


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than ``max_pixels`` pixels."""
    if width * height > max_pixels:
        raise SincutError(
            f"{path} has {width}×{height} = {width * height} pixels, allowed are {max_pixels}; "
            f"try --max-pixels {width * height}"
        )


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


def decoding_bytes(opened: ImageFile.ImageFile) -> int:
    """Host memory that ``read_picture`` holds at its peak: Pillow's image, with what its decoder
    and a change of mode or orientation take beside it, and the arrays."""
    stored = 1 if opened.mode in ("1", "L", "P") else 4
    beside = 4 if opened.mode in ("P", "PA", "LA", "La") or opened.has_transparency_data else 0
    if opened.format == "WEBP":
        beside += 8
    if opened.info.get("progressive"):
        beside += 6  # all coefficients, of 2 bytes
    return opened.width * opened.height * (2 * stored + beside + 4)


def early_notices(opened: ImageFile.ImageFile, file: IO[bytes]) -> list[str]:
    """Notices of what is left out of a file. To be asked before it is decoded."""
    notices = []
    tiff = opened if isinstance(opened, TiffImageFile) else None
    frames = tiff_pages(file) if tiff else getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # an MPO's further frames are a camera's previews
        notices.append(f"it has {frames} images; the first is used")
    if tiff and 0 in tiff.tag_v2.get(EXTRA_SAMPLES, ()):
        notices.append("its channels beyond colour and alpha are not kept")
    info = opened.info
    dropped = dropped_tags(tiff.tag_v2) if tiff else []
    if not tiff and ("xmp" in info or "XML:com.adobe.xmp" in info):
        dropped.append("XMP")
    if not tiff and _IPTC in info.get("photoshop", {}):
        dropped.append("IPTC")
    return notices + [f"its {name} is not kept" for name in dropped]


def tiff_pages(file: IO[bytes]) -> int:
    """How many pages a TIFF has: the first, and those that are not smaller copies of another."""
    position = file.tell()
    directory, pages, seen = tiff_directory(file), 0, set[int]()
    while directory.next and directory.next not in seen:
        seen.add(directory.next)
        file.seek(directory.next)
        try:
            directory.load(file)
        except DAMAGE:  # of a page that is not used
            break
        smaller = bool(int(directory.get(_REDUCED, 0)) & 1)
        # Where the first is the smaller copy, the page itself may hang below it.
        pages += (1 + (smaller and _BELOW in directory)) if not pages else not smaller
    file.seek(position)
    return pages


def header_of(opened: ImageFile.ImageFile, file: IO[bytes]) -> Header:
    """What a file says beside its pixels. Of a PNG, to be asked when it is decoded: some of it may
    stand behind the pixels."""
    tiff = opened if isinstance(opened, TiffImageFile) else None
    tags, orientation, exif, notices = Image.Exif(), 1, None, []
    try:
        tags = opened.getexif()
        orientation = tags.get(ORIENTATION, 1)
        exif = tiff_exif(file) if tiff else upright_exif(opened.info)
    except DAMAGE:
        notices.append("its EXIF is damaged and not kept")
    return Header(
        orientation=orientation,
        # Pillow has None for a profile that it could not unpack.
        profile=(opened.info["icc_profile"] or b"") if "icc_profile" in opened.info else None,
        exif=exif,
        dpi=resolution(opened, tags),
        geo=(copied_tags(tiff.tag_v2, GEO_TAGS) or None) if tiff else None,
        notices=tuple(notices),
    )


def _decoded(opened: ImageFile.ImageFile, file: IO[bytes], path: Path, as_stored: bool) -> Picture:
    notices = early_notices(opened, file)
    if opened.format == "PNG" and opened.mode == "L" and "transparency" in opened.info:
        # Pillow brings greys of 2 and 4 bits to 8, but not the one that is transparent.
        opened.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(str(opened.tile[0][3]), 1)
    opened.load()  # this turns a TIFF upright, and only a TIFF
    header = header_of(opened, file)
    notices += header.notices
    image: Image.Image = opened
    if header.orientation in _UPRIGHT:
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
    )


def turned_dpi(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Dots per inch across and down of an image that its orientation puts upright."""
    return (dpi[1], dpi[0]) if dpi and orientation in (5, 6, 7, 8) else dpi


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


def _clipping(rgb: Pixels, colours: Colours) -> list[str]:
    """A notice of what lies outside sRGB, from a sparse sample."""
    sample = rgb[:: sparse(rgb.shape[0]), :: sparse(rgb.shape[1])]
    return clipping_told(colours.outside_srgb(sample), sample.shape[0] * sample.shape[1])
