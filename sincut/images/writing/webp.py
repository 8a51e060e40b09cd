"""WebP from bands of rows: the part file holds raw pixels, encoded at the end. No torch."""

from __future__ import annotations

import io
import os
import time
from types import MappingProxyType

import numpy as np
from PIL import Image

from sincut.images.writing.encoder import _removed_on_failure, _WithOptions
from sincut.images.writing.layout import BandPixels, Encoded, Layout, Progress
from sincut.images.writing.part_file import PartFile, beside

_SAMPLE, _SOFTNESS = 512, 8  # pixels: of what the encoder is timed on
_WEBP = MappingProxyType({"lossless": True, "exact": True})  # exact: also what lies under alpha 0


def encoding_seconds(layout: Layout) -> float:
    """About how long an image takes to encode here, as soft noise tells; of photographs and
    paintings the encoder took 0.6 to 0.9 of that a pixel."""
    shape = (_SAMPLE // _SOFTNESS, _SAMPLE // _SOFTNESS, layout.channels)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    sample = noise.resize((_SAMPLE, _SAMPLE), Image.Resampling.BICUBIC)
    started = time.perf_counter()
    sample.save(io.BytesIO(), Webp.kind, **_WEBP)
    return (time.perf_counter() - started) * layout.height * layout.width / _SAMPLE**2


class Webp(_WithOptions):
    """Lossless WebP, encoded from the whole image at the end."""

    kind = "WEBP"
    fixed = _WEBP

    def start(self) -> bytes:
        """Nothing: the part file holds only pixels."""
        return b""

    def encode(self, index: int, band: BandPixels) -> Encoded:
        """See :class:`Encoder`."""
        return Encoded(index, (band.tobytes(),))

    def finish(self, part: PartFile, progress: Progress) -> None:
        """Encode beside the part file and take its place."""
        layout, path = self.layout, beside(part.target, "encoded")
        part.close_data()
        with part.told(), _removed_on_failure(path):
            shape = (layout.height, layout.width, layout.channels)
            pixels = np.memmap(part.path, np.uint8, "r", shape=shape)
            image = Image.fromarray(pixels)
            del pixels
            with open(path, "wb") as file:
                image.save(file, self.kind, **self.options)
                file.flush()
                os.fsync(file.fileno())
        part.publish(path)
