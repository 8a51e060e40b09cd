"""``python -m sincut.app.look IMAGE PICTURE``: what an image is, and a small picture. No torch.

Prints one JSON object: ``width``, ``height``, ``depth``, ``profile``, ``alpha``, ``bytes`` and
``notices``, or ``error`` with the one line for which sincut refuses the file; of a folder ``count``
of its images, and the picture is a sheet of some. A process of its own,
because files from outside may be made to break decoders or to fill memory.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

from sincut.errors import SincutError, one_line
from sincut.images.bit_depth import as_depth
from sincut.images.reading.endings import INPUT_ENDINGS, images_among
from sincut.images.reading.open import open_source
from sincut.images.reading.source import Source, in_srgb

Pixels = npt.NDArray[np.uint8]
MOST_PIXELS = 20_000_000_000  # as ``sincut translate``
# Bytes: what needs more is refused before it is decoded.
MOST_MEMORY = min(4_000_000_000, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
_SHOWN = 400_000_000  # pixels above which there is no picture: reading takes long
_SIDE = 1280  # pixels of the picture's longest side
_ACROSS = 4  # images of a sheet, and as many down
_DEPTHS = {"uint8": "8", "uint16": "16", "float32": "float"}


def look(path: Path, picture: Path) -> dict[str, Any]:
    """What an image is; its picture is written where it is not too large to be read.

    Raises:
        SincutError: it is no image, or one that is not read.
    """
    with open_source(path, max_pixels=MOST_PIXELS, max_memory=MOST_MEMORY) as source:
        if source.width * source.height <= _SHOWN:
            _reduced(source).save(picture, "JPEG", quality=88, subsampling=0)
        return {
            "width": source.width,
            "height": source.height,
            "depth": _DEPTHS[source.dtype.name],
            "profile": _profile_name(source.carried.profile),
            "alpha": source.channels == 4,
            "bytes": path.stat().st_size,
            "notices": list(source.told_of_integers()),
        }


def seen(source: Source, rows: npt.NDArray[Any]) -> Pixels:
    """(rows, W, 3 or 4) of a source as (rows, W, 3) sRGB of 8 bits, over white as paper."""
    rgb: Pixels = as_depth(in_srgb(source, rows), np.dtype(np.uint8))
    if rows.shape[2] == 3:
        return rgb
    alpha = as_depth(rows[..., 3:], np.dtype(np.uint8)).astype(np.float32) / 255
    return (rgb * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def look_into(folder: Path, picture: Path) -> dict[str, Any]:
    """How many images a folder holds; its picture is a sheet of the first ones.

    Raises:
        SincutError: it holds none, or one of the first is not read.
    """
    images = images_among(folder.iterdir())
    if not images:
        raise SincutError(f"{folder} holds no image; allowed endings: {', '.join(INPUT_ENDINGS)}")
    cell = _SIDE // _ACROSS
    sheet = Image.new("RGB", (_SIDE, cell * -(-min(len(images), _ACROSS**2) // _ACROSS)), "white")
    for index, path in enumerate(images[: _ACROSS**2]):
        with open_source(path, max_pixels=MOST_PIXELS, max_memory=MOST_MEMORY) as source:
            small = ImageOps.fit(_reduced(source), (cell, cell))
        sheet.paste(small, (index % _ACROSS * cell, index // _ACROSS * cell))
    sheet.save(picture, "JPEG", quality=88, subsampling=0)
    return {"count": len(images), "notices": []}


def _reduced(source: Source) -> Image.Image:
    """The image at most ``_SIDE`` wide and high, by rows: means of squares, and then Lanczos."""
    square = max(math.ceil(max(source.width, source.height) / (2 * _SIDE)), 1)
    width, height = source.width // square or 1, source.height // square or 1
    small = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        rows = source.rows(row * square, min((row + 1) * square, source.height))
        cut = seen(source, rows)[:, : width * square]
        cells = cut.reshape(cut.shape[0], width, -1, 3)
        small[row] = cells.mean(axis=(0, 2)).round()
    image = Image.fromarray(small)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return image


def _profile_name(profile: bytes | None) -> str:
    """What an ICC profile calls itself; nothing without one."""
    if profile is None:
        return ""
    try:
        return one_line(
            ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        )
    except ImageCms.PyCMSError:
        return "ICC"


def main() -> None:
    """Print what is found, as JSON."""
    path, picture = map(Path, sys.argv[1:3])
    try:
        found = (look_into if path.is_dir() else look)(path, picture)
    except SincutError as error:
        found = {"error": str(error)}
    except MemoryError:
        found = {"error": f"{sys.argv[1]} takes more memory than there is; try a smaller copy"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
