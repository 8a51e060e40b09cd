"""JPEG whose data end before its pixels do. No torch.

libjpeg fills in what is missing and only warns, and Pillow does not hear the warning. A single scan
is therefore held back at its end, to see whether its last row is there by then. Where there are
more, or markers within one, the file is decoded a second time with other bytes behind each: what
is whole is the same.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import re
import struct
import zlib
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from sincut.images.metadata import DAMAGE

_SCAN, _RESTARTS, _END = 0xDA, 0xDD, 0xD9
_ALONE = (0x00, 0x01, *range(0xD0, 0xD9))  # what has no length
_BASELINE, _FRAMES = (0xC0, 0xC1), (0xC0, 0xC1, 0xC2)
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # that ends a scan
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# No code consists of ones, so that these bits, which the decoder wants to see ahead, are no pixels.
_AHEAD = b"\xff\x00" * 8
_OTHER = np.random.default_rng(0).bytes(64).replace(b"\xff", b"")
_STRIP = 1 << 18  # pixels
_MISSING = "the data end before its last row"


@dataclass(frozen=True)
class _Scans:
    """The frame's marker, sampling factors by component, MCUs between restarts; of each scan its
    count of components and the first and last place of its data."""

    frame: int
    sampling: dict[int, tuple[int, int]]
    restart: int
    scans: list[tuple[int, int, int]]

    @property
    def plain(self) -> bool:
        """Whether rows come from top to bottom."""
        one = len(self.scans) == 1 and self.scans[0][0] == len(self.sampling)
        return one and self.frame in _BASELINE and not self.restart


def load_whole(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Decode a JPEG.

    Raises:
        EOFError: pixels are missing. Else what Pillow raises.
    """
    scans = other = None
    with (
        contextlib.suppress(*DAMAGE),  # the decoder knows more kinds, or says what is wrong
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        scans = _scans_of(data)
        if not scans.plain:
            with JpegImageFile(io.BytesIO(_with_more(data, scans))) as second:
                other = _sum(second)
    if scans and scans.plain:
        _load_held_back(image, file, scans)
        return
    image.load()
    if other is not None and other != _sum(image):
        raise EOFError(_MISSING)


def _load_held_back(image: ImageFile.ImageFile, file: IO[bytes], scans: _Scans) -> None:
    """Decode, and look at the last row before the decoder is told that the scan is over."""
    block = 8 * max(down for _, down in scans.sampling.values())  # the last rows come together
    rows, end = (image.height - 1) % block + 1, scans.scans[0][2]
    box = (0, image.height - rows, image.width, image.height)
    noise = np.random.default_rng(0).bytes(rows * image.width * len(image.getbands()))
    image.load_prepare()
    image.im.paste(Image.frombytes(image.mode, (image.width, rows), noise).im, box)
    plain, told = image.load_read, False  # type: ignore[attr-defined]

    def read(count: int) -> bytes:
        nonlocal told
        place = file.tell()
        if place < end:
            return file.read(min(count, end - place))
        if not told:
            told = True
            return _AHEAD
        # A very small picture may be what the noise is.
        if len(noise) > 2 and image._new(image.im.crop(box)).tobytes() == noise:
            raise EOFError(_MISSING)
        return bytes(plain(count))

    image.load_read = read  # type: ignore[attr-defined]
    image.load()


def _scans_of(data: mmap.mmap) -> _Scans:
    """What the markers say. Raises what damage raises."""
    place, frame, restart = 2, 0, 0
    sampling: dict[int, tuple[int, int]] = {}
    scans = []
    while data[place + 1] != _END:
        marker = data[place + 1]
        if data[place] != 0xFF or marker == 0xFF:
            place += 1
            continue
        if marker in _ALONE:
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        body = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker in _FRAMES:
            frame = marker
            sampling |= {
                body[each]: (body[each + 1] >> 4, body[each + 1] & 15)
                for each in range(6, 6 + 3 * body[5], 3)
            }
        elif marker == _RESTARTS:
            (restart,) = struct.unpack(">H", body[:2])
        elif marker == _SCAN:
            end = _MARKER.search(data, place)
            if end is None:
                raise EOFError("no end of a scan")
            scans.append((body[0], place, end.start()))
            place = end.start()
    return _Scans(frame, sampling, restart, scans)


def _with_more(data: mmap.mmap, scans: _Scans) -> bytes:
    """The file with other bytes behind each scan, and behind each of its parts between restarts."""
    pieces, done = [], 0
    for _, start, end in scans.scans:
        parts = _RESTART.split(data[start:end])
        if scans.restart:  # parts that may be missing at the end
            parts += [b""] * 8
        pieces.append(data[done:start])
        for number, part in enumerate(parts):
            pieces.append(bytes((0xFF, 0xD0 + (number - 1) % 8)) if number else b"")
            pieces += [part, _OTHER]
        done = end
    return b"".join([*pieces, data[done:]])


def _sum(image: Image.Image) -> int:
    """A checksum of the pixels, strip by strip."""
    rows, total = max(1, _STRIP // image.width), 0
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        total = zlib.crc32(image.crop((0, top, image.width, bottom)).tobytes(), total)
    return total
