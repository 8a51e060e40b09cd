"""Slides by windows through OpenSlide: SVS, NDPI, MRXS, DICOM and their like. No torch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.errors import SincutError, one_line
from sincut.images.metadata import MICROMETRES_PER_INCH
from sincut.images.reading.extras import library
from sincut.images.reading.ome_zarr import check_level
from sincut.images.reading.samples import Samples
from sincut.images.reading.source import Header, Source, _Limits, _source, reading, unreadable
from sincut.images.records import NO_RECORDS, not_kept

Array = npt.NDArray[Any]

# Endings that only scanners use; a .tif may be a slide as well, of which other levels are read so.
SLIDE_ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm")
_CELL = 1024  # pixels
_CELLS = 64  # that are kept


class SlideRows:
    """Rows and windows of a level, put together of cells that are read once and always alike.

    Levels are rarely smaller by a whole number, and where OpenSlide begins between two pixels it
    mixes them: of windows that begin elsewhere a pixel would come out otherwise.
    """

    any_order, keeps_rows = True, False
    samples = 3

    def __init__(self, slide: Any, level: int) -> None:
        self._slide, self._level, self._lock = slide, level, threading.Lock()
        self.width, self.height = slide.level_dimensions[level]
        self._scale = slide.level_downsamples[level]
        colour = slide.properties.get("openslide.background-color", "ffffff")
        self._background = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], np.uint32)
        self.row_bytes = self.width * 3
        self.resident_bytes = _CELLS * _CELL**2 * 3 + 3 * _CELL**2 * 4
        self._cells: OrderedDict[tuple[int, int], Array] = OrderedDict()

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, 3)."""
        return self.window(start, stop, 0, self.width)

    def window(self, top: int, bottom: int, left: int, right: int) -> Array:
        """(bottom - top, right - left, 3)."""
        result = np.empty((bottom - top, right - left, 3), np.uint8)
        for y in range(top // _CELL, -(-bottom // _CELL)):
            for x in range(left // _CELL, -(-right // _CELL)):
                cell, above, before = self._cell(y, x), y * _CELL, x * _CELL
                rows = slice(max(top, above), min(bottom, above + len(cell)))
                columns = slice(max(left, before), min(right, before + cell.shape[1]))
                result[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ] = cell[
                    rows.start - above : rows.stop - above,
                    columns.start - before : columns.stop - before,
                ]
        return result

    def close(self) -> None:
        """Close the slide."""
        self._cells.clear()
        if self._slide is not None:  # OpenSlide closes no slide twice
            self._slide.close()
            self._slide = None

    def _cell(self, y: int, x: int) -> Array:
        with self._lock:
            if (y, x) in self._cells:
                self._cells.move_to_end((y, x))
                return self._cells[y, x]
            height = min(_CELL, self.height - y * _CELL)
            width = min(_CELL, self.width - x * _CELL)
            place = round(x * _CELL * self._scale), round(y * _CELL * self._scale)
            try:
                region = self._slide.read_region(place, self._level, (width, height))
            except Exception as error:  # OpenSlideError is a plain Exception
                raise ValueError(one_line(error)) from None
            cell = self._on_background(np.asarray(region))
            self._cells[y, x] = cell
            while len(self._cells) > _CELLS:
                self._cells.popitem(last=False)
            return cell

    def _on_background(self, pixels: Array) -> Array:
        """(h, w, 4) with straight alpha, which is where the scanner saw nothing, as (h, w, 3)."""
        alpha = pixels[..., 3:].astype(np.uint32)
        if (alpha == 255).all():
            return np.ascontiguousarray(pixels[..., :3])
        mixed = pixels[..., :3] * alpha + self._background * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)


def is_slide(path: Path) -> bool:
    """Whether a file has an ending that only slides have."""
    return path.suffix.lower() in SLIDE_ENDINGS


def has_openslide() -> bool:
    """Whether OpenSlide is installed."""
    try:
        return bool(library("openslide", "openslide-python", "slides", Path()))
    except SincutError:
        return False


def slide_levels(path: Path) -> int:
    """How many levels OpenSlide reads of a file; 0 where it reads none, or is not installed."""
    if not has_openslide():
        return 0
    openslide = library("openslide", "openslide-python", "slides", path)
    try:
        with openslide.OpenSlide(str(path)) as slide:
            return int(slide.level_count)
    except openslide.OpenSlideError:
        return 0


def slide_source(path: Path, limits: _Limits, level: int) -> Source:
    """A level of a slide.

    Raises:
        SincutError: OpenSlide is absent or cannot read it; it lacks the level.
    """
    openslide = library("openslide", "openslide-python", "slides", path)
    try:
        slide = openslide.OpenSlide(str(path))
    except openslide.OpenSlideUnsupportedFormatError:
        if level:
            raise SincutError(
                f"{path} has no levels that OpenSlide reads, got level {level}; try level 0"
            ) from None
        if _is_dicom(path):
            raise SincutError(
                f"{path} is DICOM, but no slide, the only kind of it that is read; try a copy as "
                "PNG or TIFF"
            ) from None
        raise SincutError(
            f"{path} is no slide that OpenSlide reads; try a copy as a TIFF in tiles"
        ) from None
    except openslide.OpenSlideError as error:
        raise unreadable(path, error) from None
    try:
        check_level(path, level, slide.level_count)
        rows = SlideRows(slide, level)
        icc = slide.color_profile
        profile = icc.tobytes() if icc is not None else None
        others = [f"{name} image" for name in slide.associated_images]
        dpi = _dpi(slide, level)
    except BaseException:
        slide.close()
        raise
    notices = not_kept(others)
    header = Header(1, profile, None, dpi, None, (), NO_RECORDS)
    size = (rows.height, rows.width)
    return _source(path, rows, Samples("RGB"), size, header, notices, [], limits)


def _is_dicom(path: Path) -> bool:
    with reading(path), open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _dpi(slide: Any, level: int) -> tuple[float, float] | None:
    """Dots per inch across and down, where the slide says how many micrometres a pixel has."""
    try:
        sizes = [float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
    except (LookupError, ValueError):
        return None
    if not all(size > 0 for size in sizes):
        return None
    across, down = (
        MICROMETRES_PER_INCH / (size * slide.level_downsamples[level]) for size in sizes
    )
    return across, down
