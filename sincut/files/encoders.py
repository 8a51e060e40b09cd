"""PNG, JPEG, WebP and deep-zoom files from bands of pixels. No torch.

PNG and JPEG bands are encoded independently of each other, in any order, and joined: a PNG's
deflate stream is flushed at the end of a band, a JPEG has restart markers. What stands before the
pixels is what Pillow writes for a small image, so both say the same as any other output here.
WebP and deep zoom cannot be joined: their part file holds raw pixels, encoded at the end.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from sincut.errors import SincutError, one_line
from sincut.files.layout import Band, Encoded, Entry, Layout, Progress, compressor
from sincut.files.metadata import Carried, save_options
from sincut.files.partfile import Encoder, PartFile, beside
from sincut.files.rows import libvips

_CHUNK = 1 << 20  # bytes of rows that are filtered and compressed at a time
_ADLER = 65_521
_JPEG = MappingProxyType({"quality": 95, "subsampling": "4:4:4"})
_WEBP = MappingProxyType({"lossless": True, "exact": True})  # exact: also what lies under alpha 0

TILE_SIZE, OVERLAP = 254, 1  # pixels, of Deep Zoom: with the overlap a tile has 256


class _WithOptions(Encoder):
    """An encoder that takes its metadata from Pillow."""

    kind: str
    fixed: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, layout: Layout, carried: Carried, strip_metadata: bool) -> None:
        super().__init__(layout)
        self.options = dict(self.fixed)
        if carried.profile is not None:
            self.options["icc_profile"] = carried.profile
        if not strip_metadata:
            more, _, self.lost = save_options(self.kind, carried.exif, carried.dpi, carried.geo)
            self.options |= more


class Png(_WithOptions):
    """Filtered rows, deflated band by band."""

    kind = "PNG"

    def start(self) -> bytes:
        """Signature, header and metadata."""
        small = io.BytesIO()
        Image.new("RGB", (1, 1)).save(small, self.kind, **self.options)
        data = small.getvalue()
        place = 8
        while data[place + 4 : place + 8] != b"IDAT":
            place += 12 + int.from_bytes(data[place : place + 4], "big")
        layout = self.layout
        depth, colour = 8 * layout.dtype.itemsize, {3: 2, 4: 6}[layout.channels]
        header = struct.pack(">IIBBBBB", layout.width, layout.height, depth, colour, 0, 0, 0)
        return data[:8] + _chunk(b"IHDR", header) + data[8 + 25 : place]

    def encode(self, index: int, band: Band) -> Encoded:
        """See :class:`Encoder`; the note holds the Adler-32 and the length of what is deflated."""
        pixel, deflate = self.layout.pixel_bytes, compressor(-zlib.MAX_WBITS)
        pieces = [_chunk(b"IDAT", b"\x78\x01")] if index == 0 else []  # the stream's header
        adler, length, above = 1, 0, None
        step = max(1, _CHUNK // (self.layout.width * pixel))
        for top in range(0, len(band), step):
            rows = np.ascontiguousarray(band[top : top + step], band.dtype.newbyteorder(">"))
            rows = rows.reshape(len(rows), -1).view(np.uint8)
            filtered = _filtered(rows, above, pixel)
            above = rows[-1]
            adler = zlib.adler32(filtered.data, adler)
            length += filtered.size
            if data := deflate.compress(filtered.data):
                pieces.append(_chunk(b"IDAT", data))
        pieces.append(_chunk(b"IDAT", deflate.flush(zlib.Z_FULL_FLUSH)))
        return Encoded(index, tuple(pieces), {"adler": adler, "filtered": length})

    def note(self, encoded: Encoded, entries: Sequence[Entry]) -> Entry:
        """The Adler-32 of everything up to the end of this band."""
        before = entries[-1]["adler"] if entries else 1
        note = encoded.note
        return {"adler": adler_joined(before, note["adler"], note["filtered"])}

    def finish(self, part: PartFile, progress: Progress) -> None:
        """An empty last block, the checksum, the end."""
        checksum: int = part.entries[-1]["adler"]
        last = _chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", checksum))
        part.write_tail(last + _chunk(b"IEND", b""))
        part.publish()


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
        return bytes(head)

    def encode(self, index: int, band: Band) -> Encoded:
        """See :class:`Encoder`."""
        data = self._encoded(np.ascontiguousarray(band))
        scan = data[_jpeg_segments(data)[1] : -2]
        return Encoded(index, (b"\xff\xd7", scan) if index else (scan,))

    def _encoded(self, band: Band, **options: Any) -> bytes:
        file = io.BytesIO()
        image = Image.fromarray(band)
        image.save(file, self.kind, **{**_JPEG, **options}, restart_marker_rows=1)
        return file.getvalue()

    def finish(self, part: PartFile, progress: Progress) -> None:
        """The marker of the end."""
        part.write_tail(b"\xff\xd9")
        part.publish()


class Webp(_WithOptions):
    """Lossless WebP, encoded from the whole image at the end."""

    kind = "WEBP"
    fixed = _WEBP

    def start(self) -> bytes:
        """Nothing: the part file holds only pixels."""
        return b""

    def encode(self, index: int, band: Band) -> Encoded:
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


class DeepZoom(Encoder):
    """A pyramid of small JPEG tiles, or PNG with alpha, for viewers in a browser. Needs pyvips."""

    def __init__(self, layout: Layout, carried: Carried, strip_metadata: bool) -> None:
        super().__init__(layout)
        self.profile = carried.profile
        kept = {"EXIF": carried.exif, "resolution": carried.dpi, "GeoTIFF tags": carried.geo}
        if not strip_metadata and (names := [name for name, value in kept.items() if value]):
            self.lost = [f"not kept are its {', '.join(names)}: DZI cannot hold them"]

    def start(self) -> bytes:
        """Nothing: the part file holds only pixels."""
        return b""

    def encode(self, index: int, band: Band) -> Encoded:
        """See :class:`Encoder`."""
        return Encoded(index, (band.tobytes(),))

    def finish(self, part: PartFile, progress: Progress) -> None:
        """Cut the tiles under a hidden name, then rename: the folder first, the file last."""
        vips = loaded_vips(part.target)
        layout, base = self.layout, beside(part.target, "tiles")
        folder, file = Path(f"{base}_files"), Path(f"{base}.dzi")
        part.close_data()
        with part.told(), _removed_on_failure(folder, file):
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed here
            image = vips.Image.rawload(
                str(part.path),
                layout.width,
                layout.height,
                layout.channels,
                revalidate=True,  # not what it remembers of an earlier file of this name
            ).copy(interpretation="srgb")
            if self.profile is not None:
                image = image.copy()
                image.set_type(vips.GValue.blob_type, "icc-profile-data", self.profile)
            image.set_progress(True)
            image.signal_connect("eval", lambda _, status: progress(status.percent / 100))
            suffix = ".png" if layout.channels == 4 else ".jpg[Q=90]"
            try:
                tiling = {"tile_size": TILE_SIZE, "overlap": OVERLAP}
                image.dzsave(str(base), suffix=suffix, keep="icc", **tiling)
            except vips.Error as error:
                raise OSError(one_line(error)) from None
            place = deep_zoom_folder(part.target)
            if place.exists():
                shutil.rmtree(place)
            os.replace(folder, place)
        part.publish(file)


def deep_zoom_folder(target: Path) -> Path:
    """Where the tiles of a ``.dzi`` file lie."""
    return target.with_name(f"{target.stem}_files")


def loaded_vips(path: Path) -> Any:
    """The module pyvips; SincutError where it or its library is missing."""
    vips = libvips()
    if vips is None:
        raise SincutError(
            f"{path} needs pyvips, which is not installed; try pip install 'sincut[big]'"
        )
    return vips


def adler_joined(first: int, second: int, length: int) -> int:
    """Adler-32 of two texts joined, from that of each and the length of the second."""
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % _ADLER
    high = ((first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)) % _ADLER
    return high << 16 | low


def _filtered(rows: Band, above: Band | None, pixel: int) -> Band:
    """(R, B) bytes as PNG's rows (R, 1 + B), each with the filter of the least absolute sum.

    Sub, Up and Average are tried; Paeth was 2 % smaller at best for half the speed. Without a row
    ``above`` the first one does not look up: a band must not depend on the one before.
    """
    left = np.zeros_like(rows)
    left[:, pixel:] = rows[:, :-pixel]
    up = np.concatenate((np.zeros_like(rows[:1]) if above is None else above[None], rows[:-1]))
    average = (left & up) + ((left ^ up) >> 1)  # of two bytes without a ninth bit
    tried = np.stack((rows - left, rows - up, rows - average))
    best = np.minimum(tried, -tried).sum(axis=2, dtype=np.int64).argmin(axis=0)
    if above is None:
        best[0] = 0
    result = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    result[:, 0] = best + 1
    result[:, 1:] = tried[best, np.arange(len(rows))]
    return result


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(name))
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


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


@contextlib.contextmanager
def _removed_on_failure(*paths: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
