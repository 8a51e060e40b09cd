"""A source: an image of any size and depth, read by rows from top to bottom. No torch.

What would take more memory than allowed is refused before it is decoded.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.errors import SincutError, one_line
from sincut.images.geo import cropped_geo, nodata_of
from sincut.images.metadata import DAMAGE, KeptMetadata
from sincut.images.profiles import Colours, interpreted
from sincut.images.reading.asked import AS_STORED, AskedValues, Region, ranged
from sincut.images.reading.rows import Rows, Turned, Windows, upright
from sincut.images.reading.samples import Samples, Seen
from sincut.images.records import NO_RECORDS, Records

_UNSUPPORTED = re.compile(r"\b(unsupported|not supported)\b", re.IGNORECASE)

# --------------------------------------------------------------------------------- the kinds


def _source(
    path: Path,
    rows: Rows,
    layout: Samples,
    size: tuple[int, int],
    header: Header,
    notices: list[str],
    damage: list[str],
    limits: _Limits,
) -> Source:
    """A source of rows as they are stored, which it closes where it refuses them."""
    try:
        rows, upright_size = upright(rows, size, header.orientation)
        if isinstance(rows, Turned) and rows.resident_bytes > limits.max_memory:
            raise SincutError(
                f"{path} is turned by its orientation {header.orientation}: its "
                f"{size[1]}×{size[0]} pixels take {_amount(rows.resident_bytes)} of memory to "
                f"turn{_allowed(limits.max_memory, limits.held)}; try a copy turned upright or "
                f"--max-memory {_amount(rows.resident_bytes + limits.held, up=True)}"
            )
        colours, device, more = interpreted(path, header.profile, layout.mode, layout.dtype)
        layout = replace(layout, device=device)
        colours, of_range = ranged(path, colours, layout, limits.asked)
    except SincutError:
        rows.close()
        raise
    return Source(
        path,
        rows,
        layout,
        upright_size,
        KeptMetadata(
            colours.profile,
            header.exif,
            turned_dpi(header.dpi, header.orientation),
            header.geo,
            turned_records(header.records, header.orientation),
        ),
        colours,
        (*notices, *more, *of_range, *damage),
    )


Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright, with what its translation must carry on.

    ``rgb`` is (H, W, 3) uint8 sRGB; ``alpha`` (H, W) uint8 or absent. ``profile`` holds the bytes
    of the file's RGB profile, ``converted`` says whether it differs from sRGB. ``exif`` is a block
    as JPEG has it, its orientation reset; ``dpi`` counts across and down; ``geo`` holds the
    GeoTIFF tags, ``records`` what stands beside EXIF. ``notices`` are lines for the person who
    gave the file. ``range`` holds the values, of the type ``kind``, that became black and white
    where that was asked.
    """

    rgb: Pixels
    alpha: Pixels | None = None
    profile: bytes | None = None
    converted: bool = False
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    geo: Directory | None = None
    notices: tuple[str, ...] = ()
    records: Records = NO_RECORDS
    range: tuple[float, float] | None = None
    kind: str = "uint8"

    @property
    def carried(self) -> KeptMetadata:
        """What its translation carries."""
        return KeptMetadata(self.profile, self.exif, self.dpi, self.geo, self.records)

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
    records: Records


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong with an image file, in one line.

    Raises:
        SincutError: in place of what Pillow and others raise for files that are absent, closed,
            no images or damaged; and of what is no file.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # it would wait for ever
            raise SincutError(f"{path} is a pipe or a device, not a file; give an image file")
        yield
    except FileNotFoundError:
        raise SincutError(f"{path} does not exist; give an image file") from None
    except IsADirectoryError:
        raise SincutError(f"{path} is a folder, not an image; give the image file") from None
    except UnidentifiedImageError:
        raise SincutError(
            f"{path} is not an image that can be read; allowed: JPEG of 8 bits, PNG, TIFF, "
            "WebP, JPEG 2000, HEIC, AVIF, camera raw, BMP, GIF, PPM; try another copy or one "
            "converted to PNG"
        ) from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise SincutError(
                f"cannot read {path} ({error.strerror}); check the place and its permissions"
            ) from None
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> SincutError:
    """What a library says of a file that it cannot read: it is damaged, or it is whole, and of a
    kind that the library lacks."""
    words = one_line(error)
    if _UNSUPPORTED.search(words):
        return SincutError(
            f"{path} is of a kind that is not supported ({words}); try a copy as PNG or TIFF"
        )
    return SincutError(f"{path} is broken or cut short ({words}); try another copy of the file")


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than ``max_pixels`` pixels."""
    if width * height > max_pixels:
        raise SincutError(
            f"{path} has {width}×{height} = {width * height} pixels, allowed are {max_pixels}; "
            f"try --max-pixels {width * height}"
        )


def check_region(path: Path, width: int, height: int, region: Region) -> None:
    """Refuse a region that reaches beyond an image of that size."""
    bottom, right = region.top + region.height, region.left + region.width
    if bottom > height or right > width:
        raise SincutError(
            f"{path} has {width}×{height} pixels, and the region reaches to row {bottom} and "
            f"column {right}; try one within the image"
        )


def turned_dpi(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Dots per inch across and down of an image that its orientation puts upright."""
    return (dpi[1], dpi[0]) if dpi and orientation in (5, 6, 7, 8) else dpi


def turned_records(records: Records, orientation: int) -> Records:
    """Records of an image that its orientation puts upright."""
    if records.aspect is None or orientation not in (5, 6, 7, 8):
        return records
    return replace(records, aspect=records.aspect[::-1])


Array = npt.NDArray[Any]


class Source:
    """An image that is read in rows from top to bottom, or, where ``by_window``, in any windows.

    ``height`` and ``width`` are those of the upright image. ``dtype`` is ``uint8``, ``uint16`` or
    ``float32``. ``channels`` are RGB, straight alpha where there is ``alpha``, and then so many
    ``others`` of the file's bands as were asked for. The RGB is in the file's own colours;
    ``colours`` brings it to sRGB and back. ``carried`` is what the output keeps.
    ``nodata`` is the value of all three where a GeoTIFF says that nothing is known.
    ``resident_bytes`` is the host memory that reading holds beside the rows it returns;
    ``decoded`` says whether the whole image is held, as ``picture``, until it is closed.
    """

    def __init__(
        self,
        path: Path,
        rows: Rows,
        layout: Samples,
        size: tuple[int, int],
        carried: KeptMetadata,
        colours: Colours,
        notices: tuple[str, ...],
        picture: Picture | None = None,
    ) -> None:
        """``size`` is (H, W); ``picture`` the image if it is decoded already."""
        self.path, self.carried, self.colours = path, carried, colours
        self.picture, self.decoded = picture, picture is not None
        self.height, self.width = size
        self.dtype, self.alpha = np.dtype(layout.dtype), layout.alpha
        self.others = len(layout.others)
        self.channels = 3 + self.alpha + self.others
        self.resident_bytes = rows.resident_bytes
        self.by_window = isinstance(rows, Windows)
        self._rows, self._layout, self._notices, self._next = rows, layout, notices, 0
        self._region = Region(0, 0, self.width, self.height)
        # It is told of the samples as they stand: no use where they come as other numbers.
        plain = not (layout.inverted or layout.premultiplied or colours.converted)
        self.nodata = nodata_of(carried.geo, self.dtype) if plain else None
        self._seen = Seen(path, colours, size, self.dtype, self.nodata)

    def rows(self, start: int, stop: int) -> Array:
        """(stop - start, W, channels), C-contiguous. ``start`` is where the last call stopped, or
        further down. Float values are the file's own, also outside 0…1.

        Raises:
            SincutError: the file is damaged, or its float values are not of 0…1.
        """
        if not self._next <= start <= stop <= self.height:
            raise ValueError(f"rows {start} to {stop} of {self.height} after row {self._next}")
        pixels = self.unchecked_rows(start, stop)
        if not self.decoded:
            self._seen.add(pixels[..., :3], start)
        return pixels

    def unchecked_rows(self, start: int, stop: int) -> Array:
        """As :meth:`rows`, also of float values that nothing has told the range of; what is seen
        of them is not told."""
        self._next = stop
        top, left = self._region.top, self._region.left
        with reading(self.path):
            if isinstance(self._rows, Windows) and not self._rows.keeps_rows:
                stored = self._rows.window(start + top, stop + top, left, left + self.width)
            else:
                stored = self._rows.read(start + top, stop + top)[:, left : left + self.width]
            pixels = self._layout(stored)
        return np.ascontiguousarray(pixels)

    def read(self, rows: slice, columns: slice) -> Array:
        """(rows, columns, channels) of a window, where ``by_window``, as :meth:`rows` gives them.

        Raises:
            SincutError: as :meth:`rows`.
        """
        assert isinstance(self._rows, Windows)
        top, left = self._region.top, self._region.left
        window = (rows.start + top, rows.stop + top, columns.start + left, columns.stop + left)
        with reading(self.path):
            pixels = self._layout(self._rows.window(*window))
        self._seen.add(pixels[..., :3], rows.start, columns.start)
        return np.ascontiguousarray(pixels)

    def crop(self, region: Region) -> None:
        """Be only a part of the image, before anything is read.

        Raises:
            SincutError: it reaches beyond the image.
        """
        check_region(self.path, self.width, self.height, region)
        bottom, right = region.top + region.height, region.left + region.width
        if self.carried.geo is not None:
            geo, lost = cropped_geo(self.carried.geo, region.left, region.top)
            self.carried = replace(self.carried, geo=geo)
            self._notices += tuple(lost)
        if self.picture is not None:
            rows, columns = slice(region.top, bottom), slice(region.left, right)
            alpha = self.picture.alpha
            self.picture = replace(
                self.picture,
                rgb=self.picture.rgb[rows, columns],
                alpha=None if alpha is None else alpha[rows, columns],
            )
        self.height, self.width, self._region = region.height, region.width, region

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the person who gave the file; complete when all rows are read."""
        return (*self._notices, *self._seen.notices("stay so"))

    def told_of_integers(self) -> tuple[str, ...]:
        """The same where the pixels are brought to integers, which know no NaN."""
        return (*self._notices, *self._seen.notices("become black"))

    def close(self) -> None:
        """Let go of the file and of what is decoded."""
        self._rows.close()
        self.picture = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def in_srgb(source: Source, rows: Array) -> Array:
    """(rows, columns, 3 or 4) of a source as (rows, columns, 3) sRGB; floats within 0 … 1, with 0
    for what is not a number."""
    rgb = source.colours.to_srgb(rows[..., :3])
    if rgb.dtype != np.float32:
        return rgb
    clipped: Array = np.nan_to_num(rgb, posinf=1.0, neginf=0.0).clip(0, 1)
    return clipped


# ------------------------------------------------------------------------------------- limits


@dataclass(frozen=True)
class _Limits:
    path: Path
    max_pixels: int
    max_memory: int
    held: int
    stream_above: int
    asked: AskedValues = AS_STORED


def _too_much(
    path: Path, size: tuple[int, int], needed: int, most: int, others: str, held: int = 0
) -> SincutError:
    """``others`` is what to try besides ``--max-memory``, with a comma at its end."""
    enough = _amount(needed + held, up=True)
    return SincutError(
        f"{path} has {size[1]}×{size[0]} pixels, which takes {_amount(needed)} of memory to "
        f"decode{_allowed(most, held)}; try {others}--max-memory {enough}"
    )


def _allowed(most: int, held: int) -> str:
    """What is allowed in all, where ``most`` of it is left beside ``held``."""
    beside = f" beside {_amount(held)} in use" if held else ""
    return f"{beside}, allowed are {_amount(most + held)}"


def _amount(count: int, *, up: bool = False) -> str:
    """Bytes for a person; ``up`` as an option's value that suffices."""
    scale, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    tenths = math.ceil(count / scale * 10) if up else max(1, round(count / scale * 10))
    return f"{tenths / 10:.1f}{'' if up else ' '}{unit}"
