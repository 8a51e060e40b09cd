"""Big images written band by band, so that a killed process can go on where it was. No torch.

The file is the same, byte for byte, whether it was interrupted or not. Lossless formats hold the
pixels that :func:`sincut.files.images.write_picture` would write, JPEG decodes to the same pixels,
and profile, EXIF, resolution and GeoTIFF tags are kept in the same way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sincut.depth import NAMES
from sincut.errors import SincutError
from sincut.files.encoders import DeepZoom, Jpeg, Png, Webp, deep_zoom_folder, loaded_vips
from sincut.files.images import OUTPUT_FORMATS, check_output
from sincut.files.layout import Band, Encoded, Layout, Progress, deflated_at_most
from sincut.files.metadata import Carried
from sincut.files.partfile import Encoder, PartFile, begun
from sincut.files.tiffs import TILE, Tiff, tiles_bytes, tiles_count
from sincut.files_ import check_file, check_free

__all__ = [
    "BAND_STEP",
    "DEPTHS",
    "Encoded",
    "Layout",
    "Writer",
    "begun",
    "check",
    "depth_notice",
    "disk_bytes",
    "memory_bytes",
    "output_dtype",
]

BAND_STEP = 256  # a TIFF's tiles, and 32 of JPEG's blocks, whose markers count to 8
DEPTHS = ("auto", "8", "16", "float")
_JOURNAL_VERSION = 1
_METADATA_BYTES = 1 << 20  # an allowance for profile, EXIF and tags
# Measured: 41 bytes per pixel in libwebp; 20 to 35 MB of its own and some rows of tiles in libvips.
_WEBP_FACTOR, _BASE = 44, 64 << 20
_ENCODERS: dict[str, Callable[[Layout, Carried, bool], Encoder]] = {
    "PNG": Png,
    "JPEG": Jpeg,
    "WEBP": Webp,
    "DZI": DeepZoom,
}

# Other formats hold 8; an ending of no format is refused by `check`, not for its depth.
_HELD = {"TIFF": ("8", "16", "float"), "PNG": ("8", "16"), "": ("8", "16", "float")}
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
        SincutError: as :func:`sincut.files.images.check_output`; depth; ``.dzi`` without pyvips.
    """
    if _kind(path) != "DZI":
        check_output(path, layout.height, layout.width, alpha=layout.channels == 4)
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
        return least, most + 16 * count + _METADATA_BYTES
    if kind == "PNG":
        filtered = raw + layout.height
        bands = -(-layout.height // BAND_STEP)
        most = deflated_at_most(filtered, bands)
        chunks = layout.height + bands  # a chunk has a row or more, or ends a band
        return filtered // 1032, most + 12 * chunks + _METADATA_BYTES
    if kind == "JPEG":  # libjpeg-turbo's bound: twice the pixels of whole blocks
        blocks = -(-layout.height // 8) * -(-layout.width // 8)
        return blocks * 3 // 4, blocks * 64 * 6 + _METADATA_BYTES
    if kind == "DZI":  # of a pyramid a third is above its base; PNG tiles may not compress
        pyramid_bytes = raw * 4 // 3 * 9 // 8  # of the content, too, for the page
        return raw, raw + 2 * pyramid_bytes + _METADATA_BYTES
    return raw, 2 * raw + raw // 8 + _METADATA_BYTES


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


class Writer:
    """A big image on its way to the disk. Made by :meth:`open`; a context manager.

    Leaving it by an exception keeps what is done, if a band is done, or else removes everything.
    """

    def __init__(self, part: PartFile, encoder: Encoder, layout: Layout, band_rows: int) -> None:
        self._part, self._encoder = part, encoder
        self.layout, self.band_rows = layout, band_rows

    @staticmethod
    def open(
        target: Path,
        layout: Layout,
        carried: Carried,
        *,
        band_rows: int,
        identity: dict[str, Any],
        compression: str = "deflate",
        pyramid: bool = False,
        strip_metadata: bool = False,
        resume: bool = False,
        force: bool = False,
    ) -> Writer:
        """Begin to write ``target``, or with ``resume`` go on where a process was interrupted.

        ``band_rows`` is a multiple of ``BAND_STEP`` or at least the height. ``identity`` is what
        decides the pixels, by names that a person understands, with values that JSON can hold:
        it must be the same to go on. ``force`` starts anew where one cannot go on, and without
        ``resume`` always. Whether ``target`` itself may be overwritten is the caller's to ask.

        Raises:
            SincutError: it was begun before; begun with something else; another process writes
                it; it cannot be written.
            ValueError: ``band_rows`` or the layout's type is not allowed.
        """
        if band_rows < layout.height and (band_rows < 1 or band_rows % BAND_STEP):
            raise ValueError(f"band_rows is {band_rows}, not a multiple of {BAND_STEP}")
        if layout.dtype not in [NAMES[each] for each in _held(target)]:
            raise ValueError(f"{_kind(target)} cannot hold {layout.dtype}")
        kind = _kind(target)
        encoder: Encoder
        if kind == "TIFF":
            deflate = compression == "deflate"
            encoder = Tiff(layout, carried, strip_metadata, deflate=deflate, pyramid=pyramid)
        else:
            encoder = _ENCODERS[kind](layout, carried, strip_metadata)
        own = {
            "height": layout.height,
            "width": layout.width,
            "number of channels": layout.channels,
            "depth": _depth(layout.dtype),
            "band height": band_rows,
            "compression": compression,
            "pyramid setting": pyramid,
            "set of metadata": _digest(carried, strip_metadata),
            "version of sincut's journal": _JOURNAL_VERSION,
        }
        bands = -(-layout.height // band_rows)
        part = PartFile.open(
            target, identity | own, bands, encoder.start(), resume=resume, force=force
        )
        writer = Writer(part, encoder, layout, band_rows)
        if kind == "DZI" and not writer.done and not force:
            try:
                check_free(deep_zoom_folder(target), force=force)
            except SincutError:
                writer.discard()
                raise
        return writer

    @property
    def done(self) -> int:
        """How many bands are complete. Band i has the rows from ``i * band_rows`` on."""
        return self._part.done

    @property
    def bands(self) -> int:
        """How many bands there are."""
        return self._part.bands

    def encode(self, index: int, band: Band) -> Encoded:
        """Band ``index`` (rows, W, C) of the layout's type as it will stand in the file.

        Pure: threads may call it at once, for any bands in any order.
        """
        layout = self.layout
        rows = min(self.band_rows, layout.height - index * self.band_rows)
        if band.shape != (rows, layout.width, layout.channels) or band.dtype != layout.dtype:
            raise ValueError(
                f"band {index} is {band.shape} of {band.dtype}, expected "
                f"{(rows, layout.width, layout.channels)} of {layout.dtype}"
            )
        return self._encoder.encode(index, band)

    def append(self, encoded: Encoded) -> None:
        """Write the next band; what is done afterwards outlives the process.

        Raises:
            SincutError: it cannot be written, for example because the disk is full. The bands
                before stay good, and it may be tried again.
            ValueError: it is not the next band.
        """
        if encoded.index != self.done:
            raise ValueError(f"got band {encoded.index}, expected {self.done}")
        note = self._encoder.note(encoded, self._part.entries)
        self._part.append(encoded.pieces, note)

    def finish(self, progress: Progress | None = None) -> tuple[str, ...]:
        """Complete the file and bring it under its name; returns notices of lost metadata.

        ``progress`` is told which part of [0, 1] of this is done: smaller levels of a pyramid, or
        the encoding of formats that need the whole image.

        Raises:
            SincutError: it cannot be written. All bands are kept.
            ValueError: bands are missing.
        """
        if self.done < self.bands:
            raise ValueError(f"{self.done} of {self.bands} bands are there")
        self._encoder.finish(self._part, progress or (lambda fraction: None))
        return tuple(self._encoder.lost)

    def keep(self) -> None:
        """Stop, leaving on the disk what is needed to go on."""
        self._part.keep()

    def discard(self) -> None:
        """Stop, leaving nothing on the disk."""
        self._part.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.done:
            self.keep()
        else:
            self.discard()


def _kind(path: Path) -> str:
    ending = path.suffix.lower()
    return "DZI" if ending == ".dzi" else OUTPUT_FORMATS.get(ending, "")


def _held(path: Path) -> tuple[str, ...]:
    return _HELD.get(_kind(path), ("8",))


def _depth(dtype: np.dtype[Any]) -> str:
    return {1: "8", 2: "16"}.get(dtype.itemsize, "float") if dtype.kind == "u" else "float"


def _digest(carried: Carried, strip_metadata: bool) -> str:
    geo = sorted(dict(carried.geo or {}).items())
    kept = (carried.profile, *([] if strip_metadata else [carried.exif, carried.dpi, geo]))
    return hashlib.sha256(repr(kept).encode()).hexdigest()[:16]
