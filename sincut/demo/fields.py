"""What both example pictures are made of: noise, scattered discs, blending and colours.

Randomness comes from fixed tables that are looked up by place, so fields can be evaluated at any
points in any order. Other tables give other pictures of the same kind. Points and values are float
arrays of one common shape unless stated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

TILE = 512  # side of the periodic noise and random tables, a power of two
TEXELS_PER_WAVE = 8


def triple(*values: float) -> Floats:
    """Return the (3,) red, green and blue, or x, y and z."""
    return np.array(values, np.float32)


def hex_colour(code: str) -> Floats:
    """Return the (3,) sRGB colour of a web colour code, 0 to 1."""
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32) / 255


def palette(*codes: str) -> Floats:
    """Return the (N, 3) sRGB colours of web colour codes."""
    return np.stack([hex_colour(code) for code in codes])


def mix(first: Floats, second: Floats, share: Floats | float) -> Floats:
    """Blend linearly: `first` where `share` is 0, `second` where it is 1."""
    return first + (second - first) * share


def smoothstep(low: float, high: float, value: Floats) -> Floats:
    """Return a smooth ramp from 0 at `low` to 1 at `high`, which may be the smaller."""
    share: Floats = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


_variant = ContextVar("variant", default=0)


@contextmanager
def variant(number: int) -> Iterator[None]:
    """Use other tables inside: 0 are those of the example pair."""
    token = _variant.set(number)
    try:
        yield
    finally:
        _variant.reset(token)


def generator_of(seed: int) -> np.random.Generator:
    """Random numbers of a seed and the variant."""
    number = _variant.get()
    return np.random.default_rng(seed if not number else [seed, number])


@lru_cache(maxsize=1)
def _noise_tile(number: int) -> Floats:
    """Return (TILE * TILE,) band-limited periodic noise of unit deviation, flattened."""
    frequency = np.fft.fftfreq(TILE) * TEXELS_PER_WAVE
    band = np.exp(-(((np.hypot(frequency[:, None], frequency) - 1) / 0.32) ** 2))
    white = generator_of(7).standard_normal((TILE, TILE))
    tile = np.fft.ifft2(np.fft.fft2(white) * band).real.ravel()
    return np.asarray(tile / tile.std(), np.float32)


@lru_cache(maxsize=1)
def _random_table(number: int) -> Floats:
    """Return (TILE * TILE, 4) uniform numbers in [0, 1)."""
    return generator_of(11).random((TILE * TILE, 4), np.float32)


def noise(x: Floats, y: Floats) -> Floats:
    """Return smooth noise of unit wavelength, deviation 1 and mean 0 at the points (x, y)."""
    tile, x, y = _noise_tile(_variant.get()), x * TEXELS_PER_WAVE, y * TEXELS_PER_WAVE
    left, top = np.floor(x), np.floor(y)
    x, y = x - left, y - top
    column, row = left.astype(np.int32) % TILE, top.astype(np.int32) % TILE * TILE
    right, below = (column + 1) % TILE, (row + TILE) % (TILE * TILE)
    upper = mix(tile[row + column], tile[row + right], x)
    return mix(upper, mix(tile[below + column], tile[below + right], x), y)


def fractal(
    x: Floats, y: Floats, wave: float, octaves: int, footprint: Floats, ridged: bool = False
) -> Floats:
    """Return fractal noise of longest wavelength `wave`, without detail finer than `footprint`.

    `footprint` is the width of a pixel in the units of x and y: waves it cannot show fade out, so
    small pictures do not sparkle. `ridged` folds the noise into mountain crests.
    """
    total, weight, amplitude = np.zeros_like(x), np.ones_like(x), 0.5
    for octave in range(octaves):
        visible = np.clip(wave / (2 * footprint) - 0.5, 0, 1)
        if not visible.any():
            break
        value = noise(x / wave + 0.37 * octave, y / wave - 0.61 * octave)
        if ridged:  # Crests stay rough and valleys smooth: each octave is weighted by the last.
            value = (1 - np.minimum(0.9 * np.abs(value), 1.5)) * weight
            weight = np.clip(value + 0.5, 0, 1)
        total += amplitude * visible * value
        x, y = 0.8 * x - 0.6 * y, 0.6 * x + 0.8 * y
        wave, amplitude = 0.51 * wave, (0.47 if ridged else 0.5) * amplitude
    return total


class Scatter(NamedTuple):
    """Of many scattered discs, at each point the one that it lies deepest inside."""

    closeness: Floats  # 1 at its centre, 0 at its rim and outside
    size: Floats  # its radius, as a share of the spacing
    tint: Floats  # a number in [0, 1) of its own


def scatter(x: Floats, y: Floats, spacing: float, share: float = 1.0) -> Scatter:
    """Scatter discs on a jittered grid of which `share` of the places, 0 to 1, are filled.

    `spacing` is the width of a grid cell, in the units of x and y.
    """
    x, y = x / spacing - 0.5, y / spacing - 0.5
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    closeness, size, tint = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        place = (row + down) % TILE * TILE + (column + right) % TILE
        jitter_x, jitter_y, spread, own = np.moveaxis(_random_table(_variant.get())[place], -1, 0)
        radius = 0.35 + 0.4 * spread
        away_x = x - column - right + 0.25 - 0.5 * jitter_x
        away_y = y - row - down + 0.25 - 0.5 * jitter_y
        near = np.where(own < share, 1 - np.sqrt(away_x**2 + away_y**2) / radius, 0)
        nearer = near * radius > closeness * size  # farther inside: no steps between neighbours
        closeness = np.where(nearer, near, closeness)
        size = np.where(nearer, radius, size)
        tint = np.where(nearer, own / share, tint)
    return Scatter(closeness, size, tint)


def quantised(image: Floats) -> npt.NDArray[np.uint8]:
    """Return an image in 8 bits; values outside 0 to 1 are clipped."""
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
