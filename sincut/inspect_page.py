"""``inspect``: the pictures, numbers and the page of an inspection, in a folder.

================================  ==================================================
``index.html``                    everything on one page that can be sent on
``inspect.json``                  all numbers
``sheet.png``                     content, result and heat maps in one picture
``content.png``, ``result.png``   the image and its translation
``pointP_layerL.png``             the heat map of point P, from 1 on
``pca_KIND_ROLE_layerL.png``      principal components of the ``encoder`` features or the
                                  ``projected`` ones, of the ``input`` or the ``output``
================================  ==================================================

All pictures have the image's size, or are reduced to a longest side of ``width``.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sincut.config import TranslateConfig
from sincut.errors import SincutError
from sincut.files.images import Pixels, write_atomically, write_png
from sincut.inspection import (
    InspectConfig,
    Inspection,
    LayerFindings,
    OnProgress,
    Point,
    component_picture,
    heat_picture,
    inspected,
    mark,
    scale_picture,
)
from sincut.pages import data_uri, document, part, table, text

RECORD, PAGE, SHEET = "inspect.json", "index.html", "sheet.png"
_MOST_BYTES = 7_000_000  # of the page's pictures; base64 and the rest bring it to 9.5 MB at most
_PAGE_SIDES = (1024, 720)  # of the result, and of the other pictures, on the page
_OURS = re.compile(
    r"point\d+_layer\d+\.png|pca_(encoder|projected)_(input|output)_layer\d+\.png"
    r"|(sheet|content|result)\.png|inspect\.json|index\.html"
)
_KINDS = {"encoder": "encoder features", "projected": "projected features"}


def inspect(
    run: Path | str,
    image: Path | str,
    points: Sequence[Point | str],
    output: Path | str,
    *,
    width: int | str = 2048,
    seed: int | str = 0,
    tile: str = "auto",
    device: str = "auto",
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """Show what a run's PatchNCE sees in an image, and write it to a folder.

    Args:
        run: a run folder or model file with projection heads.
        image: the run's content, or another image.
        points: pixels of the upright image, as pairs of x and y or text such as ``"120,80"``: 1 to
            32 points of the *output*, whose similarity to every place of the input is mapped.
        output: the folder to write; made where it does not exist.
        width: longest side of the pictures in pixels; smaller images keep their size.
        seed: of the places that are sampled for the principal components and the accuracy. The
            noise of the translation is that of :func:`sincut.translate` by default, of seed 0.
        tile, device: as in :class:`sincut.config.TranslateConfig`.
        force: write into a folder that holds an inspection; its files are removed first.
        on_progress: called with what is being done, and how many of how many parts are done.

    Raises:
        SincutError: anything the caller can mend; nothing has been written or removed then.
    """
    folder = Path(output)
    config = InspectConfig().replaced(width=width, seed=seed)
    translating = TranslateConfig().replaced(tile=tile, device=device)
    _check_folder(folder, Path(image), force=force)
    found = inspected(run, image, points, config, translating, on_progress)
    write(found, folder)
    return found


def write(inspection: Inspection, folder: Path) -> None:
    """Write all files of an inspection; those of an earlier one are removed.

    Raises:
        SincutError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
    except OSError as error:
        raise SincutError(f"cannot write to {folder} ({error.strerror}); give another -o") from None
    # The record is first: with it alone an interrupted inspection can be made again by --force.
    _write_text(folder / RECORD, json.dumps(inspection.to_dict(), indent=2, allow_nan=False) + "\n")
    pictures = {
        "content.png": inspection.content,
        "result.png": inspection.result,
        SHEET: sheet(inspection),
    }
    for name, picture in pictures.items():
        write_png(folder / name, picture)
    for layer in inspection.layers:
        for number in range(len(inspection.points)):
            heat = heat_picture(inspection, layer, number, max(inspection.content.shape))
            write_png(folder / f"point{number + 1}_layer{layer.layer}.png", heat)
        for kind, role in layer.components:
            components = component_picture(inspection, layer, kind, role)
            write_png(folder / f"pca_{kind}_{role}_layer{layer.layer}.png", components)
    _write_text(folder / PAGE, page(inspection))


def page(inspection: Inspection) -> str:
    """The page as HTML, below 10 MB: pictures are made smaller until they fit."""
    largest, others = _PAGE_SIDES
    while True:
        html, size = _page(inspection, largest, others)
        if size <= _MOST_BYTES or others <= 64:
            return html
        # Bytes go about with the area; a little less, so that the next try fits.
        factor = 0.95 * (_MOST_BYTES / size) ** 0.5
        largest, others = max(64, int(largest * factor)), max(64, int(others * factor))


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
    canvas = Image.new("RGB", (step[0] * (columns + 1) + gap, step[1] * rows + label + gap))
    canvas.paste("white", (0, 0, *canvas.size))
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
            title = f"point {column + 1}, layer {layer.layer}: {_briefly(match.distance)}"
            heat = Image.fromarray(heat_picture(inspection, layer, column, max(cell), inset=True))
            put(column + 1, row, heat, title)
    top = gap + rows * step[1]
    bar = Image.fromarray(scale_picture(cell[0], max(8, label // 2)))
    canvas.paste(bar, (gap, top))
    words = (
        "similarity to the ring's place in the result, 1 at the best place (a cross where it is "
        "another); corner: around the ring"
    )
    draw.text((gap + step[0], top + bar.height / 2), words, "black", font, anchor="lm")
    return np.asarray(canvas)


def _page(inspection: Inspection, largest: int, others: int) -> tuple[str, int]:
    """The page with pictures of these longest sides, and how many bytes they have."""
    size = 0

    def img(picture: Pixels | Image.Image, side: int, alt: str) -> str:
        nonlocal size
        small = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        small = small.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, format="JPEG", quality=88)
        size += file.tell()
        return (
            f'<img width="{small.width}" height="{small.height}" alt="{text(alt)}" '
            f'src="{data_uri(file.getvalue(), "image/jpeg")}">'
        )

    def figure(picture: Pixels, alt: str, caption: str) -> str:
        shown = img(picture, others, alt)
        return f"<figure>{shown}<figcaption>{text(caption)}</figcaption></figure>"

    name = Path(inspection.image).name
    height, width = inspection.size
    count = len(inspection.points)
    whose = (
        "the content the run was trained on"
        if inspection.is_content
        else "not the content the run was trained on"
    )
    parts = [
        f"<h1>What PatchNCE recognises in {text(name)}</h1>",
        f'<p class="soft">{text(name)}, {width}×{height} pixels, {whose}; model of '
        f"{text(Path(inspection.run).name)} after {inspection.header['step']} steps; "
        f"temperature {inspection.temperature:g}.</p>",
        *(f'<p class="soft">Note: {text(notice)}.</p>' for notice in inspection.notices),
        "<h2>Similarity of a point of the result to every place of the content</h2>",
        "<p>A patch of the result must be recognisable as coming from the same place of the "
        "content. Each map shows, for one point of the result, how similar every place of the "
        "content is to it, in one encoder layer: bright around the ring and dark elsewhere is "
        "what training asks for; bright on all of a kind says that the layer knows what is there, "
        "but not where.</p>",
        f'<figure><div class="pick" data-width="{width}" data-height="{height}">',
        img(inspection.result, largest, "The result; the points are marked by numbered rings"),
        *(
            f'<span class="spot" aria-hidden="true" style="left: {(x + 0.5) / width:.3%}; '
            f'top: {(y + 0.5) / height:.3%}">{number + 1}</span>'
            for number, (x, y) in enumerate(inspection.points)
        ),
        "</div><figcaption>The result. Choose a point here, or below.</figcaption></figure>",
        '<fieldset class="points row"><legend>Point of the result</legend>',
        *(
            f'<label><input type="radio" name="point" value="{number}" data-x="{x}" data-y="{y}"'
            f"{' checked' if number == 0 else ''}>{number + 1} at {x}, {y}</label>"
            for number, (x, y) in enumerate(inspection.points)
        ),
        "</fieldset>",
    ]
    for number, (x, y) in enumerate(inspection.points):
        figures = "".join(
            figure(
                heat_picture(inspection, layer, number, others, inset=True),
                f"Heat map over the content: similarity to point {number + 1} in layer "
                f"{layer.layer}. {_told(layer, number)}",
                f"Layer {layer.layer}. {_told(layer, number)}",
            )
            for layer in inspection.layers
        )
        parts.append(
            f'<section data-point="{number}"><h3>Point {number + 1} of {count}, at {x}, {y}</h3>'
            f'<div class="layers">{figures}</div></section>'
        )
    parts += [
        '<figure class="scale">',
        img(scale_picture(384, 16), 384, "Scale of the heat maps, from 0 to 1"),
        '<div class="soft" aria-hidden="true"><span>0</span><span>0.25</span><span>0.5</span>'
        "<span>0.75</span><span>1</span></div>",
        f"<figcaption>exp((q·k − max) / τ) with τ = {inspection.temperature:g}: 1 at the best "
        "place of each map, and e times less for every τ that the cosine falls behind. The ring "
        "is where the point is, the cross the best place where that is another; the corner shows "
        "the surroundings of the ring, enlarged.</figcaption>"
        "</figure>",
        "<h2>How often the right place wins</h2>",
        _accuracy_table(inspection),
        '<p class="soft">Queries from places of the result, sampled at random from the whole '
        "image; the negatives are other places of the content from the same sample, in the mean "
        "over all ways to draw them. Ties are decided by lot.</p>",
        "<h2>Principal components of the features</h2>",
        "<p>The first three principal components as red, green and blue: equal colours are "
        "equal features. Content and result share their axes and their scale, so a place that kept "
        "its colour kept its features; different layers and kinds do not.</p>",
    ]
    for layer in inspection.layers:
        figures = "".join(
            figure(
                component_picture(inspection, layer, kind, role),
                f"Principal components of the {_KINDS[kind]} of the "
                f"{'content' if role == 'input' else 'result'} in layer {layer.layer}",
                f"{'Content' if role == 'input' else 'Result'}: {_KINDS[kind]}, "
                f"{sum(layer.variance[kind]):.0%} of their variance",
            )
            for kind, role in layer.components
        )
        parts.append(f'<h3>Layer {layer.layer}</h3><div class="four">{figures}</div>')
    body = f"<main>{''.join(parts)}</main>"
    title = f"What PatchNCE recognises in {name}"
    html = document(title, body, styles=(part("inspect.css"),), scripts=(part("inspect.js"),))
    return html, size


def _accuracy_table(inspection: Inspection) -> str:
    negatives = sorted({n for layer in inspection.layers for n in layer.accuracy})
    if not negatives:
        return "<p>The image has too few places to ask.</p>"
    rows: list[list[object]] = [
        [
            f"layer {layer.layer}",
            *(f"{layer.accuracy[n]:.1%}" if n in layer.accuracy else "–" for n in negatives),
            layer.queries,
        ]
        for layer in inspection.layers
    ]
    rows.append(["chance", *(f"{1 / (n + 1):.1%}" for n in negatives), ""])
    head = ["", *(f"{n} negatives" for n in negatives), "queries"]
    return table(head, rows, caption="The right place is the most similar one, by layer")


def _told(layer: LayerFindings, number: int) -> str:
    """What a heat map says, in words."""
    match = layer.matches[number]
    places = layer.places[0] * layer.places[1]
    if match.distance == 0:
        tied = f" (with {match.ties} others as similar)" if match.ties else ""
        return f"The best of {places} places is the right one{tied}; cosine {match.similarity:.3f}."
    return (
        f"The best place is {match.distance:.0f} pixels away, at {match.x}, {match.y}, cosine "
        f"{match.best:.3f}; the right one is number {match.rank} of {places}, cosine "
        f"{match.similarity:.3f}."
    )


def _briefly(distance: float) -> str:
    return "right place" if distance == 0 else f"{distance:.0f} px away"


def _check_folder(folder: Path, image: Path, *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise SincutError(f"{folder} is a file, not a folder; give another -o")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).exists():
        raise SincutError(f"{folder} is not empty and holds no inspection; give another -o")
    if not force:
        raise SincutError(
            f"{folder} holds an inspection already; try --force to make it anew, or another -o"
        )
    if image.resolve().parent == folder.resolve():
        raise SincutError(f"{image} lies in {folder}, whose files are made anew; give another -o")


def _write_text(path: Path, content: str) -> None:
    with write_atomically(path) as file:
        file.write(content.encode("utf-8"))
