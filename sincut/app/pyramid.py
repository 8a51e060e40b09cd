"""``python -m sincut.app.pyramid RESULT CONTENT FOLDER STRENGTH``: both in tiles. No torch.

Each becomes a Deep Zoom pyramid of PNG tiles, in 8 bits of sRGB and exact to the pixel, in the
folders ``result`` and ``content``. Files of any format and depth are read by rows, so memory stays
small.
``look.json`` appears last, says that all is there, and with which strength it was made.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sincut.app.look import MOST_MEMORY, MOST_PIXELS, Pixels, seen
from sincut.errors import SincutError
from sincut.files import write_text
from sincut.images.reading.open import open_source

TILE = 512
LOOK = "look.json"


class _Level:
    """One size of an image; what it gets it writes, and hands on at half the size.

    Args:
        folder: of the pyramid.
        number: 0 is a single pixel.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder / str(number)
        self.folder.mkdir(parents=True)
        self.smaller = _Level(folder, number - 1) if number else None
        self.waiting: list[Pixels] = []
        self.row = 0

    def add(self, rows: Pixels) -> None:
        """(rows, W, 3), the next of the image."""
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= TILE:
            together = np.concatenate(self.waiting)
            whole = len(together) // TILE * TILE
            for top in range(0, whole, TILE):
                self._write(together[top : top + TILE])
            self.waiting = [together[whole:]]

    def close(self) -> None:
        """All rows have come."""
        rest = np.concatenate(self.waiting)
        if len(rest):
            self._write(rest)
        if self.smaller:
            self.smaller.close()

    def _write(self, rows: Pixels) -> None:
        for column, left in enumerate(range(0, rows.shape[1], TILE)):
            tile = Image.fromarray(np.ascontiguousarray(rows[:, left : left + TILE]))
            path = self.folder / f"{column}_{self.row}.png"
            tile.save(path, "PNG", compress_level=1)
        self.row += 1
        if self.smaller:
            self.smaller.add(_halved(rows))


def _halved(rows: Pixels) -> Pixels:
    """Means of squares of four; at an odd edge the last ones count twice."""
    padding = ((0, rows.shape[0] % 2), (0, rows.shape[1] % 2), (0, 0))
    even = np.pad(rows, padding, mode="edge").astype(np.uint16)
    sums = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


def write_pyramid(image: Path, folder: Path) -> tuple[int, int]:
    """Cut an image into tiles; its width and height.

    Raises:
        SincutError: it cannot be read.
    """
    with open_source(image, max_pixels=MOST_PIXELS, max_memory=MOST_MEMORY) as source:
        top = (max(source.width, source.height) - 1).bit_length()
        level = _Level(folder, top)
        step = max(min(TILE, (1 << 24) // source.width), 1)
        for row in range(0, source.height, step):
            level.add(seen(source, source.rows(row, min(row + step, source.height))))
        level.close()
        return source.width, source.height


def main() -> None:
    """Write both pyramids."""
    result, content, folder = map(Path, sys.argv[1:4])
    (folder / LOOK).unlink(missing_ok=True)
    try:
        for image, name in ((result, "result"), (content, "content")):
            shutil.rmtree(folder / name, ignore_errors=True)
            width, height = write_pyramid(image, folder / name)
    except SincutError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    found: dict[str, object] = {
        "width": width,
        "height": height,
        "tile": TILE,
        "output": result.name,
    }
    found |= {"strength": float(sys.argv[4])}
    write_text(folder / LOOK, json.dumps(found))


if __name__ == "__main__":
    main()
