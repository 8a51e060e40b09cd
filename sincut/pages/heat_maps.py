"""Maps of numbers as pictures: made smaller, laid over a grey image as heat, marked.

The heat is laid over the image in Oklab: its lightness goes from the grey that is there to the
lightest, its hue from violet over red to yellow.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

# Grey takes this part of the lightness; the rest is left to heat.
_DARKEST_GREY, _LIGHTEST_GREY, _LIGHTEST = 0.2, 0.56, 0.93
_MIDDLE_GREY = (_DARKEST_GREY + _LIGHTEST_GREY) / 2
_BAND = 1 << 18  # pixels coloured at a time: in float64 they take some 50 MB on the way

# Björn Ottosson's Oklab, from linear sRGB over the responses of cones.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


class ReducedMap:
    """A map of places that is made smaller while its tiles arrive, by means or by the largest.

    Args:
        channels: of the map.
        places: its rows and columns.
        most: rows and columns of what is kept, at most.
        largest: keep the largest of what falls together, not the mean.
    """

    def __init__(
        self, channels: int, places: tuple[int, int], most: tuple[int, int], *, largest: bool
    ) -> None:
        self.places, self.largest = places, largest
        self.size = min(places[0], most[0]), min(places[1], most[1])
        shape = (channels, *self.size)
        self.values = np.full(shape, -np.inf if largest else 0, np.float32)

    def add(self, top: int, left: int, block: Floats) -> None:
        """(channels, rows, columns) from the place (top, left) on."""
        where = [slice(None)]
        for axis, first in ((1, top), (2, left)):
            count, length, fewer = block.shape[axis], self.places[axis - 1], self.size[axis - 1]
            bins = np.arange(first, first + count) * fewer // length
            starts = np.flatnonzero(np.diff(bins, prepend=-1))
            how = np.maximum if self.largest else np.add
            block = how.reduceat(block, starts, axis=axis)
            where.append(slice(int(bins[0]), int(bins[-1]) + 1))
        there = self.values[*where]
        self.values[*where] = np.maximum(there, block) if self.largest else there + block

    def result(self) -> Floats:
        """(channels, h, w)."""
        if self.largest:
            return self.values
        rows, columns = (
            np.bincount(np.arange(length) * fewer // length)
            for length, fewer in zip(self.places, self.size, strict=True)
        )
        counts: Floats = (rows[:, None] * columns).astype(np.float32)
        return self.values / counts


def reduced(pixels: Pixels, longest: int) -> Pixels:
    """(H, W, 3) with its longest side at most ``longest``; the same where it is already."""
    height, width = reduced_size(pixels.shape[:2], longest)
    if (height, width) == pixels.shape[:2]:
        return pixels
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image)


def reduced_size(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Height and width with the longest side at most ``longest``, in the same proportion."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def grey_of(pixels: Pixels) -> Floats:
    """(H, W) Oklab lightness of the greyed image, in the darker part that heat leaves to it."""
    linear = _linear(np.arange(256) / 255).astype(np.float32)
    luminance = linear[pixels] @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    lightness = np.cbrt(luminance) * (_LIGHTEST_GREY - _DARKEST_GREY) + _DARKEST_GREY
    grey: Floats = lightness.astype(np.float32)
    return grey


def heated(grey: Floats, values: Floats) -> Pixels:
    """Heat of [0, 1] over grey of a lightness, both (H, W), as (H, W, 3) uint8 sRGB.

    Over the middle grey equal steps of heat are equal distances in Oklab.
    """
    picture = np.empty((*values.shape, 3), np.uint8)
    rows = max(1, _BAND // values.shape[1])
    for top in range(0, len(values), rows):
        part = slice(top, top + rows)
        way = np.interp(values[part], *_even_way())
        picture[part] = (_srgb(_heat_lab(grey[part], way)) * 255).round()
    return picture


def scale_picture(width: int, height: int) -> Pixels:
    """The colours of a heat map over a middle grey, from 0 on the left to 1 on the right."""
    values: Floats = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return heated(np.full_like(values, _MIDDLE_GREY), values)


def mark(
    picture: Image.Image,
    point: tuple[int, int],
    size: tuple[int, int],
    *,
    cross: bool = False,
    label: str = "",
) -> None:
    """Draw a ring or a cross, black and white, at a pixel of an image of ``size`` (H, W)."""
    draw = ImageDraw.Draw(picture)
    x, y = (
        (each + 0.5) * extent / length - 0.5
        for each, extent, length in zip(point, picture.size, size[::-1], strict=True)
    )
    radius = max(4.0, max(picture.size) / 90)
    line = max(2, round(radius / 4))
    for colour, more in (("black", line), ("white", 0)):
        if cross:
            reach, wide = radius * 0.8 + more / 2, line + more
            draw.line((x - reach, y - reach, x + reach, y + reach), colour, wide)
            draw.line((x - reach, y + reach, x + reach, y - reach), colour, wide)
        else:
            outer = radius + line / 2 + more / 2
            draw.ellipse((x - outer, y - outer, x + outer, y + outer), None, colour, line + more)
    if label:
        font = ImageFont.load_default(max(18.0, radius * 4))
        left = x < picture.width * 0.9
        draw.text(
            (x + (1.8 if left else -1.8) * radius, y),
            label,
            "white",
            font,
            anchor="lm" if left else "rm",
            stroke_width=line,
            stroke_fill="black",
        )


def wrapped(
    label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """The lines of a label that is to be ``width`` pixels wide, broken at spaces.

    A longer word stays whole.
    """
    lines: list[str] = []
    for word in label.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@functools.cache
def _even_way() -> tuple[Doubles, Doubles]:
    """Heat, and how far along the way of colours it is: by the length of the way in Oklab."""
    way = np.linspace(0, 1, 1025)
    lab = _lab(_srgb(_heat_lab(np.full_like(way, _MIDDLE_GREY, np.float32), way)))
    length = np.concatenate([[0], np.linalg.norm(np.diff(lab, axis=0), axis=1).cumsum()])
    return length / length[-1], way


def _heat_lab(grey: Floats, way: Doubles) -> Doubles:
    """Oklab (…, 3) of colours that are some way, 0 … 1, from a grey to the hottest."""
    hue = np.radians(-65 + 165 * way)
    chroma = 0.235 * way**0.6 * (1 - 0.35 * way)
    lightness = grey + way * (_LIGHTEST - grey)
    return np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)


def _lab(srgb: Doubles) -> Doubles:
    """(…, 3) sRGB of [0, 1] as Oklab."""
    lab: Doubles = np.cbrt(_linear(srgb) @ _CONES.T) @ _OPPONENTS.T
    return lab


def _srgb(lab: Doubles) -> Doubles:
    """(…, 3) Oklab as sRGB, clipped to [0, 1]."""
    linear = (lab @ np.linalg.inv(_OPPONENTS).T) ** 3 @ np.linalg.inv(_CONES).T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _linear(srgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
