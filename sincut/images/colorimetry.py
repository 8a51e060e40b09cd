"""ICC profiles from what files say of their colours in other words. No torch.

A profile of ICC.1:2010 (version 4.2) from primaries, white and curves; the white is adapted to
that of the profiles by Bradford's method.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]  # chromaticities x and y

D65: Point = (0.3127, 0.3290)
# Red, green, blue: ITU-R BT.709 (sRGB), SMPTE EG 432-1 (P3), ITU-R BT.2020, Adobe RGB (1998).
SRGB: tuple[Point, ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3: tuple[Point, ...] = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT2020: tuple[Point, ...] = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
ADOBE: tuple[Point, ...] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _fixed(value: float) -> int:
    return round(value * 65536)


_GAMMAS = (0.2, 6.0)  # of what lies beyond nobody made a picture


def gamma_curve(gamma: float) -> bytes:
    """Light as a power of the value. ValueError for what no picture has."""
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        raise ValueError(f"a gamma of {gamma:g}")
    return b"para" + struct.pack(">4xHxxi", 0, _fixed(gamma))


def _segments(*parameters: float) -> bytes:
    """Light is (a x + b)^g from d on, and c x below it: parameters g, a, b, c, d."""
    return b"para" + struct.pack(">4xHxx5i", 3, *map(_fixed, parameters))


SRGB_CURVE = _segments(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE = _segments(1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)


def table_curve(light: Sequence[int]) -> bytes:
    """Light of 0 … 65535 for values at equal steps."""
    values = np.asarray(light)
    if values.size < 2 or values.min() < 0 or values.max() > 65535:
        raise ValueError("a curve of other numbers")
    return b"curv" + struct.pack(">4xI", values.size) + values.astype(">u2").tobytes()


def rgb_profile(
    primaries: Sequence[Point], white: Point = D65, curves: Sequence[bytes] = (SRGB_CURVE,)
) -> bytes:
    """A profile of RGB; one curve stands for all three.

    Raises:
        ValueError: no colours have these chromaticities.
    """
    white_xyz = _xyz(white)
    columns = np.stack([_xyz(point) for point in primaries], axis=1)
    if abs(np.linalg.det(columns)) < 1e-3:
        raise ValueError("primaries on one line")
    shares = np.linalg.solve(columns, white_xyz)
    if (shares <= 0).any():
        raise ValueError("a white outside its primaries")
    cones = np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white_xyz))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD
    red, green, blue = (adapted @ (columns * shares)).T
    three = list(curves) * (3 // len(curves))
    tags = {b"chad": b"sf32" + struct.pack(">4x9i", *map(_fixed, adapted.flat))}
    tags |= {b"rXYZ": _point(red), b"gXYZ": _point(green), b"bXYZ": _point(blue)}
    tags |= dict(zip((b"rTRC", b"gTRC", b"bTRC"), three, strict=True))
    return _profile(b"RGB ", tags)


def grey_profile(curve: bytes) -> bytes:
    """A profile of greys."""
    return _profile(b"GRAY", {b"kTRC": curve})


def _xyz(point: Point) -> npt.NDArray[np.float64]:
    x, y = point
    if not (0 <= x <= 1 and 0 < y <= 1 and x + y <= 1):
        raise ValueError(f"the chromaticity ({x:g}, {y:g})")
    return np.array([x / y, 1, (1 - x - y) / y])


def _point(xyz: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *map(_fixed, xyz))


def _text(words: str) -> bytes:
    data = words.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(data), 28) + data


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": _text("colours as the file states them"),
        b"cprt": _text("no copyright"),
        b"wtpt": _point(_D50),
    } | tags
    places: dict[bytes, int] = {}  # equal curves lie there once
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", places[data], len(data))
    head = struct.pack(
        ">I4xI4s4s4s12x4s24xI3i48x",
        start + len(body),
        0x04200000,
        b"mntr",
        space,
        b"XYZ ",
        b"acsp",
        1,  # relative colorimetric
        *map(_fixed, _D50),
    )
    return head + table + body
