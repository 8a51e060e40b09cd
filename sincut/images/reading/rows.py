"""Rows of images as their files have them, from readers of one kind each. No torch.

``Rows`` is what they have in common; a TIFF's is in tiff.py, libvips' in vips.py. Some wrap others:
they mirror or turn what these read. ``Windows`` are those that read some columns as cheaply as all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

Array = npt.NDArray[Any]
BIG_ENDIAN_BIGTIFF = b"MM\0+"


class Rows(Protocol):
    """Rows of an image as its file has them, from any row downwards."""

    @property
    def resident_bytes(self) -> int:
        """Host memory that reading holds beside what ``read`` returns."""

    @property
    def row_bytes(self) -> int:
        """What a row takes."""

    @property
    def any_order(self) -> bool:
        """Whether they can be read from the bottom as well as from the top."""

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples), as stored."""

    def close(self) -> None:
        """Let go of the file."""


@runtime_checkable
class Windows(Rows, Protocol):
    """Rows of which any window can be read, in any order and by several threads.

    ``keeps_rows`` says whether ``read`` decodes once what the next rows need as well.
    """

    keeps_rows: bool

    def window(self, top: int, bottom: int, left: int, right: int) -> Array:
        """(bottom - top, right - left, samples), as stored."""


class PlainRows:
    """Rows of strips that are not compressed; of each, only the bytes asked for are read."""

    resident_bytes = 0
    any_order = True

    def __init__(
        self,
        file: IO[bytes],
        offsets: Array,
        strip: int,
        shape: tuple[int, int, int],
        dtype: npt.DTypeLike,
        fill: Any = 0,
    ) -> None:
        """``offsets`` (planes, strips) of the strips of ``strip`` rows; 0 where there is none, and
        its pixels are ``fill``. ``shape`` is (H, W, samples); a plane holds all or one of them."""
        self._file, self._offsets, self._strip, self._fill = file, offsets, strip, fill
        self._height, self._width, self._samples = shape
        self._dtype = np.dtype(dtype)
        self._lock = threading.Lock()
        self.row_bytes = self._width * self._samples * self._dtype.itemsize
        self._plane_bytes = self.row_bytes // len(offsets)
        rows = np.minimum(strip, self._height - strip * np.arange(offsets.shape[1]))
        check_end(file, int(np.where(offsets > 0, offsets + rows * self._plane_bytes, 0).max()))

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) in the machine's byte order."""
        planes, together = len(self._offsets), self._samples // len(self._offsets)
        rows = np.empty((stop - start, self._width, self._samples), self._dtype.newbyteorder("="))
        for plane in range(planes):
            top = start
            while top < stop:
                strip, inside = divmod(top, self._strip)
                bottom = min(stop, (strip + 1) * self._strip)
                part = rows[top - start : bottom - start, :, plane : plane + together]
                if offset := int(self._offsets[plane, strip]):
                    data = read_bytes(
                        self._file,
                        self._lock,
                        offset + inside * self._plane_bytes,
                        (bottom - top) * self._plane_bytes,
                    )
                    part[:] = np.frombuffer(data, self._dtype).reshape(part.shape)
                else:
                    part[:] = self._fill
                top = bottom
        return rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ArrayRows:
    """Rows of an image that is decoded whole."""

    any_order = True

    def __init__(self, pixels: Array) -> None:
        """``pixels`` is (H, W, samples)."""
        self._pixels = pixels
        self.resident_bytes = pixels.nbytes
        self.row_bytes = pixels.nbytes // max(1, len(pixels))

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) of it."""
        return self._pixels[start:stop]

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = self._pixels[:0].copy()


class Mirrored:
    """Rows with their columns, or their columns and the order of rows, mirrored."""

    def __init__(self, rows: Rows, height: int, *, down: bool, across: bool) -> None:
        self._rows, self._height, self._down, self._across = rows, height, down, across
        self.resident_bytes, self.row_bytes = rows.resident_bytes, rows.row_bytes
        self.any_order = rows.any_order

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) of the upright image."""
        if self._down:
            part = self._rows.read(self._height - stop, self._height - start)[::-1]
        else:
            part = self._rows.read(start, stop)
        return part[:, ::-1] if self._across else part

    def close(self) -> None:
        """Close what it reads from."""
        self._rows.close()


class Masked:
    """Rows whose alpha is a page of its own: a value for each pixel, 0 where nothing is seen."""

    def __init__(self, rows: Rows, mask: Rows, bands: int, others: Sequence[int] = ()) -> None:
        """``bands`` is how many samples are colour; ``others`` stand behind the alpha."""
        self._rows, self._mask, self._bands, self._others = rows, mask, bands, list(others)
        self.resident_bytes = rows.resident_bytes + mask.resident_bytes
        self.row_bytes = rows.row_bytes * (bands + 1 + len(others)) // bands
        self.any_order = rows.any_order

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, bands + 1 + others)."""
        stored = self._rows.read(start, stop)
        seen = self._mask.read(start, stop) > 0
        top = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1
        parts = stored[..., : self._bands], seen * stored.dtype.type(top), stored[..., self._others]
        return np.concatenate(parts, axis=-1)

    def close(self) -> None:
        """Close what it reads from."""
        self._rows.close()
        self._mask.close()


class Turned:
    """Rows of an image that has to be there as a whole before the first is known."""

    any_order = True

    def __init__(
        self, rows: Rows, size: tuple[int, int], row_bytes: int, turn: Callable[[Array], Array]
    ) -> None:
        """``size`` is (H, W) as stored, ``row_bytes`` what a row takes of memory."""
        self._rows, self._size, self._turn = rows, size, turn
        self.resident_bytes = rows.resident_bytes + size[0] * row_bytes
        self.row_bytes = self.resident_bytes // max(1, size[1])
        self._whole: Array | None = None

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) of the upright image."""
        if self._whole is None:
            height, width = self._size
            whole = np.empty((0,))
            step = max(1, (1 << 22) // width)
            for top in range(0, height, step):
                rows = self._rows.read(top, min(top + step, height))
                if not top:
                    whole = np.empty((height, *rows.shape[1:]), rows.dtype)
                whole[top : top + step] = rows
            self._whole = self._turn(whole)
        return self._whole[start:stop]

    def close(self) -> None:
        """Close what it reads from, and forget the image."""
        self._rows.close()
        self._whole = None


# EXIF orientation to what turns (H, W, …) upright.
TURNS: dict[int, Callable[[Array], Array]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def upright(rows: Rows, size: tuple[int, int], orientation: int) -> tuple[Rows, tuple[int, int]]:
    """Rows of the upright image, and its (H, W), from those of ``size`` as they are stored."""
    height, width = size
    if orientation == 2 or (orientation in (3, 4) and rows.any_order):
        down, across = orientation != 2, orientation != 4
        return Mirrored(rows, height, down=down, across=across), size
    if orientation in TURNS:
        turned = Turned(rows, size, rows.row_bytes, TURNS[orientation])
        return turned, (width, height) if orientation > 4 else size
    return rows, size


def tiff_directory(file: IO[bytes]) -> Directory:
    """An empty directory of a TIFF's byte order and size, whose ``next`` is the first's offset."""
    file.seek(0)
    header = file.read(8)
    if header[:4] != BIG_ENDIAN_BIGTIFF:
        return Directory(header + (file.read(8) if header[2:3] == b"+" else b""))
    # Pillow looks for the sign of BigTIFF in the place where little-endian ones have it.
    return Directory(b"II+\0" + header[4:] + file.read(8), prefix=b"MM")


def read_bytes(file: IO[bytes], lock: threading.Lock, offset: int, count: int) -> bytes:
    """Bytes of a file that threads share. Raises EOFError where there are fewer."""
    with lock:
        file.seek(offset)
        data = file.read(count)
    if len(data) < count:
        raise EOFError(f"{count - len(data)} bytes of its pixels are missing")
    return data


def check_end(file: IO[bytes], end: int) -> None:
    """Raise EOFError where a file ends before ``end``."""
    missing = end - os.fstat(file.fileno()).st_size
    if missing > 0:
        raise EOFError(f"{missing} bytes of its pixels are missing")
