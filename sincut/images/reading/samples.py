"""What a file's samples mean: as RGB and alpha, and what a sparse look at them tells. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.errors import SincutError
from sincut.images.profiles import Colours, clipping_told, rgb_of, sparse

Array = npt.NDArray[Any]

BANDS = {"L": 1, "RGB": 3, "CMYK": 4}


@dataclass(frozen=True)
class Samples:
    """How rows as they are stored become RGB, or RGB and straight alpha, of ``dtype``.

    ``mode`` is L, RGB or CMYK; samples beyond it and ``alpha`` are dropped. ``highest`` is the
    value of white in ``uint16`` samples, ``device`` the profile of a grey or CMYK image, ``order``
    where red, green and blue stand if not in this order, ``others`` where bands stand that follow
    colour and alpha as they are.
    """

    mode: str
    alpha: bool = False
    dtype: npt.DTypeLike = np.uint8
    premultiplied: bool = False
    inverted: bool = False
    highest: int | None = None
    device: bytes | None = None
    order: tuple[int, int, int] | None = None
    others: tuple[int, ...] = ()

    def places(self, *, masked: bool) -> dict[int, int]:
        """Which samples stand where in what comes of them, those of grey and ink nowhere; a mask
        becomes alpha where it is ``masked``."""
        colours = list(self.order or range(3)) if self.mode == "RGB" else []
        alpha = {BANDS[self.mode]: 3} if self.alpha else {}
        first = 3 + (self.alpha or masked)
        others = {sample: first + place for place, sample in enumerate(self.others)}
        return {sample: place for place, sample in enumerate(colours)} | alpha | others

    def __call__(self, stored: Array) -> Array:
        """(n, W, samples) to (n, W, 3 or 4 and others)."""
        bands = BANDS[self.mode]
        with np.errstate(over="ignore"):  # of 64 bits; it becomes infinite, and is told
            stored = stored.astype(self.dtype, copy=False)
        top = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1
        if self.highest is not None and self.highest != top:
            wide = stored.astype(np.uint32).clip(0, self.highest)
            stored = ((wide * top + self.highest // 2) // self.highest).astype(self.dtype)
        colour = stored[..., :bands] if self.order is None else stored[..., list(self.order)]
        if self.inverted:
            colour = (top - colour).astype(self.dtype)
        alpha = stored[..., bands : bands + self.alpha]
        if self.premultiplied:
            colour = _divided(colour, alpha)
        if self.mode != "RGB":
            colour = rgb_of(colour, self.mode, self.device)
        if not (self.alpha or self.others):
            return colour
        return np.concatenate((colour, alpha, stored[..., list(self.others)]), axis=-1)


_BLOCK = 1 << 20  # values


def _divided(colour: Array, alpha: Array) -> Array:
    """Premultiplied colours by their alpha. As Pillow: rounded down, kept where alpha is 0."""
    if colour.dtype.kind == "f":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(alpha == 0, colour, colour / alpha)
    top = np.iinfo(colour.dtype).max
    result = np.empty_like(colour)
    rows = max(1, _BLOCK * len(colour) // max(colour.size, 1))
    for start in range(0, len(colour), rows):  # in blocks: what lies between takes 12 bytes each
        part, share = (each[start : start + rows] for each in (colour, alpha))
        divided = part.astype(np.uint32) * np.uint32(top) // np.maximum(share, 1)
        result[start : start + rows] = np.where(share == 0, part, divided.clip(0, top))
    return result


class Seen:
    """What a sparse sample of the rows that pass says of all: about 512 rows and columns."""

    def __init__(
        self,
        path: Path,
        colours: Colours,
        size: tuple[int, int],
        dtype: npt.DTypeLike,
        nodata: float | None = None,
    ) -> None:
        """``size`` is (H, W); ``path`` is for messages; ``nodata`` is not looked at."""
        self._path, self._colours, self._nodata = path, colours, nodata
        self._steps = sparse(size[0]), sparse(size[1])
        self._float = np.dtype(dtype).kind == "f"
        self._low, self._high = colours.range or (0.0, 1.0)
        self._counted = self._float or colours.range is not None
        self._looked = not self._float or colours.range is not None
        self._idle = not (self._counted or colours.converted)
        self._pixels = self._outside = self._nan = self._values = self._beyond = 0

    def add(self, rgb: Array, top: int, left: int = 0) -> None:
        """(n, w, 3) whose first pixel is at that place of the image."""
        down, across = self._steps
        sample = rgb[-top % down :: down, -left % across :: across]
        if self._idle or not sample.size:
            return
        self._pixels += sample.shape[0] * sample.shape[1]
        self._outside += self._colours.outside_srgb(sample)
        if not self._counted:
            return
        if self._nodata is not None:
            sample = sample[~unknown(sample, self._nodata)]
        values = sample[np.isfinite(sample)]
        beyond = int(((values < self._low) | (values > self._high)).sum())
        if not self._looked and values.size:
            self._looked = True
            if 2 * beyond > values.size:
                raise SincutError(
                    f"{self._path} has float values from {values.min():g} to {values.max():g}; "
                    "allowed are 0 (black) to 1 (white); try --range "
                    f"{values.min():.6g},{values.max():.6g}, --range auto or a copy scaled to 0…1"
                )
        self._nan += int(np.isnan(sample).any(axis=-1).sum())
        self._values += sample.size
        self._beyond += beyond + int(np.isinf(sample).sum())

    def notices(self, nan: str) -> list[str]:
        """Lines for the person who gave the file; ``nan`` says what NaN pixels do."""
        told = clipping_told(self._outside, self._pixels)
        if self._beyond:
            share = _percent(self._beyond, self._values)
            limits = f"{self._low:.6g}…{self._high:.6g}"
            told.append(f"{share} of its values lie outside {limits} and were clipped")
        if self._nan:
            share = _percent(self._nan, self._pixels)
            told.append(f"{share} of its pixels are not numbers and {nan}")
        return told


def unknown(rgb: Array, nodata: float) -> Array:
    """Where the pixels of (…, 3) have the value ``nodata`` throughout."""
    there: Array = (rgb == rgb.dtype.type(nodata)).all(axis=-1)
    return there


def _percent(part: int, whole: int) -> str:
    return "less than 0.1%" if part < 0.0005 * whole else f"{part / whole:.1%}"
