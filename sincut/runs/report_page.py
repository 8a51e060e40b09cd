"""The report's page: what a run came to, in one file that can be looked at and sent on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sincut.config.presets import preset_config
from sincut.pages.pictures import Embedded
from sincut.pages.shell import curves_library, curves_style, document, part, table
from sincut.pages.viewer import BARS, compare_panes, compare_script, compare_style
from sincut.pages.viewer import escaped as text
from sincut.pages.viewer import library as zoom_library
from sincut.runs.commands import extension
from sincut.runs.curves import charts
from sincut.runs.folder import RunRecord, size_of, title_of

# What is measured, in the order of the table, and what it means.
FIGURES = {
    "S1": ("S1 ↓", "colour: distance of the pixels to the style's"),
    "S2": ("S2 ↓", "texture: distance of 7×7 patches to the style's"),
    "S2_ratio": ("S2/floor ↓", "1: as near to the style as two halves of it are to each other"),
    "S3": ("S3 ↓", "how well a linear test tells its textures from the style's; 0.5: not at all"),
    "S4": ("S4 ↓", "how differently shaped its strokes are from the style's, 14 to 56 pixels wide"),
    "C1": ("C1 ↑", "the content's edges, kept in place"),
    "C2": ("C2 ↑", "the content's layout: which places look like which others"),
}


@dataclass(frozen=True)
class Crop:
    """The same square of content and result, pixel for pixel; ``x``, ``y`` its top left corner."""

    x: int
    y: int
    content: Embedded
    result: Embedded


@dataclass(frozen=True)
class Measured:
    """A row of the table of figures: the result or an anchor.

    ``beyond`` says whether it lies beyond the anchors' line, and is ``None`` for what makes it.
    """

    name: str
    figures: Mapping[str, float]
    beyond: bool | None = None


@dataclass(frozen=True)
class Contents:
    """All that the page shows. Texts are plain; the page escapes them."""

    run: RunRecord
    step: int  # after which the result is
    content: Embedded
    style: Embedded
    result: Embedded
    result_note: str  # what the picture of the result is
    crops: Sequence[Crop]
    style_crop: Embedded
    previews: Sequence[tuple[int, Embedded]]  # by step
    measured: Sequence[Measured]  # the result, then the anchors; empty: not measured
    not_measured: str  # why, where it was not
    times: Sequence[tuple[str, str]]
    versions: Sequence[tuple[str, str]]
    command: str


def page(contents: Contents) -> str:
    """The HTML."""
    run = contents.run
    title = title_of(run)
    body = "\n".join(
        (
            f"<header><h1>{text(title)}</h1>",
            f'<p class="soft">{text(summary_of(run, contents.step))}</p></header>',
            "<main>",
            _compared(contents),
            _pictures(contents),
            _crops(contents),
            previews_section(contents.previews),
            '<section><h2>Curves</h2><div id="curves" class="curves"></div>'
            "<noscript><p>The curves need JavaScript.</p></noscript></section>",
            _figures(contents),
            facts_section(run, contents.command, contents.times, contents.versions),
            "</main>",
        )
    )
    panes = [{"picture": "content-picture"}, {"picture": "result-picture"}]
    return document(
        title,
        body,
        styles=(curves_style(), compare_style(), part("report.css")),
        scripts=(zoom_library(), compare_script(), curves_library(), part("report.js")),
        data={"panes": panes, "charts": charts(run)},
    )


def summary_of(run: RunRecord, step: int) -> str:
    """What was done, in a sentence; ``step`` is that of the generator."""
    config = run.config
    done = f"{step} of " if step < config.steps else ""
    return (
        f"Preset {config.preset}, method {config.method}, {done}{config.steps} steps, "
        f"seed {config.seed}, on {config.device} in {config.precision}. sincut "
        f"{run.version}."
    )


def _compared(contents: Contents) -> str:
    choice = (
        '<label>Before: <select id="before" autocomplete="off">'
        '<option value="content-picture">Content</option>'
        '<option value="style-picture">Style</option></select></label>'
    )
    return (
        '<section id="compare"><h2>Before and after</h2>'
        "<noscript><p>To compare under a divider takes JavaScript.</p></noscript>"
        f'<div class="bars">{BARS}{choice}</div>'
        '<div id="stage" class="stage" data-start="divided">'
        f"{compare_panes('Content', 'Result', heading='h3')}</div>"
        f'<p class="soft">{text(contents.result_note)}</p></section>'
    )


def _pictures(contents: Contents) -> str:
    run = contents.run
    shown = (
        ("content", contents.content, f"Content: {run.content.name}", size_of(run.content)),
        ("style", contents.style, f"Style: {run.style.name}", size_of(run.style)),
        ("result", contents.result, "Result", size_of(run.content)),
    )
    figures = "".join(
        f"<figure>{picture.img(name, id=f'{role}-picture')}"
        f"<figcaption>{text(name)}, {text(_shown_at(picture, size))}</figcaption></figure>"
        for role, picture, name, size in shown
    )
    return f'<section><h2>The pictures</h2><div class="grid">{figures}</div></section>'


def _shown_at(picture: Embedded, size: str) -> str:
    own = f"{picture.width}×{picture.height}"
    return size if size == f"{own} pixels" else f"{size}, shown at {own}"


def _crops(contents: Contents) -> str:
    rows = []
    for crop in contents.crops:
        place = f"from {crop.x}, {crop.y}"
        rows.append(
            "<figure class='pair'>"
            f"{crop.content.img(f'Content, {place}')}{crop.result.img(f'Result, {place}')}"
            f"<figcaption>Content and result {place}</figcaption></figure>"
        )
    rows.append(
        f"<figure class='pair'>{contents.style_crop.img('The middle of the style')}"
        "<figcaption>The style's middle, to compare textures</figcaption></figure>"
    )
    return (
        "<section><h2>Pixel for pixel</h2><p class='soft'>Squares where the content has most "
        "detail, and the last one where it has least.</p>"
        f'<div class="pairs">{"".join(rows)}</div></section>'
    )


def previews_section(previews: Sequence[tuple[int, Embedded]]) -> str:
    """The previews under a slider; nothing where there are none."""
    if not previews:
        return ""
    last = len(previews) - 1
    pictures = "".join(
        f"<figure{'' if index == last else ' hidden'} data-step='{step}'>"
        f"{picture.img(f'Preview after {step} steps')}</figure>"
        for index, (step, picture) in enumerate(previews)
    )
    step = previews[-1][0]
    return (
        '<section><h2>While it trained</h2><div class="row">'
        '<label for="when">Preview</label>'
        f'<input type="range" id="when" min="0" max="{last}" value="{last}" step="1" '
        f'autocomplete="off" aria-valuetext="after {step} steps">'
        f'<output id="when-text" for="when">after {step} steps</output></div>'
        f'<div id="previews">{pictures}</div>'
        "<noscript><style>#previews figure { display: block !important }</style></noscript>"
        "</section>"
    )


def _figures(contents: Contents) -> str:
    if not contents.measured:
        return f"<section><h2>Figures</h2><p>{text(contents.not_measured)}</p></section>"
    head = ["", *(name for name, _ in FIGURES.values()), "beyond"]
    rows = []
    for row in contents.measured:
        beyond = {None: "", True: "yes", False: "no"}[row.beyond]
        values = [f"{row.figures[name]:.3f}" for name in FIGURES]
        rows.append([row.name, *values, beyond])
    meanings = "".join(
        f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in FIGURES.values()
    )
    meanings += (
        "<dt>beyond</dt><dd>better than the line IDT → 16-px blocks → 64-px blocks in C1 and S3; "
        "the anchors need no learning</dd>"
    )
    return (
        f"<section><h2>Figures</h2>{table(head, rows)}<dl>{meanings}</dl>"
        "<p class='soft'>No one of them says enough alone. ↓ lower is better, ↑ higher is.</p>"
        "</section>"
    )


def facts_section(
    run: RunRecord,
    command: str,
    times: Sequence[tuple[str, str]],
    versions: Sequence[tuple[str, str]],
) -> str:
    """How to repeat a run: command, images, times, versions, every setting."""
    usual = preset_config(run.config).to_dict()
    settings = []
    for name, value in run.config.to_dict().items():
        shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        settings.append((name, shown, "" if value == usual[name] else "changed"))
    images = [
        (role, image.name, size_of(image), image.sha256)
        for role, image in (("content", run.content), ("style", run.style))
    ]
    return "".join(
        (
            "<section><h2>How to repeat it</h2>",
            f"<pre><code>{text(command)}</code></pre>",
            f"<p>{text(extension(run))}</p>" if extension(run) else "",
            table(("", "name", "size", "SHA-256"), images),
            "<h3>Time</h3>",
            table((), times),
            "<h3>Versions</h3>",
            table((), versions),
            "<details><summary>Every setting</summary>",
            table(("setting", "value", "against the preset"), settings),
            "</details></section>",
        )
    )
