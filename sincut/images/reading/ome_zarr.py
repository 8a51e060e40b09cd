"""OME-Zarr 0.4 and 0.5 by windows: images in chunks, on a disk that many machines share. No torch.

The format: https://ngff.openmicroscopy.org/0.5/ (and 0.4). A folder holds a multiscale image, its
largest array first; read are planes of y and x with at most three or four channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.errors import SincutError, one_line
from sincut.images.metadata import MICROMETRES_PER_INCH
from sincut.images.reading.asked import with_others
from sincut.images.reading.extras import library
from sincut.images.reading.samples import Samples
from sincut.images.reading.source import Header, Source, _Limits, _source
from sincut.images.records import NO_RECORDS

Array = npt.NDArray[Any]

_DTYPES = ("uint8", "uint16", "float32")
_CHUNKS_AT_ONCE = 16  # that zarr decodes beside each other
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "meter": 1e6}


class ZarrRows:
    """Rows and windows of an array whose axes are in any order and of which y and x are long."""

    any_order, keeps_rows = True, False

    def __init__(self, array: Any, axes: Sequence[str]) -> None:
        """``axes`` are the names of the array's axes; all but c, y and x are taken at 0."""
        self._array, self._axes = array, tuple(axes)
        sizes = dict(zip(self._axes, array.shape, strict=True))
        self.height, self.width = sizes["y"], sizes["x"]
        self.samples, self.dtype = sizes.get("c", 1), np.dtype(array.dtype)
        self.row_bytes = self.width * self.samples * self.dtype.itemsize
        chunk = int(np.prod(array.chunks)) * self.dtype.itemsize
        self.resident_bytes = _CHUNKS_AT_ONCE * chunk

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples)."""
        return self.window(start, stop, 0, self.width)

    def window(self, top: int, bottom: int, left: int, right: int) -> Array:
        """(bottom - top, right - left, samples)."""
        wanted = {"y": slice(top, bottom), "x": slice(left, right), "c": slice(None)}
        try:
            pixels = np.asarray(self._array[tuple(wanted.get(axis, 0) for axis in self._axes)])
        except Exception as error:  # zarr and its codecs raise of every kind
            raise ValueError(one_line(error)) from None
        kept = [axis for axis in self._axes if axis in wanted]
        if "c" not in kept:
            pixels, kept = pixels[..., None], [*kept, "c"]
        return pixels.transpose([kept.index(axis) for axis in "yxc"])

    def close(self) -> None:
        """Nothing is open between windows."""


@dataclass(frozen=True)
class Multiscale:
    """What OME-Zarr says of an image: its axes, and of each level the array's name and the size of
    a pixel along every axis."""

    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    levels: tuple[tuple[str, tuple[float, ...]], ...]

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Multiscale:
        """From the attributes of a group of either version. Raises LookupError or TypeError."""
        said = attributes.get("ome", attributes)
        first = said["multiscales"][0]
        axes = [axis if isinstance(axis, str) else axis["name"] for axis in first["axes"]]
        units = [None if isinstance(axis, str) else axis.get("unit") for axis in first["axes"]]
        levels = []
        for dataset in first["datasets"]:
            scale = [1.0] * len(axes)
            for change in dataset.get("coordinateTransformations", ()):
                if change["type"] == "scale":
                    scale = [float(each) for each in change["scale"]]
            levels.append((str(dataset["path"]), tuple(scale)))
        return cls(tuple(axes), tuple(units), tuple(levels))

    def dpi(self, level: int) -> tuple[float, float] | None:
        """Dots per inch across and down, where the units of x and y say so."""
        found = []
        for axis in "xy":
            place = self.axes.index(axis)
            size = self.levels[level][1][place] * _MICROMETRES.get(self.units[place] or "", 0)
            if not size > 0:
                return None
            found.append(MICROMETRES_PER_INCH / size)
        return found[0], found[1]


def zarr_levels(path: Path) -> int:
    """How many levels an OME-Zarr has that :func:`zarr_source` reads."""
    group = library("zarr", "zarr", "zarr", path).open_group(str(path), mode="r")
    return len(Multiscale.of(dict(group.attrs)).levels)


def zarr_source(path: Path, limits: _Limits, level: int) -> Source:
    """An image of an OME-Zarr folder.

    Raises:
        SincutError: it is absent, no OME-Zarr, of another kind than is read, or lacks the level.
    """
    zarr = library("zarr", "zarr", "zarr", path)
    if not path.is_dir():
        what = "is a file, not a Zarr folder" if path.exists() else "does not exist"
        raise SincutError(f"{path} {what}; give an OME-Zarr folder")
    try:
        group = zarr.open_group(str(path), mode="r")
        said = Multiscale.of(dict(group.attrs))
        check_level(path, level, len(said.levels))
        array = group[said.levels[level][0]]
        sizes = dict(zip(said.axes, array.shape, strict=True))
        rows = ZarrRows(array, said.axes)
    except SincutError:
        raise
    except Exception as error:  # zarr and its codecs raise of every kind
        raise SincutError(
            f"{path} is no OME-Zarr image that can be read ({one_line(error) or 'no metadata'}); "
            "give a folder of OME-Zarr 0.4 or 0.5 with a multiscale image"
        ) from None
    layout, notices = _layout(path, rows, sizes)
    if limits.asked.copied:
        layout, told = with_others(layout, rows.samples)
        notices = [each for each in notices if each != _first_three(rows)] + [told] * bool(told)
    header = Header(1, None, None, said.dpi(level), None, (), NO_RECORDS)
    size = (rows.height, rows.width)
    return _source(path, rows, layout, size, header, notices, [], limits)


def check_level(path: Path, level: int, count: int) -> None:
    """Refuse a level that an image with so many does not have."""
    if level >= count:
        allowed = f"0 to {count - 1}" if count > 1 else "0"
        raise SincutError(
            f"{path} has {count} level{'s' * (count > 1)}, got level {level}; allowed: {allowed}"
        )


def _first_three(rows: ZarrRows) -> str:
    return f"of its {rows.samples} channels the first three are used"


def _layout(path: Path, rows: ZarrRows, sizes: Mapping[str, int]) -> tuple[Samples, list[str]]:
    if rows.dtype.name not in _DTYPES:
        raise SincutError(
            f"{path} has samples of the kind {rows.dtype.name}, which is not supported; allowed: "
            f"{', '.join(_DTYPES)}; try a copy of one of these"
        )
    if rows.samples == 2:
        raise SincutError(
            f"{path} has 2 channels, which are no colours; allowed: 1 (grey), 3 (RGB) and more, of "
            "which the first three are taken"
        )
    notices = []
    for axis, size in sizes.items():
        if axis not in "cyx" and size > 1:
            notices.append(f"it has {size} planes along {axis}; the first is used")
    if rows.samples > 3:
        notices.append(_first_three(rows))
    return Samples("L" if rows.samples == 1 else "RGB", dtype=rows.dtype), notices
