"""What each output format can hold, and what an output of it takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from sincut.errors import SincutError
from sincut.files import check_file
from sincut.images.bit_depth import NAMES
from sincut.images.identity import is_zarr
from sincut.images.vips import loaded_vips
from sincut.images.writing.layout import Layout, deflated_at_most
from sincut.images.writing.tiff import TILE, tiles_bytes, tiles_count
from sincut.images.writing.webp import encoding_seconds

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


BAND_STEP = 256  # a TIFF's tiles, and 32 of JPEG's blocks, whose markers count to 8
DEPTHS = ("auto", "8", "16", "float")
_METADATA_BYTES = 1 << 20  # an allowance for profile, EXIF and tags
# Measured: 41 bytes per pixel in libwebp; 20 to 35 MB of its own and some rows of tiles in libvips.
_WEBP_FACTOR, _BASE = 44, 64 << 20

# Other formats hold 8; an ending of no format is refused by `check`, not for its depth.
_DEEP = ("8", "16", "float")
_HELD = {"TIFF": _DEEP, "ZARR": _DEEP, "PNG": ("8", "16"), "": _DEEP}
_SPOKEN = {"8": "8 bits per channel", "16": "16 bits per channel", "float": "floats"}


def output_dtype(path: Path, dtype: np.dtype[Any], depth: str = "auto") -> np.dtype[Any]:
    """What a file of this ending will hold for pixels of ``dtype``: uint8, uint16 or float32.

    ``depth`` is one of ``DEPTHS``; "auto" keeps as much as the format can.

    Raises:
        SincutError: the format cannot hold the depth asked for.
    """
    held = _held(path)
    if depth == "auto":
        wanted = DEPTHS.index(_depth(dtype))
        return NAMES[next(each for each in reversed(held) if DEPTHS.index(each) <= wanted)]
    if depth not in held:
        raise SincutError(
            f"{path} cannot be written: {_kind(path)} cannot hold {_SPOKEN[depth]}, at most "
            f"{_SPOKEN[held[-1]]}; try {path.with_suffix('.tif').name}"
        )
    return NAMES[depth]


def depth_notice(path: Path, dtype: np.dtype[Any]) -> str | None:
    """What depth "auto" loses of pixels of ``dtype`` in a file of this ending, or nothing."""
    given, kept = _depth(dtype), _depth(output_dtype(path, dtype))
    if given == kept:
        return None
    spoken = _SPOKEN[kept] if given == "float" else kept
    return f"{_SPOKEN[given]} become {spoken}: {_kind(path)} holds no more"


def check(path: Path, layout: Layout) -> None:
    """Refuse, before the work, an output that its format or place cannot hold.

    Raises:
        SincutError: as :func:`check_output`; depth; ``.dzi`` without pyvips.
    """
    if _kind(path) != "DZI":
        check_output(path, layout.height, layout.width, alpha=layout.alpha)
    else:
        check_file(path)
        loaded_vips(path)
    output_dtype(path, layout.dtype, _depth(layout.dtype))


def disk_bytes(
    path: Path, layout: Layout, compression: str = "deflate", pyramid: bool = False
) -> tuple[int, int]:
    """Bytes on the disk while the file is written, part file and what is made from it together.

    The first is needed for certain; the second is never passed, but by metadata above 1 MiB.
    """
    kind, raw = _kind(path), layout.raw_bytes
    if kind == "TIFF":
        tiles, count = tiles_bytes(layout, pyramid), tiles_count(layout, pyramid)
        most = tiles if compression == "none" else deflated_at_most(tiles, count)
        # Deflate makes at most 1032 bytes of one.
        least = tiles if compression == "none" else tiles // 1032
        copies = 1 + pyramid  # as the tiles come, and in order
        return copies * least, copies * (most + 24 * count + _METADATA_BYTES)
    if kind == "PNG":
        filtered = raw + layout.height
        bands = -(-layout.height // BAND_STEP)
        most = deflated_at_most(filtered, bands)
        chunks = layout.height + bands  # a chunk has a row or more, or ends a band
        return filtered // 1032, most + 12 * chunks + _METADATA_BYTES
    if kind == "JPEG":  # libjpeg-turbo's bound: twice the pixels of whole blocks
        blocks = -(-layout.height // 8) * -(-layout.width // 8)
        return blocks * 3 // 4, blocks * 64 * 6 + _METADATA_BYTES
    if kind == "ZARR":  # a level's shards are compressed like noise at the worst
        return raw // 1032, raw * 4 // 3 * 65 // 64 + _METADATA_BYTES
    if kind == "DZI":  # of a pyramid a third is above its base; PNG tiles may not compress
        pyramid_bytes = raw * 4 // 3 * 9 // 8  # of the content, too, for the page
        return raw, raw + 2 * pyramid_bytes + _METADATA_BYTES
    return raw, 2 * raw + raw // 8 + _METADATA_BYTES


def finishing_seconds(path: Path, layout: Layout) -> float:
    """About how long ``Writer.finish`` takes where it encodes the whole image."""
    return encoding_seconds(layout) if _kind(path) == "WEBP" else 0.0


def memory_bytes(path: Path, layout: Layout) -> int:
    """Bytes of memory that ``Writer.finish`` needs at most."""
    kind = _kind(path)
    if kind == "TIFF":
        tile = TILE * TILE * layout.pixel_bytes
        row = -(-layout.width // TILE) * tile
        threads = os.cpu_count() or 1
        # One row of encoded tiles; four tiles and their means in each thread; the tables.
        return _BASE // 4 + row + threads * 24 * tile + 300 * tiles_count(layout, True)
    if kind == "WEBP":
        return _WEBP_FACTOR * layout.height * layout.width
    if kind == "DZI":
        return _BASE + 6 * TILE * layout.width * layout.channels
    return 1 << 20


def is_tiff(path: Path) -> bool:
    """Whether a path has the ending of a TIFF."""
    return _kind(path) == "TIFF"


def _kind(path: Path) -> str:
    ending = path.suffix.lower()
    if is_zarr(path):
        return "ZARR"
    return "DZI" if ending == ".dzi" else OUTPUT_FORMATS.get(ending, "")


def _held(path: Path) -> tuple[str, ...]:
    return _HELD.get(_kind(path), ("8",))


def _depth(dtype: np.dtype[Any]) -> str:
    return {1: "8", 2: "16"}.get(dtype.itemsize, "float") if dtype.kind == "u" else "float"
