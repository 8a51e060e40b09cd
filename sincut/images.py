"""Image files ↔ arrays of sRGB, with everything that has to survive on the way. No torch.

The network sees sRGB at 8 bits. An image with another ICC profile is converted when it is read and
the output converted back into that profile, whose bytes are kept. What cannot be kept is refused
with one clear line, or told in a notice; nothing is degraded in silence.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from PIL.TiffImagePlugin import TiffImageFile

from sincut.errors import SincutError

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
LONGEST_JPEG_EXIF = 65_533  # bytes: it is one segment

# GeoTIFF: pixel scale, tie points, transformation, keys with their doubles and text; GDAL's two.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
# Of a TIFF's first directory its text and the EXIF and GPS directories describe the picture; the
# rest says how its bytes are stored, and a JPEG's EXIF may have such tags as well.
_TEXT_TAGS = (269, 270, 271, 272, 305, 306, 315, 316, 33432)
_SUBDIRECTORIES = (34665, 34853)
_BITS, _ORIENTATION, _X_RESOLUTION, _EXTRA_SAMPLES, _INTEROP = 258, 274, 282, 338, 40965
_ASCII, _SHORT, _LONG = 2, 3, 4

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

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC

# What Pillow raises on damage, found on files with some bytes changed at random.
_DAMAGE: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, LookupError)
_DAMAGE += (ArithmeticError, EOFError, struct.error, zlib.error)


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


def read_picture(path: Path, max_pixels: int = 1_000_000_000) -> Picture:
    """Decode a file. ``max_pixels`` is compared with the header before anything is decoded.

    Raises:
        SincutError: no such file, a folder, not an image, cut short, too large, more than 8 bits
            per channel, or a colour mode or ICC profile without a conversion.
    """
    try:
        with (
            _without_bomb_limit(),
            _damage_told() as damage,
            open(path, "rb") as file,
            Image.open(file, formats=INPUT_FORMATS) as image,
        ):
            _check_header(image, path, max_pixels)
            picture = _decoded(image, file, path)
    except FileNotFoundError:
        raise SincutError(f"{path} does not exist; give an image file") from None
    except IsADirectoryError:
        raise SincutError(f"{path} is a folder, not an image; give the image file") from None
    except UnidentifiedImageError:
        raise SincutError(
            f"{path} is not an image that can be read; allowed: JPEG, PNG, TIFF, WebP, BMP, GIF, "
            "PPM, of 8 bits; try another copy or one converted to PNG"
        ) from None
    except ImageCms.PyCMSError as error:
        raise SincutError(
            f"{path} has an ICC profile that does not allow the conversion to sRGB and back "
            f"({_line(error)}); try a copy converted to sRGB"
        ) from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise SincutError(
                f"cannot read {path} ({error.strerror}); check the place and its permissions"
            ) from None
        raise SincutError(
            f"{path} is broken or cut short ({_line(error)}); try another copy of the file"
        ) from None
    return replace(picture, notices=(*picture.notices, *damage))


def check_output(path: Path, height: int, width: int, alpha: bool) -> None:
    """Refuse, before the work, an output that its format or place cannot hold."""
    if path.is_dir():
        raise SincutError(f"{path} is a folder, not a file; give a file name for the output")
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
    if not path.parent.is_dir():
        raise SincutError(f"the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise SincutError(f"the folder {path.parent} must not be written to; choose another output")


def lost_metadata(path: Path, source: Picture) -> tuple[str, ...]:
    """Notices of what the format of ``path`` cannot keep of ``source``'s metadata."""
    lost = _metadata(OUTPUT_FORMATS[path.suffix.lower()], source)[2]
    return tuple(notice for notice in lost if notice not in source.notices)


def write_picture(path: Path, rgb: Pixels, source: Picture, *, strip_metadata: bool) -> None:
    """Write (H, W, 3) sRGB in ``source``'s profile, with its alpha and metadata, atomically."""
    image = Image.fromarray(rgb)
    if source.profile is not None and source.converted:
        image = _transformed(image, _SRGB, _opened_profile(source.profile))
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
        metadata, directories, _ = _metadata(kind, source)
        options |= metadata
    with write_atomically(path) as file:
        image.save(file, format=kind, **options)
        for tag, directory in directories.items():
            _append_directory(file, tag, directory)


def write_png(path: Path, rgb: Pixels) -> None:
    """Write (H, W, 3) sRGB as a plain PNG, atomically."""
    with write_atomically(path) as file:
        Image.fromarray(rgb).save(file, format="PNG")


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete and on the disk.

    It is written beside its place, flushed, and renamed; whatever fails leaves the old file as it
    was and no other behind.

    Raises:
        SincutError: it cannot be written. Trouble with another file stays an ``OSError``.
    """
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(temporary):
            raise
        raise SincutError(
            f"cannot write {path} ({error.strerror or _line(error)}); "
            "check the place and its free space"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _without_bomb_limit() -> Iterator[None]:
    """Pillow's own pixel limit off: ours is compared first, and says what to do."""
    saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = saved


@contextlib.contextmanager
def _damage_told() -> Iterator[list[str]]:
    """Pillow's warnings as notices, filled in at the end: it warns of damaged parts it skips."""
    notices: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notices
    texts = [_line(each.message) for each in caught if issubclass(each.category, UserWarning)]
    notices += [f"it is damaged in part: {text}" for text in dict.fromkeys(texts)]


def _line(problem: object) -> str:
    return " ".join(str(problem).split())


def _check_header(image: ImageFile.ImageFile, path: Path, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise SincutError(
            f"{path} has {width}×{height} = {width * height} pixels, allowed are {max_pixels}; "
            f"try --max-pixels {width * height}"
        )
    if _is_deep(image):
        raise SincutError(
            f"{path} has more than 8 bits per channel (mode {image.mode}), which is not supported "
            "yet; try an 8-bit copy"
        )


def _is_deep(opened: ImageFile.ImageFile) -> bool:
    """Whether a channel has more than 8 bits: Pillow opens such RGB as if it had 8."""
    if isinstance(opened, TiffImageFile):
        return bool(max(opened.tag_v2.get(_BITS, (1,))) > 8)
    decoding = [tile[3] for tile in opened.tile]  # the decoder's arguments
    if opened.format == "PPM" and any(
        isinstance(each, tuple) and each[1] > 255 for each in decoding
    ):
        return True
    return opened.mode[0] in "IF" or (opened.format == "PNG" and "16" in str(decoding))


def _decoded(opened: ImageFile.ImageFile, file: IO[bytes], path: Path) -> Picture:
    notices = []
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # an MPO's further frames are a camera's previews
        notices.append(f"it has {frames} images; the first is used")
    tiff = opened if isinstance(opened, TiffImageFile) else None
    if tiff and 0 in tiff.tag_v2.get(_EXTRA_SAMPLES, ()):
        notices.append("its channels beyond colour and alpha are not kept")
    if opened.format == "PNG" and opened.mode == "L" and "transparency" in opened.info:
        # Pillow brings greys of 2 and 4 bits to 8, but not the one that is transparent.
        opened.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(str(opened.tile[0][3]), 1)
    opened.load()  # this turns a TIFF upright, and only a TIFF
    tags, orientation, exif = Image.Exif(), 1, None
    try:
        tags = opened.getexif()
        orientation = tags.get(_ORIENTATION, 1)
        exif = _tiff_exif(file) if tiff else _upright_exif(opened.info)
    except _DAMAGE:
        notices.append("its EXIF is damaged and not kept")
    image: Image.Image = opened
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    if image.mode in ("P", "PA"):
        notices.append("its palette is converted to RGB")
    if image.mode == "1":
        image = image.convert("L")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert(image.mode.removesuffix("A"))
    if image.mode in ("P", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        raise SincutError(
            f"{path} has the colour mode {image.mode}, which is not supported; allowed: greyscale, "
            "RGB, palette, CMYK; try an RGB copy"
        )
    # Pillow has None for a profile that it could not unpack.
    profile = (opened.info["icc_profile"] or b"") if "icc_profile" in opened.info else None
    rgb, profile, converted, more = _to_srgb(image, profile)
    return Picture(
        rgb=np.asarray(rgb),
        alpha=alpha,
        profile=profile,
        converted=converted,
        exif=exif,
        dpi=_resolution(opened, tags),
        geo=(_copied(tiff.tag_v2, GEO_TAGS) or None) if tiff else None,
        notices=(*notices, *more),
    )


def _resolution(opened: Image.Image, tags: Image.Exif) -> tuple[float, float] | None:
    """Dots per inch across and down, where the file says so and every format can hold it."""
    # Pillow makes some up for a TIFF or a JPEG's EXIF that says nothing.
    said = opened.format in ("PNG", "BMP") or opened.info.get("jfif_unit") in (1, 2)
    if "dpi" not in opened.info or not (said or _X_RESOLUTION in tags):
        return None
    try:
        across, down = (float(value) for value in opened.info["dpi"])
    except _DAMAGE:
        return None
    return (across, down) if 1 <= across <= 65_535 and 1 <= down <= 65_535 else None


def _upright_exif(info: dict[Any, Any]) -> bytes | None:
    """The file's own EXIF block, its orientation reset and its thumbnail, no longer true, cut."""
    block = info.get("exif")
    if block is None and "Raw profile type exif" in info:  # what PNG had before its eXIf chunk
        block = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
    body = bytearray(block or b"")
    while body.startswith(b"Exif\0\0"):
        del body[:6]
    if not body:
        return None
    if not body.startswith((b"II*\0", b"MM\0*")):
        raise ValueError("no TIFF header")
    order = "<" if body[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", body, 4)
    (count,) = struct.unpack_from(f"{order}H", body, start)
    end = start + 2 + 12 * count
    for entry in range(start + 2, end, 12):
        if struct.unpack_from(f"{order}H", body, entry) == (_ORIENTATION,):
            struct.pack_into(f"{order}HIHH", body, entry + 2, _SHORT, 1, 1, 0)
    body[end : end + 4] = bytes(4)  # the thumbnail's directory would be next
    return b"Exif\0\0" + bytes(body)


def _tiff_exif(file: IO[bytes]) -> bytes | None:
    """What a TIFF file says about its picture, as an EXIF block."""
    root, directories = _directories(file)
    if not root:
        return None
    end = 8 + len(root.tobytes(8))
    bodies = b""
    for tag, directory in directories.items():
        root[tag] = end + len(bodies)
        bodies += directory.tobytes(end + len(bodies))
    return b"Exif\0\0II*\0\x08\0\0\0" + root.tobytes(8) + bodies


def _directories(file: IO[bytes]) -> tuple[Directory, dict[int, Directory]]:
    """The EXIF and GPS directories of a TIFF file or of a block's body, and before them its text
    tags with places for the offsets of the two."""
    file.seek(0)
    header = file.read(8)
    header += file.read(8) if header[2:3] == b"+" else b""  # BigTIFF
    first = Directory(header)
    file.seek(first.next)
    first.load(file)
    root = _copied(first, (tag for tag in _TEXT_TAGS if first.tagtype.get(tag) == _ASCII))
    directories = {}
    for tag in _SUBDIRECTORIES:
        if tag in first:
            directory = Directory(header, group=tag)
            file.seek(first[tag])
            directory.load(file)
            if kept := _copied(directory, set(directory) - {_INTEROP}):  # which is a mere offset
                directories[tag] = kept
                root.tagtype[tag] = _LONG
                root[tag] = 0
    return root, directories


def _copied(source: Directory, tags: Iterable[int]) -> Directory:
    """Those of the tags that there are, little-endian, with their types and text's own bytes."""
    copy = Directory()
    for tag in tags:
        if tag in source:
            value = source[tag]
            copy.tagtype[tag] = source.tagtype[tag]
            copy[tag] = value.encode("latin-1") if isinstance(value, str) else value
    return copy


def _metadata(kind: str, source: Picture) -> tuple[dict[str, Any], dict[int, Directory], list[str]]:
    """Options of ``Image.save``, directories to append to a TIFF, and notices of what is lost."""
    exif, lost = source.exif, []
    if source.geo and kind != "TIFF":
        lost.append(f"its GeoTIFF tags are not kept: {kind} cannot hold them")
    if kind == "JPEG" and len(exif or b"") > LONGEST_JPEG_EXIF:
        lost.append(f"its EXIF is not kept: JPEG can hold {LONGEST_JPEG_EXIF} bytes of it")
        exif = None
    options: dict[str, Any] = {"exif": exif} if exif else {}
    directories: dict[int, Directory] = {}
    with _damage_told() as damage:
        if source.dpi and kind != "WEBP":
            options["dpi"] = source.dpi
        elif source.dpi:
            tags = Image.Exif()
            tags.load(exif or b"")
            if _X_RESOLUTION not in tags:
                lost.append("its resolution is not kept: WEBP can hold it in EXIF only")
        if kind == "TIFF":
            root = Directory()
            try:
                if exif:
                    root, directories = _directories(io.BytesIO(options.pop("exif")[6:]))
            except _DAMAGE:
                lost.append("its EXIF is damaged and not kept")
            if source.geo:
                root.tagtype |= source.geo.tagtype
                root.update(source.geo)
            options["tiffinfo"] = root
    return options, directories, lost + damage


def _append_directory(file: IO[bytes], tag: int, directory: Directory) -> None:
    """Hang a directory behind a TIFF file, and put its offset in the place that ``tag`` has.

    Pillow's compressing TIFF encoder cannot write EXIF and GPS directories.
    """
    position = file.seek(0, os.SEEK_END)
    position += file.write(bytes(position % 2))  # they start at even offsets
    file.write(directory.tobytes(position))
    file.seek(4)
    (start,) = struct.unpack("<I", file.read(4))
    file.seek(start)
    (count,) = struct.unpack("<H", file.read(2))
    tags = [entry[0] for entry in struct.iter_unpack("<H10x", file.read(12 * count))]
    file.seek(start + 2 + 12 * tags.index(tag) + 8)
    file.write(struct.pack("<I", position))


def _to_srgb(
    image: Image.Image, profile: bytes | None
) -> tuple[Image.Image, bytes | None, bool, list[str]]:
    """The image in sRGB, the profile that the output keeps, whether it differs, and notices."""
    notices = []
    if image.mode == "CMYK":
        lost = "; its profile is not kept" if profile else ""
        notices.append(f"CMYK is converted to sRGB{lost}")
    opened = _opened_profile(profile) if profile is not None else None
    space = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[image.mode]
    if profile is not None and (opened is None or opened.profile.xcolor_space.strip() != space):
        notices.append("its ICC profile cannot be used and is not kept; sRGB is assumed")
        opened = None
    if opened is None:
        return image.convert("RGB"), None, False, notices
    if image.mode != "RGB":
        if image.mode == "L":
            notices.append("greyscale becomes sRGB; its grey profile is not kept")
        return _transformed(image, opened, _SRGB), None, False, notices
    if _is_srgb(opened):
        return image, profile, False, notices
    converted = _transformed(image, opened, _SRGB)
    notices += _clipping(image, converted, opened)
    return converted, profile, True, notices


def _opened_profile(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, TypeError):  # a TIFF may hold something else than bytes
        return None


def _transformed(image: Image.Image, source: Any, target: Any) -> Image.Image:
    result = ImageCms.profileToProfile(image, source, target, _INTENT, outputMode="RGB")
    return cast(Image.Image, result)


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether converting to sRGB would change no colour of a lattice by more than 2 of 255."""
    axis = np.arange(0, 256, 15, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(
        len(axis), -1, 3
    )
    seen = np.asarray(_transformed(Image.fromarray(lattice), profile, _SRGB))
    return int(np.abs(seen.astype(int) - lattice).max()) <= 2


def _clipping(
    original: Image.Image, converted: Image.Image, profile: ImageCms.ImageCmsProfile
) -> list[str]:
    """A notice with the share of pixels that do not come back from sRGB, on a sample of them."""
    side = (min(original.width, 512), min(original.height, 512))
    before = original.resize(side, Image.Resampling.NEAREST)
    after = _transformed(converted.resize(side, Image.Resampling.NEAREST), _SRGB, profile)
    off = np.abs(np.asarray(before).astype(int) - np.asarray(after)).max(axis=2)
    share = float((off > 4).mean())
    if share < 0.001:
        return []
    return [f"{share:.1%} of its pixels lie outside sRGB and were clipped"]
