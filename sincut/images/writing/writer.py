"""Big images written band by band, so that a killed process can go on where it was. No torch.

The file is the same, byte for byte, whether it was interrupted or not. Lossless formats hold the
pixels that Pillow would write, JPEG decodes to the same pixels, and profile, EXIF, resolution and
GeoTIFF tags are kept in the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from sincut.errors import SincutError
from sincut.files import check_free
from sincut.images.bit_depth import NAMES
from sincut.images.metadata import KeptMetadata
from sincut.images.writing.deep_zoom import DeepZoom, check_replaceable, deep_zoom_folder
from sincut.images.writing.encoder import Encoder
from sincut.images.writing.formats import BAND_STEP, _depth, _held, _kind
from sincut.images.writing.jpeg import Jpeg
from sincut.images.writing.layout import BandPixels, Encoded, Layout, Progress
from sincut.images.writing.part_file import PartFile
from sincut.images.writing.png import Png
from sincut.images.writing.tiff import Tiff
from sincut.images.writing.webp import Webp

_JOURNAL_VERSION = 2
_ENCODERS: dict[str, Callable[[Layout, KeptMetadata, bool], Encoder]] = {
    "PNG": Png,
    "JPEG": Jpeg,
    "WEBP": Webp,
    "DZI": DeepZoom,
}


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
        carried: KeptMetadata,
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
        if kind == "DZI" and not writer.done:
            try:
                check_free(deep_zoom_folder(target), force=force)
                check_replaceable(deep_zoom_folder(target))
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

    def encode(self, index: int, band: BandPixels) -> Encoded:
        """BandPixels ``index`` (rows, W, C) of the layout's type as it will stand in the file.

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


def _digest(carried: KeptMetadata, strip_metadata: bool) -> str:
    geo = sorted(dict(carried.geo or {}).items())
    kept = (
        carried.profile,
        *([] if strip_metadata else [carried.exif, carried.dpi, geo, carried.records]),
    )
    return hashlib.sha256(repr(kept).encode()).hexdigest()[:16]
