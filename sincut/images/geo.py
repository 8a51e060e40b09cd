"""What GeoTIFF and GDAL say of a raster: where it lies, what is unknown, what its bands are.
No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from sincut.images.metadata import DAMAGE, copied_tags, text_of
from sincut.images.records import not_kept

_GDAL_METADATA, _NODATA = 42112, 42113
# GeoTIFF: pixel scale, tie points, transformation, keys with their doubles and text; the
# coefficients of a camera's rational polynomials.
_SCALE, _TIES, _TRANSFORMATION, _KEYS, _POLYNOMIALS = 33550, 33922, 34264, 34735, 50844
_PLACE = (_SCALE, _TIES, _TRANSFORMATION, _KEYS, 34736, 34737)
_TURNED = (_SCALE, _TIES, _TRANSFORMATION)
_RASTER_TYPE, _POINT, _DOUBLE = 1025, 2, 12
GEO_TAGS = (*_PLACE, _POLYNOMIALS, _GDAL_METADATA, _NODATA)
_WIDTH, _HEIGHT, _PHOTOMETRIC, _SAMPLES, _COLOUR_TABLE, _PALETTE = 256, 257, 262, 277, 320, 3

_ITEM = re.compile(r"\s*<Item\b([^>]*?)(?:/>|>(.*?)</Item>)", re.DOTALL)
_SAMPLE = re.compile(r"\bsample\s*=\s*[\"']\d+[\"']")
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")
# By the role of an item of GDAL's: what a translation makes untrue.
_ROLES = {
    "scale": "scale",
    "offset": "offset",
    "unittype": "unit",
    "colorinterp": "colour interpretation",
}

# By EXIF orientation: whether the column and the row of a pixel as stored count from the other end,
# and whether they are the row and the column of the upright image.
_TURNS = {
    2: (True, False, False),
    3: (True, True, False),
    4: (False, True, False),
    5: (False, False, True),
    6: (False, True, True),
    7: (True, True, True),
    8: (True, False, True),
}


def kept_geo(
    directory: Directory, orientation: int, places: Mapping[int, int] | None = None
) -> tuple[Directory | None, list[str]]:
    """The tags that are true of the output, and the names of what is left out.

    Args:
        orientation: by which the pixels are put upright; the tags are those of the pixels as they
            stand in the file.
        places: which bands of the file stand where in the output; if not given, all but a single
            one where they stand in the file.
    """
    if places is None:
        count = int(directory.get(_SAMPLES, 1))
        places = {} if count < 3 else {number: number for number in range(count)}
    geo, names = copied_tags(directory, GEO_TAGS), []
    if orientation in _TURNS and any(tag in geo for tag in _TURNED):
        try:
            size = int(directory[_HEIGHT]), int(directory[_WIDTH])
            geo = _moved(geo, _as_stored(geo, orientation, size))
        except DAMAGE:
            geo = copied_tags(geo, (tag for tag in geo if tag not in _PLACE))
            names.append("place on the map (it is damaged, and its orientation turns the pixels)")
    if orientation in _TURNS and _POLYNOMIALS in geo:
        geo = copied_tags(geo, (tag for tag in geo if tag != _POLYNOMIALS))
        names.append("rational polynomials (its orientation turns the pixels, not these)")
    if _GDAL_METADATA in geo:
        before = text_of(geo[_GDAL_METADATA])
        text, names_of_items = _true_items(before, places)
        names += names_of_items
        if text != before:
            kept = copied_tags(geo, (tag for tag in geo if tag != _GDAL_METADATA))
            if text:
                kept.tagtype[_GDAL_METADATA] = geo.tagtype[_GDAL_METADATA]
                kept[_GDAL_METADATA] = text.encode("latin-1")
            geo = kept
    if _COLOUR_TABLE in directory and directory.get(_PHOTOMETRIC) != _PALETTE:
        names.append("colour table")
    return geo or None, names


def cropped_geo(geo: Directory, left: int, top: int) -> tuple[Directory, list[str]]:
    """The tags of a part of an image that begins there, and what of them is lost."""
    names = []
    if any(tag in geo for tag in _TURNED):
        within = np.eye(4)
        within[:2, 3] = left, top
        try:
            geo = _moved(geo, within)
        except DAMAGE:
            geo = copied_tags(geo, (tag for tag in geo if tag not in _PLACE))
            names.append("place on the map (it is damaged)")
    if _POLYNOMIALS in geo:
        geo = copied_tags(geo, (tag for tag in geo if tag != _POLYNOMIALS))
        names.append("rational polynomials (they are of the whole image)")
    return geo, not_kept(names)


def _moved(geo: Directory, places: npt.NDArray[Any]) -> Directory:
    """The tags of pixels that are elsewhere now, and keep their places on the ground.

    A scale with a tie point becomes a transformation, as a scale cannot swap axes; points that tie
    pixels to the ground without one are moved themselves.

    Args:
        places: the matrix that takes (column, row, 0, 1) of a pixel now to what they were.

    Raises:
        ValueError: they are damaged.
    """
    kept = copied_tags(geo, (tag for tag in geo if tag not in _TURNED))
    ties = np.asarray(geo.get(_TIES, ()), float).reshape(-1, 6)
    if _SCALE in geo:
        scale = np.asarray(geo[_SCALE], float) * (1, -1, 1)
        place = np.diag([*scale, 1.0])
        place[:3, 3] = ties[0, 3:] - ties[0, :3] * scale
    elif _TRANSFORMATION in geo:
        place = np.asarray(geo[_TRANSFORMATION], float).reshape(4, 4)
    else:
        points = np.column_stack((ties[:, :3], np.ones(len(ties))))
        ties[:, :3] = (points @ np.linalg.inv(places).T)[:, :3]
        kept.tagtype[_TIES], kept[_TIES] = _DOUBLE, tuple(ties.ravel().tolist())
        return kept
    kept.tagtype[_TRANSFORMATION] = _DOUBLE
    kept[_TRANSFORMATION] = tuple((place @ places).ravel().tolist())
    return kept


def _as_stored(geo: Directory, orientation: int, size: tuple[int, int]) -> npt.NDArray[Any]:
    """The matrix that takes (column, row, 0, 1) of the upright image to those as stored."""
    across, down, swapped = _TURNS[orientation]
    keys = dict(zip(geo.get(_KEYS, ())[4::4], geo.get(_KEYS, ())[7::4], strict=False))
    # Places are those of the corners of pixels, or of their centres.
    less = 1 if keys.get(_RASTER_TYPE) == _POINT else 0
    matrix = np.eye(4)[[1, 0, 2, 3]] if swapped else np.eye(4)
    for axis, mirrored in enumerate((across, down)):
        if mirrored:
            matrix[axis] *= -1
            matrix[axis, 3] = size[1 - axis] - less
    return matrix


def _true_items(text: str, places: Mapping[int, int]) -> tuple[str, list[str]]:
    """GDAL's metadata without what is true of the input's values only, with its bands where they
    stand now, and the names of what is left out. The text is empty where of its items none is left;
    what had none stays as it is."""
    names: dict[str, None] = {}

    def kept(item: re.Match[str]) -> str:
        said = dict(_ATTRIBUTE.findall(item[1]))
        name = _ROLES.get(said.get("role", ""))
        if name is None and said.get("name", "").startswith("STATISTICS_"):
            name = "statistics"
        sample = said.get("sample", "")
        if name is None and sample.isdigit() and int(sample) not in places:
            name = "words on its bands"
        if name is None and sample.isdigit():
            head = _SAMPLE.sub(f'sample="{places[int(sample)]}"', item[0], count=1)
            return item[0] if int(sample) == places[int(sample)] else head
        if name is None:
            return item[0]
        names[name] = None
        return ""

    rest = _ITEM.sub(kept, text)
    return rest if rest == text or _ITEM.search(rest) else "", list(names)


def colour_order(directory: Directory) -> tuple[int, int, int] | None:
    """Which of the first three bands GDAL has for red, green and blue, where it says so."""
    if _GDAL_METADATA not in directory:
        return None
    places = {}
    for attributes, value in _ITEM.findall(text_of(directory[_GDAL_METADATA])):
        said = dict(_ATTRIBUTE.findall(attributes))
        if said.get("role") == "colorinterp" and said.get("sample", "") in ("0", "1", "2"):
            places[value.strip().lower()] = int(said["sample"])
    if set(places) < {"red", "green", "blue"} or len(places) != 3:
        return None
    return places["red"], places["green"], places["blue"]


def nodata_of(geo: Mapping[int, Any] | None, dtype: np.dtype[Any]) -> float | None:
    """The value of ``dtype`` that stands where a GeoTIFF knows nothing; not NaN, which says so."""
    if not geo or _NODATA not in geo:
        return None
    try:
        value = float(text_of(geo[_NODATA]))
    except ValueError:
        return None
    if dtype.kind == "f":
        return value if abs(value) <= float(np.finfo(dtype).max) else None
    return value if 0 <= value <= np.iinfo(dtype).max and value.is_integer() else None


def without_nodata(geo: Directory | None) -> Directory | None:
    """The tags but for that value."""
    return copied_tags(geo, set(geo) - {_NODATA}) or None if geo else None


def beside_nodata(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], nodata: float) -> int:
    """Move the values of ``valid`` pixels of (…, 3) that are ``nodata`` by the smallest step, in
    place, and count those pixels. GDAL takes every band by itself, and its warper does the same."""
    there = (pixels == pixels.dtype.type(nodata)) & valid[..., None]
    if pixels.dtype.kind == "f":
        step = np.nextafter(pixels.dtype.type(nodata), pixels.dtype.type(0.5))
    else:
        step = pixels.dtype.type(nodata + (1 if nodata < np.iinfo(pixels.dtype).max else -1))
    pixels[there] = step
    return int(there.any(axis=-1).sum())
