"""HEIF and AVIF, decoded whole. No torch.

pillow-heif reads what both say beside their pixels, and decodes HEVC, upright; AV1 is decoded by
Pillow at 8 bits and by imagecodecs above, as it lies in the file.
"""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sincut.errors import SincutError
from sincut.images.metadata import DAMAGE, ORIENTATION, damage_told, upright_exif
from sincut.images.profiles import has_imagecodecs
from sincut.images.reading.extras import library
from sincut.images.reading.pillow import without_bomb_limit
from sincut.images.reading.rows import Array, ArrayRows
from sincut.images.reading.samples import Samples
from sincut.images.reading.source import (
    Header,
    Source,
    _Limits,
    _source,
    _too_much,
    check_size,
    reading,
)
from sincut.images.reading.stated import Stated, nclx_colours
from sincut.images.records import Records, kept_xmp, not_kept

_AVIF = (b"avif", b"avis")
_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
    *_AVIF,
)
_COPIES = 5  # of the pixels while they are decoded, at most, as measured
# An item that joins the image and a gain map for screens of high dynamic range.
_TONE_MAPPED = re.compile(rb"infe(\x02.{7}|\x03.{9})tmap", re.DOTALL)


@dataclass(frozen=True)
class _Opened:
    """A file whose header is read.

    ``info`` is pillow-heif's of its primary image, the ``number``-th from 0 of ``count``. ``size``
    (W, H) and ``orientation`` are of the pixels as they are decoded.
    """

    path: Path
    data: bytes
    image: Any
    info: Mapping[str, Any]
    number: int
    count: int
    avif: bool
    size: tuple[int, int]
    orientation: int

    @property
    def bits(self) -> int:
        return int(self.info["bit_depth"])

    @property
    def shape(self) -> tuple[str, bool, bool]:
        """``L`` or ``RGB``, whether there is alpha, and whether colours are multiplied by it."""
        kind = self.image.mode.split(";")[0]
        return "L" if kind[0] in "IL" else "RGB", kind[-1] in "Aa", kind[-1] == "a"


def is_heif(head: bytes) -> bool:
    """Whether a file that begins so is HEIF or AVIF."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def heif_source(path: Path, limits: _Limits) -> Source:
    """The primary image of a HEIF or AVIF, of 8 bits or, where it has more, of 16."""
    with damage_told() as damage:
        opened = _opened(path)
        width, height = opened.size
        check_size(path, width, height, limits.max_pixels)
        mode, alpha, premultiplied = opened.shape
        samples = {"L": 1, "RGB": 3}[mode] + alpha
        needed = _COPIES * math.prod(opened.size) * samples * (2 if opened.bits > 8 else 1)
        if needed > limits.max_memory:
            size = (height, width)
            raise _too_much(path, size, needed, limits.max_memory, "a TIFF copy, ", limits.held)
        header, notices = _header(opened)  # refuses what need not be decoded
        with reading(path):
            pixels = _decoded(opened)
    deep = pixels.dtype == np.uint16
    layout = Samples(
        mode,
        alpha,
        pixels.dtype,
        premultiplied=premultiplied,
        highest=(1 << opened.bits) - 1 if deep else None,
    )
    rows = ArrayRows(pixels)
    return _source(path, rows, layout, (height, width), header, notices, damage, limits)


def heif_size(path: Path, max_pixels: int) -> tuple[int, int]:
    """Width and height of the primary image as it is upright."""
    opened = _opened(path)
    check_size(path, *opened.size, max_pixels)
    return opened.size[::-1] if opened.orientation > 4 else opened.size


def _opened(path: Path) -> _Opened:
    heif = library("pillow_heif", "pillow-heif", "photo", path)
    with reading(path):
        data = path.read_bytes()
        try:
            file = heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
            image = file[file.primary_index]
        except RuntimeError as error:  # libheif's own
            raise ValueError(error) from None
        avif, size, orientation = data[8:12] in _AVIF, image.size, 1
        if avif:
            with _by_pillow(data) as opened:
                tags = Image.Exif()  # not the image's, which would be those of the XMP as well
                tags.load(opened.info.get("exif") or b"")
                size, orientation = opened.size, tags.get(ORIENTATION, 1)
                if data[8:12] == b"avis" and image.info["bit_depth"] > 8:
                    raise SincutError(
                        f"{path} is a sequence of images of more than 8 bits, which is not "
                        "supported; try a copy of one of them"
                    )
    return _Opened(
        path, data, image, image.info, file.primary_index, len(file), avif, size, orientation
    )


def _by_pillow(data: bytes) -> Image.Image:
    try:
        with without_bomb_limit():
            return Image.open(io.BytesIO(data), formats=("AVIF",))
    except UnidentifiedImageError:  # so it says of damage as well
        raise ValueError("its AV1 image cannot be opened") from None


def _decoded(opened: _Opened) -> Array:
    """(H, W, samples) uint8, or uint16 up to what its bits hold."""
    if not opened.avif:
        try:
            pixels = np.asarray(opened.image)
        except RuntimeError as error:
            raise ValueError(error) from None
    elif opened.bits == 8:
        with without_bomb_limit(), _by_pillow(opened.data) as image:
            pixels = np.asarray(image)
    else:
        pixels = _deep_avif(opened)
    return pixels.reshape(*pixels.shape[:2], -1)


def _deep_avif(opened: _Opened) -> Array:
    if not has_imagecodecs():
        raise SincutError(
            f"{opened.path} has {opened.bits} bits per channel, which as AVIF takes the package "
            "imagecodecs; try pip install 'sincut[photo]' or a copy of 8 bits"
        )
    codecs = importlib.import_module("imagecodecs")
    try:
        return np.asarray(codecs.avif_decode(opened.data))
    except RuntimeError as error:  # libavif's
        raise ValueError(error) from None


def _header(opened: _Opened) -> tuple[Header, list[str]]:
    notices, exif = [], None
    if opened.count > 1:
        notices.append(
            f"it has {opened.count} images; the primary one, number {opened.number + 1}, is used"
        )
    elif opened.data[8:12] == b"avis":
        notices.append("it is a sequence of images; the first is used")
    if opened.avif and sorted(opened.image.size) != sorted(opened.size):
        notices.append("its crop (clap) is not applied: all its pixels are used")
    xmp, lost = kept_xmp(opened.info.get("xmp"))
    notices += not_kept([*lost, *_losses(opened)])
    try:
        exif = upright_exif({"exif": opened.info["exif"]})
    except DAMAGE:
        notices.append("its EXIF is damaged and not kept")
    profile, told = _profile(opened)
    header = Header(opened.orientation, profile, exif, None, None, (), Records(xmp))
    return header, [*notices, *told]


def _profile(opened: _Opened) -> Stated:
    """Its ICC profile, or one of what it states otherwise, or None; and notices."""
    if profile := opened.info.get("icc_profile"):
        return profile, []
    code = opened.info.get("nclx_profile")
    if not code:
        return None, []
    grey = opened.shape[0] == "L"
    primaries, curve = int(code["color_primaries"]), int(code["transfer_characteristics"])
    return nclx_colours(opened.path, primaries, curve, grey)


def _losses(opened: _Opened) -> list[str]:
    """Names of what stands in the file beside the image and its records."""
    names = [str(kind).lower() for kind in opened.info.get("aux", ())]
    lost = []
    if opened.info["depth_images"] or any("depth" in name for name in names):
        lost.append("depth map")
    if any("gainmap" in name for name in names) or _TONE_MAPPED.search(opened.data):
        lost.append("gain map")
    if any("matte" in name for name in names):
        lost.append("matte")
    others = [n for n in names if not any(word in n for word in ("depth", "gainmap", "matte"))]
    lost += [f"auxiliary image ({name})" for name in dict.fromkeys(others)]
    across, down = opened.info.get("pixel_aspect_ratio") or (1, 1)
    if across != down:
        lost.append(f"pixel aspect of {across / down:.4g} to 1")
    kinds = [str(block.get("type")) for block in opened.info["metadata"]]
    return [*lost, *(f"metadata of the kind {kind}" for kind in dict.fromkeys(kinds))]
