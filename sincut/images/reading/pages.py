"""Which page of a TIFF is its image, and how many others there are. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.images.metadata import DAMAGE, pages_within
from sincut.images.reading.rows import tiff_directory

_NEW_KIND, _OLD_KIND = 254, 255  # NewSubfileType, SubfileType
_REDUCED, _MASK = 1, 4  # bits of the first; the second has 2 for a smaller copy
_BELOW = 330  # SubIFDs
_WIDTH, _HEIGHT, _SAMPLES = 256, 257, 277


def main_page(file: IO[bytes]) -> tuple[int, int, Directory]:
    """Number, offset and directory of the first page that is no smaller copy and no mask of
    another; of the first of all where there are only such.

    Raises:
        ValueError: no directory can be read.
    """
    position = file.tell()
    try:
        for number, (offset, directory) in enumerate(_chain(file)):
            if not (_is_smaller(directory) or _is_mask(directory)):
                return number, offset, directory
        for offset, directory in _chain(file):
            return 0, offset, directory
    finally:
        file.seek(position)
    raise ValueError("it has no directory")


def tiff_pages(file: IO[bytes]) -> tuple[int, bool]:
    """How many pages a TIFF has, of those that are not smaller copies or masks of another, with
    those behind one without directories; and whether there is a mask."""
    position = file.tell()
    pages, masks, within, below = 0, 0, 1, False
    for _, directory in _chain(file):
        if _is_mask(directory):
            masks += 1
            continue
        if _is_smaller(directory):
            # Where there are only smaller copies, the page itself may hang below.
            below |= _BELOW in directory
            continue
        if not pages:
            values = [directory.get(tag, 1) for tag in (_WIDTH, _HEIGHT, _SAMPLES)]
            within = pages_within(directory, math.prod(map(int, values)))
        pages += 1
    file.seek(position)
    if pages == 0:
        return 1 + below, masks > 0
    # Where there are more directories, the description tells of those.
    return within if pages == 1 else pages, masks > 0


def _chain(file: IO[bytes]) -> Iterator[tuple[int, Directory]]:
    """Offset and directory of each page, up to one that is damaged; it is one object."""
    directory, seen = tiff_directory(file), set[int]()
    while directory.next and directory.next not in seen:
        offset = directory.next
        seen.add(offset)
        file.seek(offset)
        try:
            directory.load(file)
        except DAMAGE:
            return
        yield offset, directory


def _is_smaller(directory: Directory) -> bool:
    return bool(int(directory.get(_NEW_KIND, 0)) & _REDUCED) or directory.get(_OLD_KIND) == 2


def _is_mask(directory: Directory) -> bool:
    return bool(int(directory.get(_NEW_KIND, 0)) & _MASK)
