"""What a run on two folders came to, as one HTML file: a gallery, curves, figures, settings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sincut.files import write_atomically
from sincut.images.reading.source import Pixels
from sincut.models.generator import Generator
from sincut.pages.pictures import Embedded, photograph
from sincut.pages.shell import curves_library, curves_style, document, part, table
from sincut.pages.viewer import escaped as text
from sincut.runs.commands import repeating_command
from sincut.runs.curves import BETTER, charts
from sincut.runs.final_colours import translated
from sincut.runs.folder import RunRecord, title_of
from sincut.runs.report import LARGEST, previews_of, versions_of
from sincut.runs.report_page import facts_section, previews_section, summary_of
from sincut.runs.subject import Progress
from sincut.units import duration

_SIDE = 512  # pixels of a picture, at most
_SHARE = 0.6  # of the file's size, for the gallery


def write_folder_report(
    record: RunRecord,
    target: Path,
    generator: Generator,
    images: Sequence[tuple[str, Pixels]],
    styles: Sequence[Pixels],
    step: int,
    progress: Progress,
) -> None:
    """Write the report; ``target`` is replaced.

    Args:
        images: names and pixels, (H, W, 3) uint8 sRGB, of what is translated and shown.
        styles: images of the style, to compare with.
        step: after which the generator is.
    """
    started = time.monotonic()
    total = len(images) + 1
    budget = int(_SHARE * LARGEST / max(2 * len(images) + len(styles), 1))
    gallery = []
    for index, (name, before) in enumerate(images):
        progress(f"translating {name}", index, total)
        one, other = (
            photograph(each, budget, _SIDE) for each in (before, translated(before, generator))
        )
        gallery.append((name, one, other))
    progress("the page", len(images), total)
    times = [
        ("training", duration(record.seconds)),
        ("translating for this report", duration(time.monotonic() - started)),
    ]
    shown = [photograph(each, budget, _SIDE) for each in styles]
    page = _page(record, step, gallery, shown, times).encode()
    with write_atomically(target) as file:
        file.write(page)
    progress("the page", total, total)


def _page(
    run: RunRecord,
    step: int,
    gallery: Sequence[tuple[str, Embedded, Embedded]],
    styles: Sequence[Embedded],
    times: Sequence[tuple[str, str]],
) -> str:
    title = title_of(run)
    body = "\n".join(
        (
            f"<header><h1>{text(title)}</h1>",
            f'<p class="soft">{text(summary_of(run, step))}</p></header>',
            "<main>",
            _gallery(run, gallery, styles),
            previews_section(list(previews_of(run))),
            '<section><h2>Curves</h2><div id="curves" class="curves"></div>'
            "<noscript><p>The curves need JavaScript.</p></noscript></section>",
            _figures(run),
            facts_section(run, repeating_command(run), times, versions_of(run)),
            "</main>",
        )
    )
    return document(
        title,
        body,
        styles=(curves_style(), part("report.css")),
        scripts=(curves_library(), part("report.js")),
        data={"charts": charts(run)},
    )


def _gallery(
    run: RunRecord,
    gallery: Sequence[tuple[str, Embedded, Embedded]],
    styles: Sequence[Embedded],
) -> str:
    pairs = "".join(
        f"<figure class='pair'>{before.img(f'{name} before')}{after.img(f'{name} after')}"
        f"<figcaption>{text(name)}, before and after</figcaption></figure>"
        for name, before, after in gallery
    )
    others = "".join(
        f"<figure>{picture.img(f'An image of {run.style.name}')}</figure>" for picture in styles
    )
    return (
        f'<section><h2>Before and after</h2><div class="pairs">{pairs}</div>'
        f"<h3>What it is to look like: {text(run.style.name)}</h3>"
        f'<div class="grid">{others}</div></section>'
    )


def _figures(run: RunRecord) -> str:
    """Figures over time: the first, the last, and which step was best at what."""
    series: Mapping[str, tuple[list[int], list[float]]] = run.series("figures")
    if not series:
        return (
            "<section><h2>Figures</h2><p>Not measured; --evaluate-every does it on the way, and "
            "sincut evaluate afterwards.</p></section>"
        )
    rows = []
    for name, (steps, values) in series.items():
        best = min(range(len(values)), key=lambda i: -values[i] if BETTER[name] > 0 else values[i])
        rows.append(
            (
                f"{name} {'↑' if BETTER[name] > 0 else '↓'}",
                f"{values[0]:.3f}",
                f"{values[-1]:.3f}",
                f"{values[best]:.3f} after {steps[best]} steps",
            )
        )
    kept = "best" if run.config.keeps_best else "last"
    return (
        f"<section><h2>Figures</h2>{table(('', 'first', 'last', 'best'), rows)}"
        f"<p class='soft'>The model that was kept is the {kept}. ↓ lower is better, ↑ higher is; "
        "what each of them measures stands in the documentation of sincut evaluate.</p></section>"
    )
