"""Which page of a TIFF is its image, what belongs to it, how many others there are. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.images.metadata import DAMAGE, EXTRA_SAMPLES, pages_within
from sincut.images.reading.rows import tiff_directory

_NEW_KIND, _OLD_KIND = 254, 255  # NewSubfileType, SubfileType
_REDUCED, _MASK = 1, 4  # bits of the first; the second has 2 for a smaller copy
_BELOW = 330  # SubIFDs
_WIDTH, _HEIGHT, _SAMPLES, _BITS, _COMPRESSION = 256, 257, 277, 258, 259
_PHOTOMETRIC, _COLOURS = 262, {2: 3, 5: 4, 6: 3}  # how many samples colour has, if not one
# None, Deflate under two numbers and PackBits: what masks have, and tifffile reads by itself.
_MASK_COMPRESSIONS = (1, 8, 32946, 32773)


@dataclass(frozen=True)
class Pages:
    """The image's page: its ``number``, the ``offset`` of its directory, its ``tags``.

    ``count`` is how many images there are, ``mask`` the number of the page that is the image's
    transparency, ``lost_mask`` whether there are only masks that are not used.
    """

    number: int
    offset: int
    tags: Directory
    count: int
    mask: int | None
    lost_mask: bool


def pages_of(file: IO[bytes]) -> Pages:
    """What the directories say. The image is the first page that is no smaller copy and no mask of
    another; the first of all where there are only such. Smaller copies and masks do not count as
    images, those behind a page without directories do. The file stays where it is.

    Raises:
        ValueError: no directory can be read.
    """
    position = file.tell()
    image, first, mask = None, None, None
    count, masked, below = 0, False, False
    for number, (offset, tags) in enumerate(_chain(file)):
        smaller, is_mask = _is_smaller(tags), _is_mask(tags)
        first = first or (number, offset, tags)
        if not (smaller or is_mask):
            image = image or (number, offset, tags)
            count += 1
        elif is_mask:
            masked = True
            if mask is None and image and count == 1 and not smaller and _fits(tags, image[2]):
                mask = number
        else:  # where there are only such, the page itself may hang below
            below |= _BELOW in tags
    file.seek(position)
    if first is None:
        raise ValueError("it has no directory")
    if count == 1 and image:
        # Where there are more directories, the description tells of those.
        values = (image[2].get(tag, 1) for tag in (_WIDTH, _HEIGHT, _SAMPLES))
        count = pages_within(image[2], math.prod(map(int, values)))
    return Pages(*(image or first), count or 1 + below, mask, masked and mask is None)


def _chain(file: IO[bytes]) -> Iterator[tuple[int, Directory]]:
    """Offset and directory of each page, up to one that is damaged."""
    offset, seen = tiff_directory(file).next, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        directory = tiff_directory(file)
        file.seek(offset)
        try:
            directory.load(file)
        except DAMAGE:
            return
        yield offset, directory
        offset = directory.next


def _is_smaller(directory: Directory) -> bool:
    return bool(int(directory.get(_NEW_KIND, 0)) & _REDUCED) or directory.get(_OLD_KIND) == 2


def _is_mask(directory: Directory) -> bool:
    return bool(int(directory.get(_NEW_KIND, 0)) & _MASK)


def _fits(mask: Directory, image: Directory) -> bool:
    """Whether it has a value for each pixel of an image without alpha, and can be read."""
    samples = image.get(_SAMPLES, 1) - _COLOURS.get(image.get(_PHOTOMETRIC, 0), 1)
    return (
        all(mask.get(tag) == image.get(tag) for tag in (_WIDTH, _HEIGHT))
        and mask.get(_SAMPLES, 1) == 1
        and mask.get(_BITS, (1,)) in ((1,), (8,))
        and mask.get(_COMPRESSION, 1) in _MASK_COMPRESSIONS
        and not any(image.get(EXTRA_SAMPLES, (samples,)))  # some write none for alpha
    )
