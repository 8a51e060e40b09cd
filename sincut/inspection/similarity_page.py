"""The page of an inspection."""

from __future__ import annotations

from sincut.inspection.findings import Inspection, LayerFindings, Pixels
from sincut.inspection.similarity_pictures import component_picture, heat_picture
from sincut.pages.heat_maps import scale_picture
from sincut.pages.pictures import photograph
from sincut.pages.shell import document, part, table
from sincut.pages.viewer import escaped as text

_MOST_BYTES = 9_300_000  # of the pictures as the page holds them; the rest takes some 0.1 MB
_PAGE_SIDES = (1024, 720)  # of the result, and of the other pictures, on the page
_KINDS = {"encoder": "encoder features", "projected": "projected features"}


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


def _page(inspection: Inspection, largest: int, others: int) -> tuple[str, int]:
    """The page with pictures of these longest sides, and how many bytes they take in it."""
    size = 0

    def img(picture: Pixels, side: int, alt: str) -> str:
        nonlocal size
        embedded = photograph(picture, _MOST_BYTES, side)
        size += len(embedded.uri)
        return embedded.img(alt)

    def figure(picture: Pixels, alt: str, caption: str) -> str:
        shown = img(picture, others, alt)
        return f"<figure>{shown}<figcaption>{text(caption)}</figcaption></figure>"

    name = inspection.image.name
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
        f"{text(inspection.name)} after {inspection.header['step']} steps; "
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
