"""ICC profiles: between a file's own colours and sRGB, pixel by pixel, at any depth. No torch.

Eight bits go through Pillow's littleCMS. Pillow has no deep RGB, so ``uint16`` and ``float32`` go
through that of imagecodecs, an extra package; without it only they are refused, and only where
there is something to convert. Both convert relative colorimetrically.
"""

from __future__ import annotations

import functools
import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from sincut.errors import SincutError, one_line

Array = npt.NDArray[Any]

_SRGB = ImageCms.createProfile("sRGB")
_SRGB_BYTES = ImageCms.ImageCmsProfile(_SRGB).tobytes()
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
# Pixels at a time: Pillow takes four bytes for each, imagecodecs a millisecond to start.
_BLOCK = 1 << 20
# What colours count as outside sRGB: they come back from it changed by more than this, of 1.
_CHANGED = 4 / 255


@dataclass(frozen=True)
class Colours:
    """How a file's RGB becomes sRGB and back.

    ``profile`` holds the bytes of the profile that the output keeps; ``converted`` says whether it
    differs from sRGB. Without one, the file's colours are taken for sRGB. ``range`` holds the
    file's values that are black and white, where these are not all that their type holds. Both
    ways work on each pixel by itself, and in several threads at once.
    """

    profile: bytes | None = None
    converted: bool = False
    range: tuple[float, float] | None = None

    @property
    def apart(self) -> bool:
        """Whether sRGB differs from what the file has."""
        return self.converted or self.range is not None

    def to_srgb(self, pixels: Array) -> Array:
        """(..., 3) ``uint8``, ``uint16`` or ``float32`` in [0, 1], of the file, to sRGB of the
        same kind. What lies outside sRGB or the range is clipped, of floats only where they are
        converted; a float pixel with a NaN becomes NaN."""
        pixels = self.spread(pixels)
        return _converted(pixels, self.profile, None) if self.converted else pixels

    def from_srgb(self, pixels: Array) -> Array:
        """The way back, of the same kinds."""
        if self.converted:
            pixels = _converted(pixels, None, self.profile)
        return pixels if self.range is None else _gathered(pixels, *self.range)

    def spread(self, pixels: Array) -> Array:
        """The file's values with its range on all that their type holds, of floats on 0 to 1."""
        return pixels if self.range is None else _spread(pixels, *self.range)

    def outside_srgb(self, pixels: Array) -> int:
        """How many pixels of (..., 3) change when they go to sRGB and back."""
        if not self.converted or not pixels.size:
            return 0
        pixels = self.spread(pixels)
        back = _converted(_converted(pixels, self.profile, None), None, self.profile)
        most = _CHANGED * (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1)
        off = np.abs(pixels.astype(np.float64) - back) > most
        return int(off.any(axis=-1).sum())


def _spread(pixels: Array, low: float, high: float) -> Array:
    if pixels.dtype.kind == "u":
        return np.asarray(_tables(pixels.dtype, low, high)[0][pixels])
    return ((pixels - np.float64(low)) / (high - low)).astype(pixels.dtype)


def _gathered(pixels: Array, low: float, high: float) -> Array:
    if pixels.dtype.kind == "u":
        return np.asarray(_tables(pixels.dtype, low, high)[1][pixels])
    return (pixels * np.float64(high - low) + low).astype(pixels.dtype)


@functools.lru_cache(maxsize=8)
def _tables(dtype: np.dtype[Any], low: float, high: float) -> tuple[Array, Array]:
    """What each value of an integer type becomes when a range is spread, and the way back. There
    and back again gives every whole number of the range itself."""
    top = np.iinfo(dtype).max
    values = np.arange(top + 1, dtype=np.float64)
    there = ((values - low) * (top / (high - low))).clip(0, top).round().astype(dtype)
    back = (low + values * ((high - low) / top)).clip(0, top).round().astype(dtype)
    return there, back


def interpreted(
    path: Path, profile: object, mode: str, dtype: npt.DTypeLike
) -> tuple[Colours, bytes | None, list[str]]:
    """What to do about a file's profile: its colours as RGB, the profile by which ``rgb_of`` makes
    them from grey or CMYK, and notices.

    Args:
        path: the file, for messages.
        profile: what the file holds as its profile, or None. A damaged file may hold no bytes.
        mode: ``RGB``, ``L`` or ``CMYK``.
        dtype: what its samples become, ``uint8``, ``uint16`` or ``float32``.

    Raises:
        SincutError: a profile without a way back, or one that needs an absent package.
    """
    notices = []
    if mode == "CMYK":
        lost = "; its profile is not kept" if profile else ""
        notices.append(f"CMYK is converted to sRGB{lost}")
    if profile is None:
        return Colours(), None, notices
    space = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[mode]
    opened = _opened(profile)
    if not isinstance(profile, bytes) or opened is None or _space(opened) != space:
        notices.append("its ICC profile cannot be used and is not kept; sRGB is assumed")
        return Colours(), None, notices
    deep = np.dtype(dtype) != np.uint8
    try:
        if mode != "RGB":
            _transform(profile, None, mode)
            if mode == "L":
                notices.append("greyscale becomes sRGB; its grey profile is not kept")
            if deep:
                _require_imagecodecs(path, dtype)
            return Colours(), profile, notices
        if is_like_srgb(profile):
            return Colours(profile), None, notices
        _transform(None, profile, "RGB")
    except ImageCms.PyCMSError as error:
        raise SincutError(
            f"{path} has an ICC profile that does not allow the conversion to sRGB and back "
            f"({one_line(error)}); try a copy converted to sRGB"
        ) from None
    if deep:
        _require_imagecodecs(path, dtype)
    return Colours(profile, converted=True), None, notices


def require_depth(path: Path, colours: Colours, dtype: npt.DTypeLike) -> None:
    """Refuse an output of ``dtype`` in these colours where the package for it is absent.

    Raises:
        SincutError: one line about the output at ``path``.
    """
    if colours.converted and np.dtype(dtype) != np.uint8 and not has_imagecodecs():
        raise SincutError(
            f"{path} gets more than 8 bits per channel in colours other than sRGB, which "
            "takes an extra package; try pip install 'sincut[big]' or --depth 8"
        )


def has_imagecodecs() -> bool:
    """Whether the extra package is installed that deep profiles and rarer compressions take."""
    try:
        importlib.import_module("imagecodecs")
    except ImportError:
        return False
    return True


def rgb_of(pixels: Array, mode: str, device: bytes | None) -> Array:
    """(..., 1) grey or (..., 4) CMYK of any kind to (..., 3) sRGB of the same kind, by the profile
    that ``interpreted`` gave. CMYK has 8 bits."""
    if device is not None:
        return _converted(pixels, device, None, mode)
    if mode == "L":
        return np.repeat(pixels, 3, axis=-1)
    return _in_blocks(
        pixels, lambda block: np.asarray(Image.fromarray(block[None], "CMYK").convert("RGB"))[0]
    )


def _space(opened: ImageCms.ImageCmsProfile) -> str:
    return str(opened.profile.xcolor_space).strip()


def _opened(profile: object) -> ImageCms.ImageCmsProfile | None:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))  # type: ignore[arg-type]
    except (OSError, TypeError):  # a TIFF may hold something else than bytes
        return None


def _require_imagecodecs(path: Path, dtype: npt.DTypeLike) -> None:
    if not has_imagecodecs():
        depth = "16 bits" if np.dtype(dtype).kind == "u" else "float values"
        raise SincutError(
            f"{path} has {depth} per channel and colours other than sRGB, which takes an "
            "extra package; try pip install 'sincut[big]' or a copy converted to sRGB"
        )


@functools.lru_cache(maxsize=16)
def _transform(source: bytes | None, target: bytes | None, mode: str) -> Any:
    """Pillow's transform of 8 bits; None stands for sRGB. littleCMS lets threads share it."""
    ends: list[Any] = [_SRGB if data is None else _opened(data) for data in (source, target)]
    return ImageCms.buildTransform(ends[0], ends[1], mode, "RGB", _INTENT)


def is_like_srgb(profile: bytes) -> bool:
    """Whether converting to sRGB would change no colour of a lattice by more than 2 of 255."""
    axis = np.arange(0, 256, 15, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    seen = _converted(lattice, profile, None)
    return bool(np.abs(seen.astype(int) - lattice).max() <= 2)


def _converted(
    pixels: Array, source: bytes | None, target: bytes | None, mode: str = "RGB"
) -> Array:
    if pixels.dtype == np.uint8:
        transform = _transform(source, target, mode)
        grey = mode == "L"

        def eight(block: Array) -> Array:
            image = Image.fromarray(block[None, :, 0] if grey else block[None], mode)
            return np.asarray(np.asarray(transform.apply(image))[0])

        return _in_blocks(pixels, eight)

    codecs = importlib.import_module("imagecodecs")

    def deep(block: Array) -> Array:
        lost = np.asarray(np.isnan(block).any(axis=-1))
        if block.dtype.kind == "f":
            block = np.where(lost[:, None], np.float32(0), block.clip(0, 1))
        result = codecs.cms_transform(
            block[None, :, 0] if mode == "L" else block[None],
            _SRGB_BYTES if source is None else source,
            _SRGB_BYTES if target is None else target,
            colorspace="gray" if mode == "L" else "rgb",
            outcolorspace="rgb",
            outdtype=block.dtype,
            intent=int(_INTENT),
            # Otherwise 16 bits go through a table of 33 steps, off by 10 of 255 in the dark.
            flags=codecs.CMS.FLAGS.NOOPTIMIZE,
        )[0]
        if block.dtype.kind == "f":
            result = result.clip(0, 1)
            result[lost] = np.nan
        return np.asarray(result)

    return _in_blocks(pixels, deep)


def _in_blocks(pixels: Array, function: Any) -> Array:
    """``function`` of (n, C) to (n, 3), over any number of leading dimensions."""
    flat = np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-1])
    result = np.empty((len(flat), 3), pixels.dtype)
    for start in range(0, len(flat), _BLOCK):
        result[start : start + _BLOCK] = function(flat[start : start + _BLOCK])
    return result.reshape(*pixels.shape[:-1], 3)


def sparse(side: int) -> int:
    """The step that takes about 512 samples along a side."""
    return max(1, side // 512)


def clipping_told(outside: int, seen: int) -> list[str]:
    """A notice of the share of a sample's pixels that lie outside sRGB, where there are some."""
    if outside < 0.001 * max(1, seen):
        return []
    return [f"{outside / seen:.1%} of its pixels lie outside sRGB and were clipped"]
