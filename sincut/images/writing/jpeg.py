"""JPEG from bands of rows, joined by restart markers. No torch.

What stands before the pixels is what Pillow writes for a small image.
"""

from __future__ import annotations

import io
import struct
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from sincut.images.writing.encoder import _WithOptions
from sincut.images.writing.layout import BandPixels, Encoded, Progress
from sincut.images.writing.part_file import PartFile

_DENSITY = 13  # where unit and densities stand of the JFIF segment, which is the first
_JPEG = MappingProxyType({"quality": 95, "subsampling": "4:4:4"})


class Jpeg(_WithOptions):
    """Baseline JPEG with a restart marker after every row of blocks.

    Bands begin at multiples of 8 such rows, so that the markers' numbers, which count to 8, go on
    from band to band. The pixels are those of Pillow's encoder for the whole image: without
    subsampling no block depends on its neighbours.
    """

    kind = "JPEG"
    fixed = _JPEG

    def start(self) -> bytes:
        """Everything up to the entropy-coded data, with the whole image's height."""
        data = self._encoded(np.zeros((1, self.layout.width, 3), np.uint8), **self.options)
        place, end = _jpeg_segments(data)
        head = bytearray(data[:end])
        struct.pack_into(">H", head, place + 5, self.layout.height)
        if self.aspect:
            struct.pack_into(">BHH", head, _DENSITY, 0, *self.aspect)
        return bytes(head)

    def encode(self, index: int, band: BandPixels) -> Encoded:
        """See :class:`Encoder`."""
        data = self._encoded(np.ascontiguousarray(band))
        scan = data[_jpeg_segments(data)[1] : -2]
        return Encoded(index, (b"\xff\xd7", scan) if index else (scan,))

    def _encoded(self, band: BandPixels, **options: Any) -> bytes:
        file = io.BytesIO()
        image = Image.fromarray(band)
        image.save(file, self.kind, **{**_JPEG, **options}, restart_marker_rows=1)
        return file.getvalue()

    def finish(self, part: PartFile, progress: Progress) -> None:
        """The marker of the end."""
        part.write_tail(b"\xff\xd9")
        part.publish()


def _jpeg_segments(data: bytes) -> tuple[int, int]:
    """Where the frame header lies, and where the entropy-coded data begins."""
    place, frame = 2, 0
    while True:
        marker, length = struct.unpack_from(">HH", data, place)
        if marker == 0xFFC0:
            frame = place
        place += 2 + length
        if marker == 0xFFDA:
            return frame, place
