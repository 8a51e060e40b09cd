"""The content of the example pair: a photograph-like mountain lake, by ray casting.

World lengths are metres: x right, y up, z away from the camera, which stands at x = z = 0. Light
and reflectances are linear; only the finished picture is sRGB. A point's footprint is the width
of a pixel there, in metres: detail that it cannot show is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sincut.demo.fields import (
    Floats,
    Mask,
    Scatter,
    fractal,
    generator_of,
    mix,
    noise,
    quantised,
    scatter,
    smoothstep,
    triple,
)

Height = Callable[[Floats, Floats, Floats], Floats]  # of x, z and footprint

BLOCKS = 24  # arrays are worked on in pieces that stay in the processor's cache

# Places in metres, light and reflectances in linear light.
CAMERA_HEIGHT = 2.3
FAR_SHORE = 820.0
TREE_LINE = 420.0
SNOW_LINE = 620.0
TREE_SPACING = 6.5
STONES = ((0.1, 1.0), (0.21, 0.85), (0.5, 0.55), (1.7, 0.14))  # spacing, share of places filled
TO_SUN = triple(-0.82, 0.46, -0.34)
SUNLIGHT = triple(2.1, 1.75, 1.32)
SKYLIGHT = triple(0.16, 0.23, 0.34)
ZENITH, HORIZON = triple(0.07, 0.19, 0.45), triple(0.50, 0.64, 0.78)
CLOUD_SHADE, CLOUD_LIGHT = triple(0.38, 0.45, 0.56), triple(1.05, 1.0, 0.93)
HAZE, HAZE_DISTANCE = triple(0.44, 0.57, 0.74), triple(19000, 13000, 8500)
GRANITE, OCHRE, SNOW = triple(0.20, 0.17, 0.14), triple(0.31, 0.22, 0.12), triple(0.8, 0.84, 0.9)
SPRUCE, LARCH = triple(0.035, 0.062, 0.022), triple(0.13, 0.115, 0.025)
MEADOW = triple(0.15, 0.17, 0.04)
SAND, SLATE, LIMESTONE = triple(0.25, 0.19, 0.12), triple(0.2, 0.2, 0.2), triple(0.42, 0.36, 0.3)
DEEP_WATER, SHALLOWS = triple(0.008, 0.04, 0.052), triple(0.03, 0.085, 0.085)
WATER_ABSORPTION = triple(1.6, 0.8, 0.9)  # per metre


def _ground(x: Floats, z: Floats, footprint: Floats) -> Floats:
    """Return the height of the bare land round the lake, in metres, negative in the lake."""
    far = z - FAR_SHORE - 90 * noise(x / 500, z / 900 + 0.2)
    left = -x - 70 - 0.2 * z - 40 * noise(x / 400, z / 400)
    inland = np.maximum(np.maximum(far, left), -40)
    rolling = 60 * (fractal(x, z, 800, 8, footprint) + 0.2)
    hills = 0.10 * np.minimum(inland, 900) + smoothstep(0, 500, inland) * rolling
    range_share = smoothstep(1300, 5200, z + 0.9 * np.abs(x + 900))
    warp = 90 * noise(x / 1500, z / 1500)
    crests = fractal(x + warp + 2300, z - warp, 4200, 11, footprint, ridged=True)
    variety = 1 + 0.25 * noise(x / 2500 + 0.3, z / 2500)
    mountains: Floats = range_share * variety * (1500 * np.maximum(crests, 0) - 230)
    return hills + mountains


def _woodland(x: Floats, z: Floats, footprint: Floats, ground: Floats) -> Floats:
    """Return the share of land under trees, 0 to 1: below the tree line, except for clearings."""
    altitude = ground / TREE_LINE + 0.35 * fractal(x, z, 260, 4, footprint)
    clearing = smoothstep(0.5, 0.62, fractal(x + 900, z, 330, 4, footprint))
    return smoothstep(1, 0.9, altitude) * (1 - clearing) * smoothstep(2, 2.7, ground)


def _canopy(x: Floats, z: Floats, footprint: Floats, ground: Floats) -> Floats:
    """Return the height of the trees above the ground, in metres."""
    tree = scatter(x, z, TREE_SPACING)
    cone: Floats = np.minimum(2.4 * tree.closeness, 0.6 + 0.7 * tree.closeness)
    cone *= 1 + 0.4 * fractal(x, z, 2, 2, footprint)  # boughs
    resolved = np.clip(5 / footprint - 0.5, 0, 1)
    return cone * (1 + 38 * tree.size**2) * resolved * _woodland(x, z, footprint, ground)


def _land(x: Floats, z: Floats, footprint: Floats) -> Floats:
    """Return the height of the land with its trees, in metres."""
    ground = _ground(x, z, footprint)
    return ground + _canopy(x, z, footprint, ground)


def _stones(x: Floats, z: Floats) -> tuple[Floats, Scatter]:
    """Return the height of the stones on the sand, in metres, and the topmost at each point."""
    height, top = np.zeros_like(x), Scatter(*np.zeros((3, *x.shape), np.float32))
    for spacing, share in STONES:
        stone = scatter(x + 3 * spacing, z, spacing, share)
        dome = 0.5 * spacing * stone.size * (1 - (1 - stone.closeness) ** 2.4)
        higher = dome > height
        height = np.maximum(height, dome)
        top = Scatter(*(np.where(higher, *pair) for pair in zip(stone, top, strict=True)))
    return height, top


def _beach(x: Floats, z: Floats, footprint: Floats) -> Floats:
    """Return the height of the stony beach, in metres, negative under water."""
    slope = 0.19 * (8.6 + 0.27 * x - z + noise(x / 9, z / 9))
    sand = 0.6 * slope + 0.03 * fractal(x, z, 1.2, 7, footprint)
    stones, _ = _stones(x, z)
    return sand + stones + 0.012 * fractal(x, z, 0.4, 7, footprint, ridged=True)


def _rays(height: int, width: int) -> tuple[Floats, Floats]:
    """Return the slopes of the view rays: (height, 1) upward and (1, width) to the right."""
    focal = 0.92 * width
    up = (0.5 * height - 0.5 - np.arange(height, dtype=np.float32)[:, None]) / focal
    return up, (np.arange(width, dtype=np.float32)[None] + 0.5 - 0.5 * width) / focal


def _cast(up: Floats, right: Floats, height_at: Height, depths: Floats) -> Floats:
    """Return the (height, width) depth z at which each view ray meets a height field, or inf.

    `up` and `right` are as from `_rays`; `depths` are the (N,) rising depths to look at.
    Each column of pixels sees one line of the field. On it, the highest slope seen so far grows
    with depth, so the place where it reaches a pixel's slope is found by bisection.
    """
    pixel = right[0, 1] - right[0, 0]
    blocks = np.array_split(depths[:, None] + 0 * right, BLOCKS)
    heights = np.concatenate([height_at(z * right, z, z * pixel) for z in blocks])
    slope = (heights - CAMERA_HEIGHT) / depths[:, None]
    skyline = np.maximum.accumulate(slope, axis=0)
    hit = np.stack([np.searchsorted(column, up[:, 0]) for column in skyline.T], axis=1)
    after = np.clip(hit, 1, len(depths) - 1)
    near, far = (np.take_along_axis(slope, index, 0) for index in (after - 1, after))
    along = np.clip((up - near) / np.maximum(far - near, 1e-7), 0, 1)
    depth = mix(depths[after - 1], depths[after], along)
    return np.where(hit < len(depths), depth, np.inf).astype(np.float32)


def _slopes(
    height_at: Height, x: Floats, z: Floats, footprint: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the slopes of a height field along x and z, and its height in metres."""
    step = 0.8 * footprint
    level = height_at(x, z, footprint)
    slope_x = (height_at(x + step, z, footprint) - level) / step
    return slope_x, (height_at(x, z + step, footprint) - level) / step, level


def _normal(slope_x: Floats, slope_z: Floats) -> Floats:
    """Return the (N, 3) unit normals of a surface with these slopes."""
    normal = np.stack([-slope_x, np.ones_like(slope_x), -slope_z], -1)
    return normal / np.sqrt(1 + slope_x**2 + slope_z**2)[:, None]


def _lit(albedo: Floats, normal: Floats, sunlit: Floats) -> Floats:
    """Return the (N, 3) light from a matt surface under sun and sky; `sunlit` is 0 in shadow."""
    direct = (np.maximum(normal @ TO_SUN, 0) * sunlit)[:, None]
    return albedo * (direct * SUNLIGHT + (0.35 + 0.65 * normal[:, 1:2]) * SKYLIGHT)


def _sunlit(x: Floats, z: Floats) -> Floats:
    """Return how much of the sun (N,) points of the land see past the hills, 0 to 1."""
    coarse = np.full_like(x, 25)
    ground, light = _ground(x, z, coarse), np.ones_like(x)
    for way in (120, 260, 500, 900, 1500):
        hill = _ground(x + way * TO_SUN[0], z + way * TO_SUN[2], coarse)
        clear = ground + way * TO_SUN[1] + 12 - hill
        light = np.minimum(light, smoothstep(-0.06 * way, 0.06 * way, clear))
    return light


def _land_light(x: Floats, z: Floats, pixel: float) -> Floats:
    """Return the (N, 3) light that reaches the camera from (N,) points of the land."""
    footprint = z * pixel
    slope_x, slope_z, _ = _slopes(_land, x, z, footprint)
    # What grows or lies somewhere depends on the lie of the land, not on each rock.
    *lie, ground = _slopes(_ground, x, z, np.maximum(footprint, 6))
    flatness = _normal(*lie)[:, 1]
    grain, patch = fractal(x, z, 60, 8, footprint), fractal(x, z, 900, 5, footprint)
    strata = noise(x / 400, ground / 38 + 0.5 * grain)
    ochre = np.clip(0.4 + 0.35 * strata + 0.4 * patch, 0, 1)
    albedo = mix(GRANITE, OCHRE, ochre[:, None]) * np.maximum(1 + 0.6 * grain, 0.3)[:, None]
    grass = smoothstep(0.62, 0.82, flatness + 0.15 * grain)
    grass *= smoothstep(SNOW_LINE + 280, 300, ground + 250 * patch)
    meadow = MEADOW * np.maximum(1 + 0.6 * grain + 0.3 * patch, 0.3)[:, None]
    albedo = mix(albedo, meadow, grass[:, None])
    snow = smoothstep(0, 130, ground - SNOW_LINE + 200 * patch + 140 * grain)
    snow *= smoothstep(0.42, 0.66, flatness + 0.1 * grain) * (ground > 0.5 * SNOW_LINE)
    albedo = mix(albedo, SNOW, snow[:, None])
    tree = scatter(x, z, TREE_SPACING)
    larch = smoothstep(0.62, 0.95, tree.tint + 0.35 * patch)
    needles = mix(SPRUCE, LARCH, larch[:, None])
    # The space between the trees is dark: light falls off towards the rim of each crown.
    needles = needles * ((0.45 + tree.closeness) * (0.8 + 0.5 * tree.tint))[:, None]
    wooded = smoothstep(0.02, 0.15, _woodland(x, z, footprint, ground))
    albedo = mix(albedo, needles, wooded[:, None])
    light = _lit(albedo, _normal(slope_x, slope_z), _sunlit(x, z))
    return mix(light, HAZE, 1 - np.exp(-z[:, None] / HAZE_DISTANCE))


def _sky(up: Floats, right: Floats) -> Floats:
    """Return the (height, width, 3) light of the sky; below the horizon, its mirror image."""
    up, right = np.broadcast_arrays(np.abs(up), right)
    clear = mix(HORIZON, ZENITH, smoothstep(-0.1, 0.6, up + 0.06 * right)[..., None])
    z = 1 / (up + 0.14)  # The clouds lie in a plane; the offset keeps it from reaching infinity.
    footprint = 0.6 * z**2 * (right[0, 1] - right[0, 0])
    x = 0.9 * right * z + 0.3 * z
    warp = 0.12 * noise(x, 1.3 * z)
    x, z = x + warp, 1.25 * z - warp
    cover = 0.35 + 0.35 * noise(x / 4 + 0.15, z / 5 + 0.4)
    density = fractal(x, z, 1.9, 9, footprint)
    towards_sun = fractal(x - 0.06, z - 0.05, 1.9, 9, footprint)
    thick = smoothstep(0.3, 1.6, density + cover)
    light = np.clip(0.62 + 0.9 * (density - towards_sun) - 0.22 * thick, 0, 1.1)
    cloud = mix(CLOUD_SHADE, CLOUD_LIGHT, light[..., None])
    return mix(clear, cloud, 0.92 * smoothstep(-0.12, 0.95, density + cover)[..., None])


def _bilinear(image: Floats, row: Floats, column: Floats) -> Floats:
    """Return the (N, 3) values of `image` at (N,) places between pixels, its edges extended."""
    row = np.clip(row, 0, image.shape[0] - 1.01).astype(np.float32)
    column = np.clip(column, 0, image.shape[1] - 1.01).astype(np.float32)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = (row - top)[:, None], (column - left)[:, None]
    upper = mix(image[top, left], image[top, left + 1], right)
    lower = mix(image[top + 1, left], image[top + 1, left + 1], right)
    return mix(upper, lower, down)


def _paint_lake(image: Floats, water: Mask, up: Floats, right: Floats) -> None:
    """Fill the `water` pixels of `image` with the rippled reflection of what stands above.

    `image` is (height, width, 3) and changed in place; `water` is (height, width).
    """
    pixel = right[0, 1] - right[0, 0]
    row, column = np.nonzero(water)
    down = -up[row, 0]
    z = CAMERA_HEIGHT / down
    x = z * right[0, column]
    # Seen at a grazing angle a pixel covers far more water in depth than in width.
    footprint = np.maximum(0.35 * z * z * pixel / CAMERA_HEIGHT, z * pixel)

    def swell(x: Floats, z: Floats, footprint: Floats) -> Floats:
        return 0.016 * fractal(x, 1.5 * z, 2.2, 8, footprint) + 0.012 * noise(x / 9, z / 5)

    breeze = 0.25 + smoothstep(-0.2, 1, fractal(x / 3 + 5, z, 60, 4, footprint))
    slope_x, slope_z, _ = _slopes(swell, x, z, footprint)
    slope_x, slope_z = slope_x * breeze, slope_z * breeze
    mirrored_up = np.abs(down - 1.5 * slope_z)
    mirrored = _bilinear(
        image,
        row - (down + mirrored_up) / pixel,
        column + 6 * slope_x * down / pixel,
    )
    cosine = np.clip((down + slope_z) / np.sqrt(1 + down**2), 0.02, 1)
    reflectance = 0.02 + 0.98 * (1 - cosine) ** 5
    image[water] = mix(DEEP_WATER, mirrored, reflectance[:, None])


def _beach_light(x: Floats, z: Floats, pixel: float, water: Floats) -> Floats:
    """Return the (N, 3) light from (N,) points of the beach; `water` is that off the lake there."""
    footprint = z * pixel
    slope_x, slope_z, level = _slopes(_beach, x, z, footprint)
    _, stone = _stones(x, z)
    tint = 7.3 * stone.tint % 1  # a number unrelated to which places are filled
    grain = fractal(x, z, 0.5, 7, footprint)
    albedo = mix(SAND, SLATE, smoothstep(0.1, 0.5, tint)[:, None])
    albedo = mix(albedo, LIMESTONE, smoothstep(0.6, 1, tint)[:, None])
    crevice = 0.35 + 0.65 * np.minimum(3 * stone.closeness, 1)
    wet = 1 - 0.57 * smoothstep(0.16, 0.02, level + 0.03 * grain)
    albedo = albedo * ((1 + 0.4 * grain) * crevice * wet)[:, None]
    dry = _lit(albedo, _normal(slope_x, slope_z), np.ones_like(x))
    path = 3.2 * np.maximum(-level, 0)[:, None]  # light goes down and comes back aslant
    sunken = mix(SHALLOWS, dry, np.exp(-path * WATER_ABSORPTION))
    return np.where(path > 0, 0.8 * sunken + water * np.clip(3 * path, 0, 1), dry)


def render_content(width: int = 1024, height: int = 768) -> npt.NDArray[np.uint8]:
    """Render a mountain lake in summer, (height, width, 3) in 8-bit sRGB; sides from 64."""
    up, right = _rays(height, width)
    pixel = float(right[0, 1] - right[0, 0])
    image = _sky(up, right)
    across = np.broadcast_to(right, (height, width))
    # Where single trees can be told apart, the land is sampled more finely than a tree is wide.
    share = np.linspace(0, 1, 900)
    depths = np.exp(np.interp(share, (0, 0.32, 0.77, 1), np.log((150, 500, 1600, 11000))))
    depth = _cast(up, right, _land, depths.astype(np.float32))
    lake = np.where(up < 0, CAMERA_HEIGHT / np.maximum(-up, 1e-6), np.inf)
    land = depth < lake
    z = depth[land]
    points = zip(np.array_split(z * across[land], BLOCKS), np.array_split(z, BLOCKS), strict=True)
    image[land] = np.concatenate([_land_light(x, z, pixel) for x, z in points])
    _paint_lake(image, ~land & (up < 0), up, right)
    nearest = 0.3 * CAMERA_HEIGHT / float(-up[-1, 0])  # stones rise towards the camera
    depth = _cast(up, right, _beach, np.geomspace(nearest, 22, 700, dtype=np.float32))
    beach = depth < np.inf
    z = depth[beach]
    image[beach] = _beach_light(z * across[beach], z, pixel, image[beach])
    # A film-like curve rolls off the highlights; a little grain leaves no area dead flat.
    image = 1.5 * image * (1 + image / 4) / (1 + image)
    grain = generator_of(3).normal(0, 0.006, (height, width, 1))
    return quantised(np.clip(image, 0, 1) ** (1 / 2.2) + grain.astype(np.float32))
