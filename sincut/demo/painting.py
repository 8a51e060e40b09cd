"""The style of the example pair: a lake at sunset in oil, by brush strokes from coarse to fine.

Colours are sRGB, 0 to 1. Places in the motif are x and y, shares of the picture's width and
height; aspect is height over width. Angles are radians from the x axis towards the bottom.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sincut.demo.fields import (
    Floats,
    Mask,
    fractal,
    generator_of,
    hex_colour,
    mix,
    noise,
    palette,
    quantised,
    scatter,
    smoothstep,
)


class Layer(NamedTuple):
    """A layer of brush strokes; sizes are in pixels of a picture of REFERENCE_WIDTH."""

    breadth: float
    length: float
    spacing: float
    share: float  # of the places on the grid that get a stroke


class Ridge(NamedTuple):
    """A line of painted hills; lengths are shares of the picture's sides."""

    pigment: Floats
    rise: float  # of the crest above the waterline, in the middle of the picture
    tilt: float  # how much lower the crest is at the right edge than at the left
    light: float  # share of evening light on its slopes
    seed: float


REFERENCE_WIDTH = 1024  # pixels
LAYERS = (Layer(26, 95, 20, 1), Layer(12, 52, 11, 0.95), Layer(8, 32, 11, 0.7))
SKY_PIGMENTS = palette("f9d56b", "f7a35c", "ec7f7a", "b782b4", "6878bd")  # sun to zenith
SUN_PIGMENT = hex_colour("fff3c4")
CLOUD_ROSE, CLOUD_VIOLET = hex_colour("ffb7a0"), hex_colour("7d6cb0")
RIDGES = (
    Ridge(hex_colour("b98bb8"), rise=0.075, tilt=0.05, light=0.15, seed=0.0),
    Ridge(hex_colour("8465a8"), rise=0.055, tilt=-0.10, light=0.11, seed=3.1),
    Ridge(hex_colour("4f4a92"), rise=0.012, tilt=0.22, light=0.07, seed=6.2),
)
POPLAR_SHADE, POPLAR_LIGHT = hex_colour("1f4a5c"), hex_colour("d98a3c")
TURQUOISE, GOLD = hex_colour("2fa3a6"), hex_colour("ffd873")
BANK_SHADE, BANK_LIGHT = hex_colour("3b3a63"), hex_colour("8e9a3f")
FLOWERS = palette("e5432f", "f6c6d2", "f3b531", "fdf3df")
PRIMER = hex_colour("c98f6b")
ACCENTS = palette("3fb3b0", "f08a9b", "6a5cc0", "ffc25a")
SUN_PLACE = (0.55, 0.325)  # column, row
WATERLINE = 0.47
POPLARS = ((0.06, 0.27), (0.115, 0.38), (0.165, 0.31), (0.22, 0.43), (0.28, 0.25))  # column, size


class Motif(NamedTuple):
    """What to paint at N places."""

    colour: Floats  # (N, 3) sRGB
    angle: Floats  # (N,) direction of the strokes


def _cover(motif: Motif, inside: Mask, colour: Floats, angle: Floats) -> Motif:
    """Put a (N, 3) colour and (N,) angle in front of `motif` where `inside`, (N,), is true."""
    return Motif(
        np.where(inside[:, None], colour, motif.colour), np.where(inside, angle, motif.angle)
    )


def _sunset_sky(x: Floats, y: Floats, aspect: float) -> Motif:
    """Return a sky that glows round the sun, with bands of cloud, painted in swirls."""

    def from_sun(x: Floats, y: Floats) -> Floats:
        distance: Floats = np.hypot(x - SUN_PLACE[0], (y - SUN_PLACE[1]) * aspect)
        return distance

    def flow(x: Floats, y: Floats) -> Floats:
        return from_sun(x, y) + 0.045 * noise(x / 0.34, y * aspect / 0.2)

    # Strokes follow the contours of the flow: rings round the sun, and eddies.
    rings = flow(x, y)
    angle = np.arctan2(rings - flow(x + 0.004, y), flow(x, y + 0.004 / aspect) - rings)
    glow = np.clip(1.25 * rings + 0.9 * (SUN_PLACE[1] - y), 0, 0.999) * (len(SKY_PIGMENTS) - 1)
    band = glow.astype(np.int32)
    blend = (glow - band).astype(np.float32)
    colour = mix(SKY_PIGMENTS[band], SKY_PIGMENTS[band + 1], blend[:, None])
    cloud = fractal(x, 2.6 * y * aspect, 0.5, 5, np.full_like(x, 0.002))
    colour = mix(colour, CLOUD_ROSE, 0.75 * smoothstep(0.1, 0.5, cloud)[:, None])
    colour = mix(colour, CLOUD_VIOLET, 0.7 * smoothstep(-0.15, -0.6, cloud)[:, None])
    disc = smoothstep(0.042, 0.034, from_sun(x, y))
    return Motif(mix(colour, SUN_PIGMENT, disc[:, None]), angle)


def _add_ridge(motif: Motif, ridge: Ridge, x: Floats, y: Floats, aspect: float) -> Motif:
    """Put a ridge of hills in front of `motif`, its strokes along the slope of its crest."""

    def crest(x: Floats) -> Floats:
        rough = fractal(x, np.full_like(x, ridge.seed), 0.55, 5, np.full_like(x, 0.002))
        return WATERLINE - ridge.rise + (x - 0.5) * ridge.tilt - 0.055 * rough

    top = crest(x)
    light = ridge.light * (1 + noise(x / 0.05, (y - top) / 0.06))
    slope = np.arctan((crest(x + 0.004) - top) / 0.004 * aspect)
    colour = mix(ridge.pigment, CLOUD_ROSE, light[:, None])
    return _cover(motif, y > top, colour, slope + 0.5 * noise(x / 0.1, y / 0.1))


def _add_poplar(motif: Motif, place: float, size: float, x: Floats, y: Floats) -> Motif:
    """Put a poplar in front of `motif`, lit by the sun on its right."""
    wide = (x - place) / (0.017 + 0.013 * size) + 0.25 * noise(x / 0.03, y / 0.04)
    tall = (WATERLINE + 0.02 - y) / (0.5 * size) - 1
    light = np.clip(0.2 + 0.45 * wide + 0.25 * noise(x / 0.015, y / 0.02), 0, 0.8)
    colour = mix(POPLAR_SHADE, POPLAR_LIGHT, light[:, None])
    return _cover(motif, wide**2 + np.abs(tall) ** 2.5 < 1, colour, -1.4 + 0.7 * wide)


def _add_lake(motif: Motif, wave: Floats, x: Floats, y: Floats) -> Motif:
    """Tint the mirrored part of `motif` as water, with the glitter of the sun; `wave` is noise."""
    distance = np.maximum(y - WATERLINE, 0)
    tint = np.clip(0.35 + 0.25 * wave + 0.5 * distance, 0, 0.85)
    path = np.abs(x - SUN_PLACE[0] + 0.02 * wave) / (0.025 + 0.22 * distance)
    glitter = smoothstep(1, 0.3, path) * smoothstep(-0.6, 0.5, wave)
    colour = mix(mix(motif.colour, TURQUOISE, tint[:, None]), GOLD, glitter[:, None])
    return _cover(motif, y > WATERLINE, colour, 0.12 * wave)


def _add_bank(motif: Motif, x: Floats, y: Floats, aspect: float) -> Motif:
    """Put a bank of grass and flowers in front of `motif`."""
    edge = 0.86 - 0.16 * (x - 0.35) ** 2 + 0.02 * noise(x / 0.15, 0 * x)
    light = np.clip(0.5 + 0.35 * noise(x / 0.04, y / 0.05) - 1.5 * (y - edge), 0, 1)
    flower = scatter(x, y * aspect, 0.02, 0.3)
    kind = (len(FLOWERS) * flower.tint).astype(np.int32)
    petals = FLOWERS.take(kind, axis=0, mode="clip")
    grass = mix(BANK_SHADE, BANK_LIGHT, light[:, None])
    colour = np.where(flower.closeness[:, None] > 0.35, petals, grass)
    return _cover(motif, y > edge, colour, -1.35 + 0.5 * noise(x / 0.05, y / 0.05))


def _sunset(x: Floats, y: Floats, aspect: float) -> Motif:
    """Return the whole motif: a lake at sunset with hills, poplars and a bank of flowers."""
    water = y > WATERLINE
    distance = np.abs(y - WATERLINE)
    ripple = noise(x / 0.12, y / 0.012) * (0.15 * distance + 0.004)
    seen_x = np.where(water, x + 0.4 * ripple, x)
    seen_y = np.where(water, WATERLINE - distance + ripple, y)
    motif = _sunset_sky(seen_x, seen_y, aspect)
    for ridge in RIDGES:
        motif = _add_ridge(motif, ridge, seen_x, seen_y, aspect)
    for place, size in POPLARS:
        motif = _add_poplar(motif, place, size, seen_x, seen_y)
    motif = _add_lake(motif, noise(x / 0.09, y / (0.008 + 0.03 * distance)), x, y)
    return _add_bank(motif, x, y, aspect)


class Stroke(NamedTuple):
    """One brush stroke: place and size in pixels, angle in radians."""

    row: float
    column: float
    angle: float
    bend: float  # sideways drift per squared pixel along the stroke
    length: float
    breadth: float


def _paint_stroke(canvas: Floats, stroke: Stroke, pigment: Floats, bristles: Floats) -> None:
    """Paint onto `canvas`, (height, width, 4): colour and the thickness of the paint, 0 to 1.

    `pigment` is a (3,) colour; `bristles`, (M,), says how much paint the brush holds at each
    point across it, 0 to 1.
    """
    reach = int(0.6 * stroke.length + 0.5 * stroke.breadth) + 1
    top, left = max(int(stroke.row) - reach, 0), max(int(stroke.column) - reach, 0)
    patch = canvas[top : int(stroke.row) + reach + 1, left : int(stroke.column) + reach + 1]
    down = (np.arange(patch.shape[0], dtype=np.float32) + np.float32(top - stroke.row))[:, None]
    right = np.arange(patch.shape[1], dtype=np.float32) + np.float32(left - stroke.column)
    cosine, sine = np.float32(np.cos(stroke.angle)), np.float32(np.sin(stroke.angle))
    along = right * cosine + down * sine
    across = down * cosine - right * sine - np.float32(stroke.bend) * along * along
    hair = (across / np.float32(stroke.breadth) + 0.5) * len(bristles)
    paint = bristles.take(hair.astype(np.int32), mode="clip")
    # Hairs with more paint reach further, so the ends are ragged and streaks run dry.
    body = (0.36 + 0.2 * paint) * np.float32(stroke.length) - np.abs(along)
    side = np.float32(0.5 * stroke.breadth) - np.abs(across)
    opacity = np.clip(0.3 * body, 0, 1) * np.clip(side + 0.5, 0, 1)
    opacity *= np.clip(0.65 + 0.8 * paint - along * np.float32(0.9 / stroke.length), 0, 1)
    rim = np.clip(1 - 0.6 * side, 0, 1)  # paint squeezed out along the sides
    fresh = np.empty_like(patch)
    fresh[..., :3] = pigment * (0.88 + 0.22 * paint)[..., None]
    fresh[..., 3] = 0.75 * paint + 0.25 * rim
    patch += opacity[..., None] * (fresh - patch)


@cache
def _brushes() -> Floats:
    """Return (64, 96): how much paint each of 64 brushes holds at 96 points across it, 0 to 1."""
    across, brush = np.meshgrid(np.arange(96) * 0.08, np.arange(64) * 1.7)
    held = np.clip(0.5 + 0.28 * noise(across, brush), 0, 1)
    return np.asarray(held, np.float32)


def _paint_layer(canvas: Floats, layer: Layer, scale: float, random: np.random.Generator) -> None:
    """Paint the motif over `canvas` once, in strokes of one size, in random order.

    `scale` turns the layer's sizes into pixels of this picture.
    """
    height, width = canvas.shape[:2]
    step = layer.spacing * scale
    grid = np.mgrid[0 : height + step : step, 0 : width + step : step].reshape(2, -1)
    count = int(layer.share * grid.shape[1])
    places = random.permutation(grid, axis=1)[:, :count]
    rows, columns = places + random.uniform(-0.6, 0.6, places.shape) * step
    lengths = layer.length * scale * random.uniform(0.7, 1.15, count)
    breadths = layer.breadth * scale * random.uniform(0.75, 1.2, count)

    def motif(rows: Floats, columns: Floats) -> Motif:
        x, y = np.clip(columns / width, 0, 1), np.clip(rows / height, 0, 1)
        return _sunset(x.astype(np.float32), y.astype(np.float32), height / width)

    colours, angles = motif(rows, columns)
    _, ahead = motif(rows + np.sin(angles) * lengths / 3, columns + np.cos(angles) * lengths / 3)
    turns = np.clip(np.sin(ahead - angles) + random.normal(0, 0.12, count), -0.7, 0.7)
    angles = angles + random.normal(0, 0.09, count)  # an unsteady hand
    pigments: Floats = colours * random.normal(1, 0.055, (count, 1))
    pigments = pigments + random.normal(0, 0.022, (count, 3))
    # Broken colour: touches of other pigments that mix in the eye.
    broken = random.uniform(0.15, 0.42, (count, 1)) * (random.random((count, 1)) < 0.28)
    pigments = mix(pigments, ACCENTS[random.integers(len(ACCENTS), size=count)], broken)
    chosen = _brushes()[random.integers(len(_brushes()), size=count)]
    strokes = zip(rows, columns, angles, turns / lengths, lengths, breadths, strict=True)
    for stroke, pigment, bristles in zip(strokes, pigments, chosen, strict=True):
        _paint_stroke(canvas, Stroke(*stroke), pigment.astype(np.float32), bristles)


def _lit_paint(canvas: Floats) -> Floats:
    """Return the (height, width, 3) look of a canvas in raking light from the upper left."""
    row, column = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    weave = (np.cos(np.pi / 2 * row) * np.cos(np.pi / 2 * column)).astype(np.float32)
    thickness = canvas[..., 3]
    # The canvas shows where the paint is thin.
    relief = np.pad(thickness + 0.1 * (1 - thickness) * weave, 1, mode="edge")
    lower_right = relief[2:, 2:] + relief[1:-1, 2:] + relief[2:, 1:-1]
    upper_left = relief[:-2, :-2] + relief[1:-1, :-2] + relief[:-2, 1:-1]
    light = (lower_right - upper_left)[..., None] / 3
    shaded: Floats = canvas[..., :3] * (1 + 0.22 * light) + 0.1 * np.maximum(light, 0) ** 2
    return shaded


def render_style(width: int = 1024, height: int = 768) -> npt.NDArray[np.uint8]:
    """Paint a lake at sunset in oil, (height, width, 3) in 8-bit sRGB; sides from 64."""
    random = generator_of(5)
    scale = max(width / REFERENCE_WIDTH, 0.3)  # thinner strokes would be lost between the pixels
    canvas = np.empty((height, width, 4), np.float32)
    canvas[:] = (*PRIMER, 0)
    for layer in LAYERS:
        _paint_layer(canvas, layer, scale, random)
    return quantised(_lit_paint(canvas))
