"""JPEG whose data end before its rows do. No torch.

libjpeg fills in what is missing and only warns, and Pillow does not hear the warning. A scan of
rows from top to bottom is therefore held back at its end, to see whether its last row is there by
then; of several scans the codes of the first are counted.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from sincut.images.metadata import DAMAGE

_SCAN, _TABLES, _RESTARTS = 0xDA, 0xC4, 0xDD
_ALONE = (0x00, 0x01, *range(0xD0, 0xD9))  # what has no length
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), (0xC2,)
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # that ends a scan
_MISSING = "the data end before its last row"
# No code consists of ones, so that these bits, which the decoder wants to see ahead, are no pixels.
_AHEAD = b"\xff\x00" * 8


@dataclass(frozen=True)
class _Scan:
    """The first scan: the frame's marker, size, sampling factors by component; the scan's
    components with their DC tables, its code lengths by table, MCUs between restarts, its bytes."""

    frame: int
    size: tuple[int, int]
    sampling: dict[int, tuple[int, int]]
    tables: list[tuple[int, int]]
    codes: dict[int, bytes]
    restart: int
    start: int
    end: int


def load_whole(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Decode a JPEG.

    Raises:
        EOFError: rows are missing. Else what Pillow raises.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            scan = _first_scan(data)
            whole = scan is None or _is_whole(data, scan)
        except DAMAGE:  # the decoder knows more kinds
            scan, whole = None, True
        if scan is None:
            image.load()
        elif scan.frame in _BASELINE and len(scan.tables) == len(scan.sampling):
            _load_held_back(image, file, scan)
        elif whole:
            image.load()
        else:
            raise EOFError(_MISSING)


def _load_held_back(image: ImageFile.ImageFile, file: IO[bytes], scan: _Scan) -> None:
    """Decode, and look at the last row before the decoder is told that the scan is over."""
    block = 8 * max(down for _, down in scan.sampling.values())  # the last rows come together
    rows, end = (image.height - 1) % block + 1, scan.end
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


def _first_scan(data: mmap.mmap) -> _Scan | None:
    """What stands before the first scan, or None where it is of a rarer kind or damaged."""
    place, frame, restart = 2, 0, 0
    size = (0, 0)
    sampling: dict[int, tuple[int, int]] = {}
    codes: dict[int, bytes] = {}
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] == 0xFF:
            place += 1
            continue
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        if marker in _ALONE:
            place += 2
            continue
        body = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker in _BASELINE + _PROGRESSIVE:
            frame, (height, width, count) = marker, struct.unpack_from(">HHB", body, 1)
            size = (height, width)
            for each in range(6, 6 + 3 * count, 3):
                sampling[body[each]] = (body[each + 1] >> 4, body[each + 1] & 15)
        elif marker == _TABLES:
            codes |= _tables(body)
        elif marker == _RESTARTS:
            (restart,) = struct.unpack(">H", body[:2])
        elif marker == _SCAN:
            tables = [(body[1 + 2 * i], body[2 + 2 * i] >> 4) for i in range(body[0])]
            end = _MARKER.search(data, place)
            if not frame or end is None:
                return None
            return _Scan(frame, size, sampling, tables, codes, restart, place, end.start())
    return None


def _tables(body: bytes) -> dict[int, bytes]:
    """Of a segment of Huffman tables those of DC: 16 counts of codes, and the symbols."""
    found, place = {}, 0
    while place + 17 <= len(body):
        count = sum(body[place + 1 : place + 17])
        if body[place] < 4:
            found[body[place]] = body[place + 1 : place + 17 + count]
        place += 17 + count
    return found


def _is_whole(data: mmap.mmap, scan: _Scan) -> bool:
    """Whether the first scan, of DC alone, has a code for every block. True of another scan."""
    if scan.frame not in _PROGRESSIVE or any(table not in scan.codes for _, table in scan.tables):
        return True
    (height, width), across, down = scan.size, 1, 1
    for factors in scan.sampling.values():
        across, down = max(across, factors[0]), max(down, factors[1])
    if len(scan.tables) == 1:
        one = scan.sampling[scan.tables[0][0]]
        height, width = -(-height * one[1] // down), -(-width * one[0] // across)
        across = down = 1
        order = [scan.tables[0][1]]
    else:
        order = [
            t for c, t in scan.tables for _ in range(scan.sampling[c][0] * scan.sampling[c][1])
        ]
    units = -(-height // (8 * down)) * -(-width // (8 * across))
    lookups = {table: _lookup(scan.codes[table]) for table in set(order)}
    counted = 0
    for piece in re.split(rb"\xff[\xd0-\xd7]", data[scan.start : scan.end]):
        wanted = min(scan.restart or units, units - counted)
        counted += _units(piece.replace(b"\xff\x00", b"\xff"), wanted, [lookups[t] for t in order])
    return counted >= units


def _lookup(table: bytes) -> list[int]:
    """By the next 16 bits: the length of the code and of the value behind it; 99 of no code."""
    lengths, symbols = table[:16], table[16:]
    found: list[int] = []
    place = 0
    for length, count in enumerate(lengths, 1):
        for symbol in symbols[place : place + count]:
            found += [length + symbol] * (1 << (16 - length))
        place += count
    return found + [99] * (65536 - len(found))


def _units(data: bytes, wanted: int, order: list[list[int]]) -> int:
    """How many of ``wanted`` units the bytes hold: each has a code of every table of ``order``."""
    at, end = 0, 8 * len(data)
    padded = data + b"\xff" * 4
    for unit in range(wanted):
        for lookup in order:
            byte = at >> 3
            if byte >= len(data):
                return unit
            bits = int.from_bytes(padded[byte : byte + 3], "big")
            at += lookup[bits >> (8 - (at & 7)) & 0xFFFF]
        if at > end:
            return unit
    return wanted
