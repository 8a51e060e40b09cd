"""Colours that a file states otherwise than by an ICC profile, as one. No torch.

PNG's cICP, sRGB, gAMA and cHRM; the profile or the endpoints of a BMP's header; TransferFunction,
WhitePoint and PrimaryChromaticities of a TIFF; EXIF's mark of Adobe RGB (R03); nclx of HEIF, AVIF.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ImageCms

from sincut.errors import SincutError
from sincut.images.colorimetry import (
    ADOBE,
    BT709_CURVE,
    BT2020,
    D65,
    P3,
    SRGB,
    SRGB_CURVE,
    Point,
    gamma_curve,
    grey_profile,
    rgb_profile,
    table_curve,
)
from sincut.images.profiles import is_like_srgb

# Code points of ITU-T H.273: primaries with their white, and curves.
_PRIMARIES = {1: SRGB, 9: BT2020, 12: P3}
_CURVES = {
    **dict.fromkeys((1, 6, 14, 15), BT709_CURVE),
    **{4: gamma_curve(2.2), 5: gamma_curve(2.8), 8: gamma_curve(1.0), 13: SRGB_CURVE},
}
_HDR = {16: "PQ", 18: "HLG"}
_UNSPECIFIED, _BT709, _SRGB_TRANSFER = 2, 1, 13
# What is written for sRGB by who does not say sRGB, within libpng's margin: 1/2.2.
_GAMMA, _MARGIN = 0.45455, 0.05
_POINTS = 0.003  # by which primaries may differ from those they mean
_TRANSFER, _WHITE, _CHROMATICITIES = 301, 318, 319
_BMP_EMBEDDED, _BMP_LINKED, _BMP_CALIBRATED = b"DEBM", b"KNIL", bytes(4)

Stated = tuple[bytes | None, list[str]]  # a profile, where it is not sRGB, and notices


def refuse_hdr(path: Path, chunks: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a PNG whose colours only a screen of high dynamic range can show.

    Raises:
        SincutError: its curve is PQ or HLG.
    """
    code = dict(chunks).get(b"cICP", b"")
    if len(code) == 4:
        _refuse_curve(path, code[1], "cICP")


def _refuse_curve(path: Path, curve: int, where: str) -> None:
    if curve in _HDR:
        raise SincutError(
            f"{path} has {_HDR[curve]} colours of high dynamic range ({where}), which is not "
            "supported; allowed: sRGB, Display P3, Rec. 2020, gamma; try a copy in sRGB"
        )


def nclx_colours(path: Path, primaries: int, curve: int, grey: bool) -> Stated:
    """What a HEIF or AVIF states in the numbers of ITU-T H.273.

    Raises:
        SincutError: its curve is PQ or HLG.
    """
    _refuse_curve(path, curve, "nclx")
    primaries, curve = (
        default if number == _UNSPECIFIED else number
        for number, default in ((primaries, _BT709), (curve, _SRGB_TRANSFER))
    )
    if primaries not in _PRIMARIES or curve not in _CURVES:
        return None, ["its nclx colours are of a kind that is not supported; sRGB is assumed"]
    return _built("nclx", grey, [_CURVES[curve]], _PRIMARIES[primaries])


def png_colours(chunks: Sequence[tuple[bytes, bytes]], grey: bool) -> Stated | None:
    """What a PNG states beside an ICC profile; None where that counts, or nothing is said.

    Precedence as in the third edition of PNG: cICP, iCCP, sRGB, gAMA with cHRM.
    """
    said = dict(chunks)
    code, notices = said.get(b"cICP", b""), []
    if len(code) == 4:
        if code[0] in _PRIMARIES and code[1] in _CURVES and not code[2] and code[3]:
            primaries, curve = _PRIMARIES[code[0]], _CURVES[code[1]]
            return _built("cICP", grey, [curve], primaries)
        notices = ["its cICP is of a kind that is not supported and is ignored"]
    if b"iCCP" in said:
        return None
    if b"sRGB" in said:
        return None, notices
    gamma = _fixed(said.get(b"gAMA", b""), 1)
    points = _fixed(said.get(b"cHRM", b""), 8)
    names = [name for name, values in (("gAMA", gamma), ("cHRM", points)) if values]
    if not names:
        return (None, notices) if notices else None
    white, *primaries_said = list(zip(points[::2], points[1::2], strict=True)) or [D65, *SRGB]
    usual = _close([white, *primaries_said], [D65, *SRGB])
    if usual and (not gamma or abs(gamma[0] / _GAMMA - 1) < _MARGIN):
        return None, notices
    (exponent,) = gamma or [_GAMMA]
    curves = _curve(1 / exponent if exponent else 0.0)
    profile, told = _built(" and ".join(names), grey, curves, primaries_said, white)
    return profile, notices + told


def bmp_colours(file: IO[bytes]) -> Stated:
    """The profile in a BMP's header, or what its endpoints and gammas make."""
    file.seek(0)
    head = file.read(14 + 124)
    if len(head) < 14 + 108 or (size := struct.unpack_from("<I", head, 14)[0]) < 108:
        return None, []
    kind = head[70:74]
    if kind == _BMP_LINKED:
        return None, ["its colour profile is in another file and is not used; sRGB is assumed"]
    if kind == _BMP_EMBEDDED and size >= 124:
        offset, length = struct.unpack_from("<II", head, 14 + 112)
        file.seek(14 + offset)
        return file.read(length), []
    if kind != _BMP_CALIBRATED:
        return None, []
    ends = np.array(struct.unpack_from("<9i", head, 74)).reshape(3, 3) / 2**30
    gammas = [value / 65536 for value in struct.unpack_from("<3I", head, 110)]
    if not ends.any() or not any(gammas):
        return None, []  # nobody filled them in
    with np.errstate(invalid="ignore", divide="ignore"):
        points = [(float(x), float(y)) for x, y in ends[:, :2] / ends.sum(axis=1, keepdims=True)]
        total = ends.sum(axis=0)
    white = (float(total[0] / total.sum()), float(total[1] / total.sum()))
    curves = [curve for gamma in gammas for curve in _curve(gamma)]
    return _built("calibrated colours", False, curves, points, white)


def tiff_colours(directory: Mapping[int, Any], grey: bool) -> Stated:
    """What a TIFF states in its tags of colorimetry."""
    tags = {_TRANSFER: "TransferFunction", _WHITE: "WhitePoint"}
    tags[_CHROMATICITIES] = "PrimaryChromaticities"
    there = {tag: directory[tag] for tag in tags if tag in directory}
    if not there:
        return None, []
    named = ", ".join(tags[tag] for tag in there)
    try:
        white = tuple(float(value) for value in there.get(_WHITE, D65))
        values = [float(value) for value in there.get(_CHROMATICITIES, np.ravel(SRGB))]
        points = list(zip(values[::2], values[1::2], strict=True))
        curves = _tiff_curves(there[_TRANSFER]) if _TRANSFER in there else []
    except (ValueError, TypeError, ArithmeticError):
        return _built(named, grey, [], SRGB)
    if len(points) != 3 or len(white) != 2:
        return _built(named, grey, [], SRGB)
    if not curves:
        # Without a function the standard has a gamma of 2.2; writers of sRGB leave it out as well.
        if grey or _close([white, *points], [D65, *SRGB]):
            return None, []
        curves = [gamma_curve(2.2)]
    return _built(named, grey, curves, points, white)


def exif_colours(exif: Mapping[int, Any], interoperability: Mapping[int, Any]) -> Stated:
    """Adobe RGB, where EXIF says so by the names of DCF."""
    index = interoperability.get(1)
    index = index.decode("latin-1") if isinstance(index, bytes) else str(index)
    if index.strip("\0 ") != "R03" and exif.get(0xA001) != 2:
        return None, []
    return _built("EXIF's Adobe RGB (R03)", False, [gamma_curve(563 / 256)], ADOBE)


def _built(
    named: str,
    grey: bool,
    curves: Sequence[bytes],
    primaries: Sequence[Point],
    white: Point = D65,
) -> Stated:
    """A profile where it is not sRGB, and what is to be told of it."""
    try:
        if not curves:
            raise ValueError("no curve")
        profile = grey_profile(curves[0]) if grey else rgb_profile(primaries, white, curves)
        if curves[0] == SRGB_CURVE if grey else is_like_srgb(profile):
            return None, []
    except (ValueError, ImageCms.PyCMSError):
        return None, [f"its {named} cannot be used; sRGB is assumed"]
    return profile, [f"an ICC profile is made of its {named}"]


def _curve(gamma: float) -> list[bytes]:
    try:
        return [gamma_curve(gamma)]
    except ValueError:
        return []


def _tiff_curves(table: Sequence[int]) -> list[bytes]:
    """One or three tables. The standard has 2^bits values in each, some writers fewer; for 16 bits
    there are more than a profile needs."""
    values = np.asarray(table)
    size = 1 << (values.size.bit_length() - 1)
    if values.size == 3 * size // 2:
        size //= 2
    rows = values.reshape(-1, size)  # ValueError: another size
    places = np.linspace(0, size - 1, min(size, 4096)).round().astype(int)
    return [table_curve(row[places].tolist()) for row in rows]


def _fixed(data: bytes, count: int) -> list[float]:
    """PNG's numbers; none where it has not as many."""
    if len(data) != 4 * count:
        return []
    return [value / 100_000 for value in struct.unpack(f">{count}I", data)]


def _close(points: Sequence[Point], others: Sequence[Point]) -> bool:
    return bool(np.abs(np.subtract(points, others)).max() <= _POINTS)
