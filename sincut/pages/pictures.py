"""Pictures inside a page: encoded small enough, reduced only where they must be."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from sincut.pages.shell import data_uri
from sincut.pages.viewer import escaped as text

Pixels = npt.NDArray[np.uint8]

_QUALITIES = (92, 85, 75)  # of JPEG, tried before the picture is reduced
_SHRINK = 0.8


@dataclass(frozen=True)
class Embedded:
    """A picture as a page holds it: its address with the data inside, and its size in pixels."""

    uri: str
    width: int
    height: int

    def img(self, alt: str, **attributes: str) -> str:
        """The ``<img>``; ``alt`` says what is to be seen. Everything is escaped."""
        rest = "".join(f' {name}="{text(value)}"' for name, value in attributes.items())
        return (
            f'<img src="{self.uri}" alt="{text(alt)}" width="{self.width}" '
            f'height="{self.height}"{rest}>'
        )


def photograph(pixels: Pixels, budget: int, side: int) -> Embedded:
    """(H, W, 3) sRGB as a JPEG of at most ``budget`` characters in the page.

    Quality gives way first, then size; ``side`` bounds the longest side from the start. Colours are
    kept at full resolution.
    """
    image = Image.fromarray(pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, subsampling=0)
            uri = data_uri(buffer.getvalue(), "image/jpeg")
            if len(uri) <= budget or max(image.size) <= 16:
                return Embedded(uri, *image.size)
        smaller = (max(round(length * _SHRINK), 1) for length in image.size)
        width, height = smaller
        image = image.resize((width, height), Image.Resampling.LANCZOS)


def exact(pixels: Pixels) -> Embedded:
    """(H, W, 3) sRGB as a PNG: every pixel as it is."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Embedded(data_uri(buffer.getvalue(), "image/png"), pixels.shape[1], pixels.shape[0])
