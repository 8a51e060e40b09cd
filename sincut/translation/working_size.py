"""The size at which the network works, where it is not the image's own."""

from __future__ import annotations

from dataclasses import dataclass

_SMALL_SIDES = (512, 256, 128, 64)  # of the network's tiles at a working size
# Bytes per pixel of the working size: kept while carrying, and at the peak before, as measured;
# the system gets little of it back between reducing, translating and fitting.
_CARRIED_BYTES, _PREPARING_BYTES = 60, 340


@dataclass(frozen=True)
class Working:
    """The size at which the network works where it is not the image's own, its tiles' side, and
    the host memory in bytes that it takes: kept all the time, and at the peak before."""

    height: int
    width: int
    tile: int
    held: int
    preparing: int
