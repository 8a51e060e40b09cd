"""libvips, where the extra ``big`` has brought it: images in rows, and Deep Zoom."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from sincut.errors import SincutError, one_line
from sincut.images.reading.rows import Array


def loaded_vips(path: Path) -> Any:
    """The module pyvips; SincutError where it or its library is missing."""
    vips = libvips()
    if vips is None:
        raise SincutError(
            f"{path} needs pyvips, which is not installed; try pip install 'sincut[big]'"
        )
    return vips


_STREAMED_BY_VIPS = ("JPEG", "MPO", "PNG", "WEBP")

# Rows that libvips keeps of a sequential image, as measured.
_VIPS_ROWS = 3000
_TOO_MANY = "extraneous bytes"  # the one warning after which nothing is missing
_VIPS_KINDS = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}


class VipsRows:
    """Rows of a file that libvips decodes from top to bottom."""

    any_order = False

    def __init__(self, vips: Any, path: Path, kept: int = 0, *, warned: bool = False) -> None:
        """``kept`` are bytes that the decoder of this file holds besides. With ``warned`` its
        warnings are damage: a JPEG's, of which rows are missing that the decoder fills in."""
        self._vips, self._path, self._warned = vips, path, warned
        image = self._opened()
        self.dtype = np.dtype(_VIPS_KINDS[image.format])
        self._width, self._samples = image.width, image.bands
        self.mode = "CMYK" if image.interpretation == "cmyk" else "RGB"
        if self._samples < 3:
            self.mode = "L"
        self.alpha = self._samples in (2, 4) and self.mode != "CMYK"
        self.row_bytes = self._width * self._samples * self.dtype.itemsize
        self.resident_bytes = kept + min(image.height, _VIPS_ROWS) * self.row_bytes

    def read(self, start: int, stop: int) -> Array:
        """(stop - start, W, samples) from the top downwards."""
        if start == stop:
            return np.empty((0, self._width, self._samples), self.dtype)
        try:
            data = self._region.fetch(0, start, self._width, stop - start)
        except self._vips.Error as error:
            if not (self._warned and _TOO_MANY in str(error.detail)):
                raise ValueError(one_line(error.detail or error)) from None
            self._warned = False
            self._opened()
            return self.read(start, stop)
        return np.frombuffer(data, self.dtype).reshape(stop - start, self._width, self._samples)

    def _opened(self) -> Any:
        level = "warning" if self._warned else "error"
        try:
            image = self._vips.Image.new_from_file(
                str(self._path), access="sequential", fail_on=level, revalidate=True
            )
            self._region = self._vips.Region.new(image)
        except self._vips.Error as error:
            raise ValueError(one_line(error.detail or error)) from None
        return image

    def close(self) -> None:
        """Let go of the file."""
        self._region = None


def libvips() -> Any:
    """pyvips, or None where it is not installed."""
    logging.getLogger("pyvips").addHandler(logging.NullHandler())  # else it goes to stderr
    try:
        return importlib.import_module("pyvips")
    except (ImportError, OSError):  # OSError: it is there, its library is not
        return None
