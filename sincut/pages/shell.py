"""The shell of pages that people open from disk: one HTML file each, no network.

:func:`document` is light and dark, readable on a phone, and forbidden by its own policy to ask
anything of a network. Curves are drawn by uPlot 1.6.32 (MIT, unchanged), zoomable pictures by the
OpenSeadragon of :mod:`sincut.pages.viewer`; both are inlined with their licences.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sincut.pages.viewer import escaped as text
from sincut.pages.viewer import inside_script

HERE = Path(__file__).parent
UPLOT = HERE / "uplot.iife.min.js"
UPLOT_STYLE = HERE / "uplot.min.css"
UPLOT_LICENCE = HERE / "UPLOT-LICENSE.txt"


def document(
    title: str,
    body: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    files: bool = False,
) -> str:
    """A whole HTML page. Write the text as UTF-8.

    Args:
        title: plain text, escaped here.
        body: HTML; what comes from outside must have gone through :func:`text`.
        styles, scripts: CSS and JavaScript, inlined in this order after the shared style and
            after the body.
        data: plain values by the id of the element that holds them as JSON.
        files: the page may load pictures and scripts from files beside it. Otherwise it may load
            nothing at all.
    """
    beside = " 'self' file:" if files else ""
    policy = (
        f"default-src 'none'; img-src data: blob:{beside}; style-src 'unsafe-inline'; "
        f"script-src 'unsafe-inline'{beside}"
    )
    values = (
        f'<script type="application/json" id="{text(name)}">{inside_script(value)}</script>'
        for name, value in (data or {}).items()
    )
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="referrer" content="no-referrer">',
            '<link rel="icon" href="data:,">',
            f"<title>{text(title)}</title>",
            *(f"<style>\n{style}</style>" for style in (part("shared.css"), *styles)),
            "</head>",
            "<body>",
            body,
            *values,
            *(f"<script>\n{script}</script>" for script in scripts),
            "</body>",
            "</html>\n",
        )
    )


def data_uri(content: bytes, kind: str) -> str:
    """A file as an address that holds it; ``kind`` is its media type, such as ``image/png``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> str:
    """A table whose first column names its rows; every cell is escaped. ``head`` may be empty."""
    heads = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    about = f"<caption>{text(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{heads}</tr></thead>" if head else ""
    return f'<div class="wide"><table>{about}{top}<tbody>{"".join(lines)}</tbody></table></div>'


def part(name: str) -> str:
    """A style or script of this package."""
    return (HERE / name).read_text(encoding="utf-8")


def curves_library() -> str:
    """uPlot and what draws the charts with it, as one script: ``sincutCurves(element, charts)``."""
    return (
        f"/*!\n{UPLOT_LICENCE.read_text(encoding='utf-8')}*/\n"
        f"{UPLOT.read_text(encoding='utf-8')}\n{part('curves.js')}"
    )


def curves_style() -> str:
    """uPlot's style."""
    return UPLOT_STYLE.read_text(encoding="utf-8")
