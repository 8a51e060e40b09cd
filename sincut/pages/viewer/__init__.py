"""A page that shows content and result of a huge translation together, from disk, offline.

The page is one HTML file: the viewer library stands in it, and the only files it reads are the
tiles of two Deep Zoom pyramids in folders beside it. Nothing comes from a network, and the page
forbids itself to try.

The library is OpenSeadragon 4.1.0 (BSD 3-clause), the build that calls itself
``v4.1.0-0-8849681``, unchanged but for the line that named its source map.
"""

from __future__ import annotations

import html
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).parent
LIBRARY = HERE / "openseadragon.min.js"
LICENCE = HERE / "OPENSEADRAGON-LICENSE.txt"


@dataclass(frozen=True)
class Pane:
    """One picture of the page, as a Deep Zoom pyramid that goes down to one pixel."""

    title: str  # shown as it is, usually the file's name
    tiles: str  # the folder of the levels, relative to the page, parts parted by "/"
    width: int  # of the whole picture, at least 1
    height: int
    tile_size: int  # without the overlap, at least 1
    overlap: int  # pixels that a tile shares with each neighbour, at least 0
    ending: str  # of the tiles' files, without the dot: "jpeg", "png", "webp"


def page_text(content: Pane, result: Pane) -> str:
    """The HTML of a page with both pictures side by side or under one movable divider.

    Both are laid over each other by their widths, so they should have the same size or at least
    the same aspect. Any title and any folder name is allowed. Write the text as UTF-8.
    """
    titles = [escaped(pane.title) for pane in (content, result)]
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            _HEAD,
            f"<title>{titles[0]} → {titles[1]}</title>",
            f"<style>{_PAGE_STYLE}{compare_style()}</style>",
            f'<header class="bars">{BARS}{_NO_SCRIPT}</header>',
            '<main id="stage" class="stage">',
            compare_panes(
                f"<small>Content</small> {titles[0]}", f"<small>Result</small> {titles[1]}"
            ),
            "</main>",
            f'<script type="application/json" id="panes">{_data(content, result)}</script>',
            f"<script>\n{library()}</script>",
            f"<script>{compare_script()}{_KEYS}</script>",
            "</html>\n",
        )
    )


def compare_panes(first: str, second: str, *, heading: str = "h2") -> str:
    """The two panes and the divider, to stand in an element of the id and class ``stage``.

    ``first`` and ``second`` are the panes' titles as HTML. :data:`BARS` holds what steers them, and
    the element ``panes`` what they show: see ``compare.js``. One comparison a page.
    """
    return f"""\
<{heading} id="content-title" class="pane-title">{first}</{heading}>
<div id="content-view" class="view">
{_DIVIDER}
</div>
<{heading} id="result-title" class="pane-title">{second}</{heading}>
<div id="result-view" class="view"></div>"""


def compare_style() -> str:
    """The comparison's style; it takes the colours --line, --back, --soft and --mark."""
    return HERE.joinpath("compare.css").read_text(encoding="utf-8")


def compare_script() -> str:
    """The comparison's script, to run after the library and after its elements."""
    return HERE.joinpath("compare.js").read_text(encoding="utf-8")


def library() -> str:
    """OpenSeadragon with its licence, as a script."""
    licence, script = (part.read_text(encoding="utf-8") for part in (LICENCE, LIBRARY))
    return f"/*!\n{licence}*/\n{script}\n"


def escaped(value: object) -> str:
    """Anything as text for HTML, quoted attributes too.

    Bytes of a file name that are no text become question marks.
    """
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def inside_script(value: Any) -> str:
    """Plain values as JSON that cannot end the element it stands in."""
    # All else that HTML reads in a script starts with "<".
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _data(*panes: Pane) -> str:
    """What the script needs to know."""
    return inside_script([{"folder": pane.tiles, "source": _source(pane)} for pane in panes])


def _source(pane: Pane) -> dict[str, Any]:
    """The .dzi file as an object: reading the file itself is forbidden under file://."""
    return {
        "Image": {
            "xmlns": "http://schemas.microsoft.com/deepzoom/2008",
            # The bytes of the name as the disk has them, even where they are no text.
            "Url": quote(os.fsencode(pane.tiles)) + "/",
            "Format": pane.ending,
            "Overlap": pane.overlap,
            "TileSize": pane.tile_size,
            "Size": {"Width": pane.width, "Height": pane.height},
        }
    }


# By which a page is known as sincut's; it stands near the beginning.
PAGE_MARK = b'<meta name="generator" content="sincut">'
_HEAD = f"""\
<meta charset="utf-8">
{PAGE_MARK.decode()}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 img-src 'self' file: data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">"""

_PAGE_STYLE = """
:root { color-scheme: light dark; --line: #bbb; --back: #e4e4e4; --soft: #555; --mark: #0a58ca }
@media (prefers-color-scheme: dark) {
  :root { --line: #555; --back: #1b1b1b; --soft: #aaa; --mark: #8ab4f8 }
}
* { box-sizing: border-box }
html, body { height: 100%; margin: 0 }
body { display: flex; flex-direction: column; font: 15px/1.4 system-ui, sans-serif }
.bars { padding: .4rem .8rem }
.stage { flex: 1; min-height: 0 }
"""

# This page is nothing but the pictures, so keys are for them before anything is clicked.
_KEYS = """
document.querySelector("#content-view .openseadragon-canvas").focus();
"""

_NO_SCRIPT = "<noscript>This page needs JavaScript to show the pictures.</noscript>"

BARS = """\
<fieldset aria-label="Show">
<label><input type="radio" name="mode" value="side" autocomplete="off" checked> Side by side</label>
<label><input type="radio" name="mode" value="divided" autocomplete="off"> Divider</label>
</fieldset>
<div>
<button id="fit" title="The whole picture (0)">Fit</button>
<button id="pixels" title="One pixel of the picture on one of the screen (1)">1:1</button>
<button id="out" title="Zoom out (−)" aria-label="Zoom out">−</button>
<button id="in" title="Zoom in (+)" aria-label="Zoom in">+</button>
<output id="zoom"></output>
</div>
<span id="hint">Drag or arrow keys to move, wheel, pinch or + − to zoom, 0 to fit</span>
<span id="trouble" role="alert"></span>"""

_DIVIDER = """\
<div id="divider" role="slider" tabindex="0" aria-label="Divider between content and result"
 aria-valuemin="0" aria-valuemax="100" aria-valuenow="50"></div>"""
