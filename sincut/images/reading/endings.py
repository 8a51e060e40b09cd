"""Which files of a folder are taken for images: by their endings. No torch, no decoder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# Files of cameras: what they measured, not yet a picture.
RAW_ENDINGS = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".rw2"),
    *(".orf", ".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mrw", ".erf", ".kdc", ".dcr"),
    *(".mos", ".rwl", ".gpr"),
)

# What is taken from a folder; a file that is named is opened whatever its ending is.
INPUT_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".btf", ".webp", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pnm", ".jp2", ".heic", ".heif", ".hif", ".avif"),
    *RAW_ENDINGS,
)


def images_among(paths: Iterable[Path]) -> list[Path]:
    """The files with an image's ending, sorted, without hidden ones."""
    return sorted(
        each
        for each in paths
        if each.suffix.lower() in INPUT_ENDINGS and not each.name.startswith(".") and each.is_file()
    )
