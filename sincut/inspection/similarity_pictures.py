"""The pictures of an inspection: heat maps, principal components, and the sheet of them all."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sincut.inspection.findings import Floats, Inspection, LayerFindings, Pixels, Point
from sincut.pages.heat_maps import (
    ReducedMap,
    grey_of,
    heated,
    mark,
    reduced,
    scale_picture,
    wrapped,
)

_CAPTION = (
    "similarity to the ring's place in the result, 1 at the best place (a cross where it is "
    "another); corner: around the ring"
)


def heat_picture(
    inspection: Inspection,
    layer: LayerFindings,
    number: int,
    longest: int,
    *,
    inset: bool = False,
) -> Pixels:
    """The similarity map of a query point over the greyed content.

    A ring marks the query, a cross the best place where that is another. Where the picture is
    smaller than the map, a pixel shows the largest of what it stands for: the one right place of a
    sharp map would vanish in a mean.

    Args:
        longest: side of the picture in pixels, at most.
        inset: show the neighbourhood of the query, enlarged, in the corner farthest from both
            marks.
    """
    grey = grey_of(reduced(inspection.content, longest))
    values = enlarged(layer.similarities[number], inspection, layer)
    smaller = ReducedMap(1, values.shape, grey.shape, largest=True)
    smaller.add(0, 0, values[None])
    picture = Image.fromarray(heated(grey, smaller.result()[0]))
    match, point = layer.matches[number], inspection.points[number]
    mark(picture, point, inspection.size)
    if match.distance > 0:
        mark(picture, (match.x, match.y), inspection.size, cross=True)
    if inset:
        _paste_inset(picture, inspection, values, point, (match.x, match.y))
    return np.asarray(picture)


def component_picture(inspection: Inspection, layer: LayerFindings, kind: str, role: str) -> Pixels:
    """Principal components as red, green and blue, of the content's reduced size."""
    values = enlarged(layer.components[kind, role].transpose(2, 0, 1), inspection, layer)
    picture: Pixels = (values.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return picture


def enlarged(values: Floats, inspection: Inspection, layer: LayerFindings) -> Floats:
    """A map (…, h, w) at the size of the pictures: every pixel shows the place its middle lies in.

    No entry is passed over: where it would be, the map is stretched over the picture instead, which
    moves it by less than a place.
    """
    indices = []
    for axis in (0, 1):
        pixels, count = inspection.content.shape[axis], values.shape[axis - 2]
        # Not by share of the map: its last place may reach over the image's border.
        middles = (2 * np.arange(pixels) + 1) * inspection.size[axis]
        places = middles // (2 * pixels * layer.stride)
        if not np.array_equal(np.unique(places), np.arange(count)):
            places = np.arange(pixels) * count // pixels
        indices.append(places)
    taken: Floats = values[..., indices[0][:, None], indices[1]]
    return taken


def sheet(inspection: Inspection) -> Pixels:
    """Content, result and heat maps as one labelled picture: a column per point, a row per layer.

    Its cells are at most 512 pixels wide, fewer where there are many points.
    """
    columns, rows = len(inspection.points), max(2, len(inspection.layers))
    height, width = inspection.content.shape[:2]
    factor = min(1.0, 512 / max(height, width), 4096 / ((columns + 1) * width))
    cell = max(1, round(width * factor)), max(1, round(height * factor))
    gap = 12
    font = ImageFont.load_default(max(11.0, min(20.0, cell[0] / 18)))
    label = round(font.size * 1.6) if isinstance(font, ImageFont.FreeTypeFont) else 20
    step = cell[0] + gap, cell[1] + label + gap
    words = wrapped(_CAPTION, font, step[0] * columns - gap)
    height = step[1] * rows + label * len(words) + gap
    canvas = Image.new("RGB", (step[0] * (columns + 1) + gap, height), "white")
    draw = ImageDraw.Draw(canvas)

    def put(column: int, row: int, picture: Image.Image, title: str) -> None:
        left, top = gap + column * step[0], gap + row * step[1]
        draw.text((left, top + label / 2), title, "black", font, anchor="lm")
        canvas.paste(picture.resize(cell, Image.Resampling.LANCZOS), (left, top + label))

    put(0, 0, Image.fromarray(inspection.content), "content")
    result = Image.fromarray(inspection.result).resize(cell, Image.Resampling.LANCZOS)
    for number, point in enumerate(inspection.points, start=1):
        mark(result, point, inspection.size, label=str(number))
    put(0, 1, result, "result")
    if rows > 2:
        last = inspection.layers[-1]
        parts = Image.fromarray(component_picture(inspection, last, "projected", "output"))
        put(0, 2, parts, f"result, PCA of layer {last.layer}")
    for row, layer in enumerate(inspection.layers):
        for column, match in enumerate(layer.matches):
            # Where there are many points the cells are narrow.
            titles = (
                f"point {column + 1}, layer {layer.layer}: {match.where}",
                f"{column + 1}, layer {layer.layer}: {match.distance:.0f} px",
                f"{column + 1}/{layer.layer}",
            )
            title = next((each for each in titles if font.getlength(each) <= cell[0]), "")
            heat = Image.fromarray(heat_picture(inspection, layer, column, max(cell), inset=True))
            put(column + 1, row, heat, title)
    top = gap + rows * step[1]
    bar = Image.fromarray(scale_picture(cell[0], max(8, label // 2)))
    canvas.paste(bar, (gap, top))
    for line, each in enumerate(words):
        place = gap + step[0], top + line * label + bar.height / 2
        draw.text(place, each, "black", font, anchor="lm")
    return np.asarray(canvas)


def _paste_inset(
    picture: Image.Image, inspection: Inspection, values: Floats, point: Point, best: Point
) -> None:
    """The surroundings of a pixel, about a thirtieth of the image, at a third of the picture."""
    rows, columns = inspection.content.shape[:2]
    side = min(rows, columns, max(24, max(rows, columns) // 28))
    factor = min(picture.size) * 3 // (8 * side)
    if factor < 2:
        return  # it would show nothing that is not seen already
    first = [
        min(max(each * shown // whole - side // 2, 0), shown - side)
        for each, shown, whole in zip(point[::-1], (rows, columns), inspection.size, strict=True)
    ]
    part = slice(first[0], first[0] + side), slice(first[1], first[1] + side)
    near = Image.fromarray(heated(grey_of(inspection.content[part]), values[part]))
    near = near.resize((side * factor, side * factor), Image.Resampling.NEAREST)

    def distance(corner: Point) -> float:
        """From its middle to the nearer mark."""
        return min(
            math.hypot(
                *(
                    each * shown / whole - place - near.width / 2
                    for each, shown, whole, place in zip(
                        marked, picture.size, inspection.size[::-1], corner, strict=True
                    )
                )
            )
            for marked in (point, best)
        )

    right, bottom = picture.width - near.width - 4, picture.height - near.height - 4
    left, top = max(((x, y) for y in (4, bottom) for x in (4, right)), key=distance)
    draw = ImageDraw.Draw(picture)
    for colour, more in (("black", 3), ("white", 2)):
        ends = left + near.width + more - 1, top + near.height + more - 1
        draw.rectangle((left - more, top - more, *ends), fill=colour)
    picture.paste(near, (left, top))
