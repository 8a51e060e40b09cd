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
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sincut.errors import SincutError

Pixels = npt.NDArray[np.uint8]

INPUT_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
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

# GeoTIFF: pixel scale, tie points, transformation, keys with their doubles and text; GDAL's two.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
# Of a TIFF's first directory only what describes the picture, not how its bytes are stored.
_DESCRIPTIVE_TAGS = {270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853}
_ORIENTATION = 274

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright, with what its translation must carry on.

    ``rgb`` is (H, W, 3) uint8 sRGB; ``alpha`` (H, W) uint8 or absent. ``profile`` holds the bytes
    of the file's RGB profile, ``converted`` says whether it differs from sRGB. ``exif`` has its
    orientation removed. ``notices`` are lines for the person who gave the file.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    profile: bytes | None = None
    converted: bool = False
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    geo: dict[int, Any] = field(default_factory=dict)
    geo_types: dict[int, int] = field(default_factory=dict)
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
            per channel, or a colour mode without a conversion.
    """
    if path.is_dir():
        raise SincutError(f"{path} is a folder, not an image; give the image file")
    if not path.exists():
        raise SincutError(f"{path} does not exist; give an image file")
    with _without_bomb_limit():
        try:
            with Image.open(path, formats=INPUT_FORMATS) as image:
                _check_header(image, path, max_pixels)
                return _decoded(image)
        except UnidentifiedImageError:
            raise SincutError(
                f"{path} is not an image that can be read; allowed: JPEG, PNG, TIFF, WebP, BMP, "
                "GIF, PPM; try converting it to PNG"
            ) from None
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
            raise SincutError(
                f"{path} is broken or cut short ({error}); try another copy of the file"
            ) from None


def check_output(path: Path, height: int, width: int, alpha: bool) -> None:
    """Refuse, before the work, an output that its format or place cannot hold."""
    kind = OUTPUT_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SincutError(
            f"{path} has no ending of an image format; allowed: {', '.join(OUTPUT_FORMATS)}; "
            f"try {path.with_suffix('.png').name}"
        )
    if max(height, width) > LONGEST_SIDE.get(kind, height + width):
        raise SincutError(
            f"{kind} holds at most {LONGEST_SIDE[kind]} pixels a side, got {width}×{height}; "
            f"try {path.with_suffix('.tif').name}"
        )
    if alpha and kind == "JPEG":
        raise SincutError(
            "JPEG cannot hold the input's alpha channel; "
            f"try {path.with_suffix('.png').name} or {path.with_suffix('.tif').name}"
        )
    if path.is_dir():
        raise SincutError(f"{path} is a folder, not a file; give a file name for the output")
    if not path.parent.is_dir():
        raise SincutError(f"the folder {path.parent} does not exist; create it first")


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
        "WEBP": {"lossless": True},
    }
    options = per_kind[kind]
    if source.profile is not None:
        options["icc_profile"] = source.profile
    if not strip_metadata:
        if source.exif is not None:
            options["exif"] = source.exif
        if source.dpi is not None and kind != "WEBP":
            options["dpi"] = source.dpi
        if kind == "TIFF" and source.geo:
            tags = ImageFileDirectory_v2()
            for tag, value in source.geo.items():
                tags.tagtype[tag] = source.geo_types[tag]
                tags[tag] = value
            options["tiffinfo"] = tags
    with write_atomically(path) as file:
        image.save(file, format=kind, **options)


def write_png(path: Path, rgb: Pixels) -> None:
    """Write (H, W, 3) sRGB as a plain PNG, atomically."""
    with write_atomically(path) as file:
        Image.fromarray(rgb).save(file, format="PNG")


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete and on the disk.

    It is written beside its place, flushed, and renamed; whatever fails leaves the old file as it
    was and no other behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise SincutError(
            f"cannot write {path} ({error.strerror or error}); check the place and its free space"
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


def _check_header(image: Image.Image, path: Path, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise SincutError(
            f"{path} has {width}×{height} = {width * height} pixels, allowed are {max_pixels}; "
            f"try --max-pixels {width * height}"
        )
    # Pillow opens 16-bit RGB as 8-bit "RGB"; only the decoder's arguments tell.
    raw_modes = " ".join(str(tile[3]) for tile in getattr(image, "tile", []))
    deep_ppm = image.format == "PPM" and any(
        isinstance(argument, int) and argument > 255
        for tile in getattr(image, "tile", [])
        for argument in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    )
    if "16" in raw_modes or image.mode[0] in "IF" or deep_ppm:
        raise SincutError(
            f"{path} has more than 8 bits per channel (mode {image.mode}), which is not supported "
            "yet; try an 8-bit copy"
        )


def _decoded(image: Image.Image) -> Picture:
    notices = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO's further frames are a camera's previews
        notices.append(f"it has {frames} images; the first is used")
    geo, geo_types = _geo_tags(image)
    profile = image.info.get("icc_profile") or None
    dpi = image.info.get("dpi")
    image.load()
    image = ImageOps.exif_transpose(image)
    exif = _portable_exif(image)
    if image.mode in ("P", "PA"):
        notices.append("its palette is converted to RGB")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA") else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert(image.mode.removesuffix("A"))
    if image.mode in ("P", "1", "YCbCr"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        raise SincutError(
            f"its colour mode {image.mode} is not supported; allowed: greyscale, RGB, palette, "
            "CMYK; try an RGB copy"
        )
    rgb, profile, converted, more = _to_srgb(image, profile)
    return Picture(
        rgb=np.asarray(rgb),
        alpha=alpha,
        profile=profile,
        converted=converted,
        exif=exif,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
        geo=geo,
        geo_types=geo_types,
        notices=(*notices, *more),
    )


def _geo_tags(image: Image.Image) -> tuple[dict[int, Any], dict[int, int]]:
    directory = getattr(image, "tag_v2", None)
    if directory is None:
        return {}, {}
    values = {tag: directory[tag] for tag in GEO_TAGS if tag in directory}
    return values, {tag: directory.tagtype[tag] for tag in values}


def _portable_exif(image: Image.Image) -> bytes | None:
    """The upright image's EXIF without its orientation, or nothing."""
    exif = image.getexif()
    from_tiff = getattr(image, "tag_v2", None) is not None or image.format == "TIFF"
    for tag in list(exif):
        if tag == _ORIENTATION or (from_tiff and tag not in _DESCRIPTIVE_TAGS):
            del exif[tag]
    return exif.tobytes() if len(exif) else None


def _to_srgb(
    image: Image.Image, profile: bytes | None
) -> tuple[Image.Image, bytes | None, bool, list[str]]:
    """The image in sRGB, the profile that the output keeps, whether it differs, and notices."""
    notices = []
    if image.mode == "CMYK":
        notices.append("CMYK is converted to sRGB; its profile is not kept")
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
    except (OSError, ImageCms.PyCMSError):
        return None


def _transformed(image: Image.Image, source: Any, target: Any) -> Image.Image:
    try:
        result = ImageCms.profileToProfile(image, source, target, _INTENT, outputMode="RGB")
    except ImageCms.PyCMSError as error:
        raise SincutError(
            f"its ICC profile does not allow the conversion from and to sRGB ({error}); "
            "try a copy converted to sRGB"
        ) from None
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
