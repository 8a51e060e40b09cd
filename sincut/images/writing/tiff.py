"""Tiled TIFF and BigTIFF from bands of pixels, with a pyramid where it is asked for. No torch.

How long the directories are is known before the tiles are: they stand at the front, with zeros for
the places and sizes of tiles, which are appended as they are finished, and are written over at the
end. So they lie below 4 GB even in the largest file: Pillow finds none that lie higher.

With a pyramid it is a Cloud Optimized GeoTIFF, whose tiles stand from the smallest level to the
image itself (https://docs.ogc.org/is/21-026/21-026.html): at the end they are copied in that order.
"""

from __future__ import annotations

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, chain

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.images.metadata import (
    INCH,
    NO_UNIT,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    KeptMetadata,
    save_options,
)
from sincut.images.writing.encoder import Encoder, _removed_on_failure
from sincut.images.writing.layout import BandPixels, Encoded, Layout, Progress, compressor
from sincut.images.writing.part_file import PartFile, beside

TILE = 256
# Above this many bytes of pixels it is a BigTIFF. The margin holds what deflate adds where it
# cannot compress, the tables of the tiles, and the metadata.
CLASSIC_LIMIT = 2**32 - 2**26
# Headers whose first directory is still nowhere.
_CLASSIC, _BIG = b"II*\0" + bytes(4), b"II+\0\x08\0\0\0" + bytes(8)
# What GDAL looks for behind it: https://gdal.org/en/stable/drivers/raster/cog.html
_ORDER = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_OPTIMIZED = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n%s" % (len(_ORDER), _ORDER)
_SHORT, _LONG, _LONG8, _UNDEFINED = 3, 4, 16, 7


class Tiff(Encoder):
    """Tiles of 256×256, RGB with or without unassociated alpha, deflated or as they are.

    Integers are deflated as differences to the left. Floats are deflated as they are: the
    predictor for them saves 14 % more, but tifffile cannot read it by itself.
    """

    def __init__(
        self,
        layout: Layout,
        carried: KeptMetadata,
        strip_metadata: bool,
        *,
        deflate: bool,
        pyramid: bool,
    ) -> None:
        super().__init__(layout)
        self.levels = levels(layout, pyramid)
        self.big = tiles_bytes(layout, pyramid) > CLASSIC_LIMIT
        self.header = _BIG if self.big else _CLASSIC
        self.said = _OPTIMIZED if pyramid else b""
        self.deflate = deflate
        self.predicted = deflate and layout.dtype.kind == "u"
        self.stored = layout.dtype.newbyteorder("<")
        self.profile, self.root = carried.profile, Directory()
        self.directories: dict[int, Directory] = {}
        self.dpi: tuple[float, float] | None = None
        self.aspect: tuple[int, int] | None = None
        if not strip_metadata:
            options, self.directories, self.lost = save_options("TIFF", carried)
            self.root, self.dpi = options["tiffinfo"], options.get("dpi")
            self.aspect = carried.records.aspect

    def start(self) -> bytes:
        """Header and directories, with zeros for where the tiles are."""
        zeros = [0] * sum(_tiles(height) * _tiles(width) for height, width in self.levels)
        return self._front(zeros, zeros)

    def encode(self, index: int, band: BandPixels) -> Encoded:
        """See :class:`Encoder`; the note holds the tiles' byte counts, row by row."""
        pieces = tuple(
            self._packed(band[top : top + TILE, left : left + TILE])
            for top in range(0, band.shape[0], TILE)
            for left in range(0, band.shape[1], TILE)
        )
        return Encoded(index, pieces, {"tiles": [len(piece) for piece in pieces]})

    def finish(self, part: PartFile, progress: Progress) -> None:
        """Add the smaller levels, tile row by tile row, and say where everything is."""
        rows = [
            (level, row)
            for level, (height, _) in enumerate(self.levels)
            for row in range(_tiles(height) if level else 0)
        ]
        sizes = [size for entry in part.entries for size in entry["tiles"]]
        places = list(accumulate(sizes, initial=len(self.start())))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for level, row in rows[len(part.entries) - part.bands :]:
                columns = range(_tiles(self.levels[level][1]))
                half = partial(self._half, part, places, level, row)
                pieces = list(pool.map(half, columns))
                new = [len(piece) for piece in pieces]
                part.append(pieces, {"tiles": new})
                sizes += new
                places += accumulate(new[1:], initial=places[-1] + new[0])
                progress((len(part.entries) - part.bands) / len(rows))
        if self.said:
            self._publish_in_order(part, places, sizes)
        else:
            part.write_tail(b"", self._front(places, sizes))
            part.publish()

    def _publish_in_order(self, part: PartFile, places: list[int], sizes: list[int]) -> None:
        """Bring a copy under the target's name, whose tiles stand from the smallest level on, each
        behind its size and before its last four bytes once more."""
        ends = list(accumulate(_tiles(height) * _tiles(width) for height, width in self.levels))
        spans = [range(*span) for span in zip([0, *ends], ends, strict=False)][::-1]
        moved, at = [0] * len(sizes), len(self.start())
        for tile in chain(*spans):
            moved[tile] = at + 4
            at += sizes[tile] + 8
        copy = beside(part.target, "cog")
        with part.told(), _removed_on_failure(copy), open(copy, "wb") as file:
            file.write(self._front(moved, sizes))
            for tile in chain(*spans):
                data = part.read(places[tile], sizes[tile])
                file.write(struct.pack("<I", len(data)) + data + data[-4:])
            file.flush()
            os.fsync(file.fileno())
        part.publish(copy)

    def _packed(self, pixels: BandPixels) -> bytes:
        """A tile's bytes. At the image's edges its last row and column are repeated."""
        height, width = pixels.shape[:2]
        pad = ((0, TILE - height), (0, TILE - width), (0, 0))
        tile = np.pad(pixels, pad, mode="edge").astype(self.stored, copy=False)
        if self.predicted:
            tile[:, 1:] -= tile[:, :-1].copy()
        if not self.deflate:
            return tile.tobytes()
        deflate = compressor()
        return b"".join((deflate.compress(tile), deflate.flush()))

    def _unpacked(self, data: bytes) -> BandPixels:
        data = zlib.decompress(data) if self.deflate else data
        tile = np.frombuffer(data, self.stored).reshape(TILE, TILE, self.layout.channels)
        return np.cumsum(tile, axis=1, dtype=self.layout.dtype) if self.predicted else tile

    def _half(self, part: PartFile, places: list[int], level: int, row: int, column: int) -> bytes:
        """A tile of a level: the means of 2×2 pixels of the level before."""
        height, width = self.levels[level - 1]
        first = sum(_tiles(h) * _tiles(w) for h, w in self.levels[: level - 1])
        grid = [
            [
                self._unpacked(part.read(places[at], places[at + 1] - places[at]))
                for left in (2 * column, 2 * column + 1)
                if left < _tiles(width)
                for at in (first + top * _tiles(width) + left,)
            ]
            for top in (2 * row, 2 * row + 1)
            if top < _tiles(height)
        ]
        pixels = np.concatenate([np.concatenate(tiles, axis=1) for tiles in grid])
        pixels = pixels[: height - 2 * TILE * row, : width - 2 * TILE * column]
        return self._packed(half_size(pixels))

    def _front(self, places: list[int], sizes: list[int]) -> bytes:
        """Header, the directory of each level, EXIF and GPS directories."""
        root = self._like(self.root)
        if self.dpi:
            root[X_RESOLUTION], root[Y_RESOLUTION] = self.dpi
            root[RESOLUTION_UNIT] = INCH
        elif self.aspect:
            root[X_RESOLUTION], root[Y_RESOLUTION] = self.aspect
            root[RESOLUTION_UNIT] = NO_UNIT
        for tag in self.directories:
            root.tagtype[tag], root[tag] = _LONG, 0
        front = self._images(root, places, sizes)
        behind = b""
        for tag, directory in self.directories.items():
            root[tag] = len(front) + len(behind)
            behind += self._like(directory).tobytes(root[tag])
            behind += bytes(-len(behind) % 8)
        return bytes(self._images(root, places, sizes) + behind)

    def _images(self, root: Directory, places: list[int], sizes: list[int]) -> bytearray:
        """Header and the directory of each level, of which ``root`` is the first."""
        front = bytearray(self.header + self.said)
        front += bytes(-len(front) % 8)
        form, link, done = ("<Q", 8, 0) if self.big else ("<I", 4, 0)
        for level, (height, width) in enumerate(self.levels):
            here, end = len(front), done + _tiles(height) * _tiles(width)
            directory = root if level == 0 else self._like(Directory())
            self._describe(directory, level, places[done:end], sizes[done:end])
            front += directory.tobytes(here)
            front += bytes(-len(front) % 8)
            struct.pack_into(form, front, link, here)
            # Behind the entries stands where the next directory is.
            link = here + (8 + 20 * len(directory) if self.big else 2 + 12 * len(directory))
            done = end
        return front

    def _like(self, directory: Directory) -> Directory:
        """A directory in this file's form, classic or big, with its types."""
        same = Directory(self.header)
        same.tagtype |= directory.tagtype
        same.update(directory)
        return same

    def _describe(
        self, directory: Directory, level: int, places: list[int], sizes: list[int]
    ) -> None:
        layout, (height, width) = self.layout, self.levels[level]
        tags = {
            256: (_LONG, width),
            257: (_LONG, height),
            258: (_SHORT, (8 * layout.dtype.itemsize,) * layout.channels),
            259: (_SHORT, 8 if self.deflate else 1),
            262: (_SHORT, 2),  # RGB
            277: (_SHORT, layout.channels),
            284: (_SHORT, 1),  # channels beside each other
            322: (_LONG, TILE),
            323: (_LONG, TILE),
            324: (_LONG8 if self.big else _LONG, tuple(places)),
            325: (_LONG, tuple(sizes)),
            339: (_SHORT, (3 if layout.dtype.kind == "f" else 1,) * layout.channels),
        }
        if len(self.levels) > 1:
            tags[254] = (_LONG, int(level > 0))  # of reduced resolution
        if self.predicted:
            tags[317] = (_SHORT, 2)
        if layout.channels > 3:  # alpha that colours are not multiplied with; nobody says what
            tags[338] = (_SHORT, (2,) * layout.alpha + (0,) * layout.others)
        if self.profile is not None:
            tags[34675] = (_UNDEFINED, self.profile)
        for tag, (kind, value) in tags.items():
            directory.tagtype[tag] = kind
            directory[tag] = value


def levels(layout: Layout, pyramid: bool) -> list[tuple[int, int]]:
    """Heights and widths: the image, then halves rounded up until no side is above 256."""
    sizes = [(layout.height, layout.width)]
    while pyramid and max(sizes[-1]) > TILE:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def tiles_bytes(layout: Layout, pyramid: bool) -> int:
    """Bytes of all tiles of all levels before deflating."""
    return tiles_count(layout, pyramid) * TILE * TILE * layout.pixel_bytes


def tiles_count(layout: Layout, pyramid: bool) -> int:
    """Tiles of all levels."""
    return sum(_tiles(height) * _tiles(width) for height, width in levels(layout, pyramid))


def half_size(pixels: BandPixels) -> BandPixels:
    """(ceil(H/2), ceil(W/2), C): means of 2×2 pixels; a last odd row or column counts twice.

    Integers are rounded half up. The mean is that of the stored values, as viewers expect.
    """
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    parts = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            mean: BandPixels = np.stack(parts).mean(axis=0, dtype=np.float32)
        return mean
    total: BandPixels = np.stack(parts).sum(axis=0, dtype=np.uint32)
    total += 2
    total >>= 2
    return total.astype(pixels.dtype)


def _tiles(side: int) -> int:
    return -(-side // TILE)
