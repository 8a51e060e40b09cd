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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from PIL.TiffImagePlugin import TiffImageFile

from sincut.errors import SincutError
from sincut.metadata import (
    BITS,
    DAMAGE,
    EXTRA_SAMPLES,
    GEO_TAGS,
    ORIENTATION,
    append_directory,
    copied_tags,
    damage_told,
    one_line,
    resolution,
    save_options,
    tiff_exif,
    upright_exif,
)

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

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


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
            damage_told() as damage,
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
            f"({one_line(error)}); try a copy converted to sRGB"
        ) from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise SincutError(
                f"cannot read {path} ({error.strerror}); check the place and its permissions"
            ) from None
        raise SincutError(
            f"{path} is broken or cut short ({one_line(error)}); try another copy of the file"
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
    lost = save_options(OUTPUT_FORMATS[path.suffix.lower()], source.exif, source.dpi, source.geo)[2]
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
            f"cannot write {path} ({error.strerror or one_line(error)}); "
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
        return bool(max(opened.tag_v2.get(BITS, (1,))) > 8)
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
    if tiff and 0 in tiff.tag_v2.get(EXTRA_SAMPLES, ()):
        notices.append("its channels beyond colour and alpha are not kept")
    if opened.format == "PNG" and opened.mode == "L" and "transparency" in opened.info:
        # Pillow brings greys of 2 and 4 bits to 8, but not the one that is transparent.
        opened.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(str(opened.tile[0][3]), 1)
    opened.load()  # this turns a TIFF upright, and only a TIFF
    tags, orientation, exif = Image.Exif(), 1, None
    try:
        tags = opened.getexif()
        orientation = tags.get(ORIENTATION, 1)
        exif = tiff_exif(file) if tiff else upright_exif(opened.info)
    except DAMAGE:
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
        dpi=resolution(opened, tags),
        geo=(copied_tags(tiff.tag_v2, GEO_TAGS) or None) if tiff else None,
        notices=(*notices, *more),
    )


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
