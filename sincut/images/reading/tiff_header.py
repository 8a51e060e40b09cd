"""What a TIFF's directory says beside its pixels. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.images.geo import kept_geo
from sincut.images.metadata import (
    CENTIMETRE,
    DAMAGE,
    INCH,
    RESOLUTION_UNIT,
    SUBDIRECTORIES,
    TEXT_TAGS,
    X_RESOLUTION,
    Y_RESOLUTION,
    orientation_of,
    possible_dpi,
    tiff_exif,
    tiff_losses,
)
from sincut.images.reading.pages import Pages
from sincut.images.reading.rows import BIG_ENDIAN_BIGTIFF, tiff_directory
from sincut.images.reading.source import Header
from sincut.images.reading.stated import Stated, exif_colours, tiff_colours
from sincut.images.records import tiff_records

DROPPED = "its channels beyond colour and alpha are not kept"
_PHOTOMETRIC, _CMYK, _PROFILE = 262, 5, 34675
_EXIF, _INTEROPERABILITY = 34665, 40965


def tiff_header(
    file: IO[bytes],
    pages: Pages,
    *,
    grey: bool,
    beyond: bool,
    places: Mapping[int, int] | None = None,
) -> Header:
    """What the image's page says.

    Args:
        grey: whether its colours are.
        beyond: whether it has channels that are neither colour nor alpha.
        places: as :func:`kept_geo` takes them.
    """
    tags, notices, exif = pages.tags, [], None
    orientation = orientation_of(tags)
    if pages.count > 1:
        notices.append(f"it has {pages.count} images; the first is used")
    if pages.mask is not None:
        notices.append("its transparency mask becomes an alpha channel")
    if beyond:
        notices.append(DROPPED)
    geo, lost = kept_geo(tags, orientation, places)
    notices += tiff_losses(tags, [*lost, *["transparency mask"] * pages.lost_mask])
    file.seek(0)
    if file.read(4) != BIG_ENDIAN_BIGTIFF:
        try:
            exif = tiff_exif(file, pages.offset)
        except DAMAGE:
            notices.append("its EXIF is damaged and not kept")
    elif any(tag in tags for tag in (*TEXT_TAGS, *SUBDIRECTORIES)):  # Pillow cannot read it
        notices.append("its EXIF is not kept: it is a BigTIFF in big-endian order")
    profile, told = _profile(file, tags, grey)
    records = tiff_records(tags)[0]
    notices += told
    return Header(orientation, profile, exif, _dpi(tags), geo, tuple(notices), records)


def _profile(file: IO[bytes], tags: Directory, grey: bool) -> Stated:
    """Its ICC profile, or one of what it states otherwise; notices."""
    if _PROFILE in tags:
        return tags[_PROFILE], []
    if tags.get(_PHOTOMETRIC) == _CMYK:
        return None, []
    stated = tiff_colours(tags, grey)
    if stated[0] or stated[1] or grey or _EXIF not in tags:
        return stated
    try:
        exif = _directory_at(file, tags[_EXIF])
        return exif_colours(exif, _directory_at(file, exif.get(_INTEROPERABILITY)))
    except DAMAGE:
        return None, []


def _directory_at(file: IO[bytes], offset: int | None) -> Directory:
    """The directory there, or an empty one."""
    directory = tiff_directory(file)
    if offset:
        file.seek(offset)
        directory.load(file)
    return directory


def _dpi(tags: Directory) -> tuple[float, float] | None:
    """Dots per inch across and down, where it says so."""
    unit = tags.get(RESOLUTION_UNIT, INCH)
    if X_RESOLUTION not in tags or unit not in (INCH, CENTIMETRE):
        return None
    scale = 2.54 if unit == CENTIMETRE else 1
    try:
        across, down = (float(tags.get(tag, 1) * scale) for tag in (X_RESOLUTION, Y_RESOLUTION))
    except DAMAGE:
        return None
    return possible_dpi(across, down)
