"""Pictures written by Pillow, in one piece: what the outputs of sincut are compared with."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.files import write_atomically
from sincut.images.metadata import save_options
from sincut.images.profiles import Colours
from sincut.images.reading.source import Picture, Pixels
from sincut.images.writing.formats import OUTPUT_FORMATS


def lost_metadata(path: Path, source: Picture) -> tuple[str, ...]:
    """Notices of what the format of ``path`` cannot keep of ``source``'s metadata."""
    lost = save_options(OUTPUT_FORMATS[path.suffix.lower()], source.carried)[2]
    return tuple(notice for notice in lost if notice not in source.notices)


def write_picture(path: Path, rgb: Pixels, source: Picture, *, strip_metadata: bool) -> None:
    """Write (H, W, 3) sRGB in ``source``'s profile, with its alpha and metadata, atomically."""
    image = Image.fromarray(Colours(source.profile, source.converted).from_srgb(rgb))
    if source.alpha is not None:
        image.putalpha(Image.fromarray(source.alpha))
    kind = OUTPUT_FORMATS[path.suffix.lower()]
    per_kind: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": "4:4:4"},
        "PNG": {"compress_level": 6},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "WEBP": {"lossless": True, "exact": True},  # exact: also what lies under alpha 0
    }
    options = per_kind[kind]
    if source.profile is not None:
        options["icc_profile"] = source.profile
    directories: dict[int, Directory] = {}
    if not strip_metadata:
        metadata, directories, _ = save_options(kind, source.carried)
        options |= metadata
    with write_atomically(path) as file:
        image.save(file, format=kind, **options)
        for tag, directory in directories.items():
            append_directory(file, tag, directory)


def append_directory(file: IO[bytes], tag: int, directory: Directory) -> None:
    """Hang a directory behind a TIFF file, and put its offset in the place that ``tag`` has.

    Pillow's compressing TIFF encoder cannot write EXIF and GPS directories.
    """
    position = file.seek(0, os.SEEK_END)
    position += file.write(bytes(position % 2))  # they start at even offsets
    file.write(directory.tobytes(position))
    file.seek(4)
    (start,) = struct.unpack("<I", file.read(4))
    file.seek(start)
    (count,) = struct.unpack("<H", file.read(2))
    tags = [entry[0] for entry in struct.iter_unpack("<H10x", file.read(12 * count))]
    file.seek(start + 2 + 12 * tags.index(tag) + 8)
    file.write(struct.pack("<I", position))
