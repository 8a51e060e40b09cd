"""What an image is on the disk: a file, or a Zarr folder; and its digest. Nothing is decoded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sincut.files import file_digest

ENDING = ".zarr"
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a path has the name of a Zarr folder, there or not."""
    return path.suffix.lower() == ENDING


def image_digest(path: Path) -> str:
    """SHA-256 of an image file's bytes. Of a Zarr folder of its metadata, and of its other files'
    names and sizes: reading all of them would take long."""
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\n".encode())
        if file.name in _METADATA:
            digest.update(file.read_bytes())
    return digest.hexdigest()
