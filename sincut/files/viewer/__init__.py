"""A page that shows content and result of a huge translation together, from disk, offline.

The page is one HTML file: the viewer library stands in it, and the only files it reads are the
tiles of two Deep Zoom pyramids in folders beside it. Nothing comes from a network, and the page
forbids itself to try.

The library is OpenSeadragon 4.1.0 (BSD 3-clause), the build that calls itself
``v4.1.0-0-8849681``, unchanged but for the line that named its source map.
"""

import html
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["Pane", "page_text"]

LIBRARY = Path(__file__).with_name("openseadragon.min.js")
LICENCE = Path(__file__).with_name("OPENSEADRAGON-LICENSE.txt")


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
    titles = [_text(pane.title) for pane in (content, result)]
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            _HEAD,
            f"<title>{titles[0]} → {titles[1]}</title>",
            f"<style>{_STYLE}</style>",
            _BARS,
            f'<h2 id="content-title"><small>Content</small> {titles[0]}</h2>',
            '<div id="content-view" class="view">',
            _DIVIDER,
            "</div>",
            f'<h2 id="result-title"><small>Result</small> {titles[1]}</h2>',
            '<div id="result-view" class="view"></div>',
            "</main>",
            f'<script type="application/json" id="panes">{_data(content, result)}</script>',
            "<script>",
            f"/*!\n{LICENCE.read_text(encoding='utf-8')}*/",
            LIBRARY.read_text(encoding="utf-8") + "</script>",
            f"<script>{_SCRIPT}</script>",
            "</html>\n",
        )
    )


def _text(name: str) -> str:
    """A name for HTML; bytes of a file name that are no text become question marks."""
    return html.escape(name.encode("utf-8", "replace").decode("utf-8"))


def _data(*panes: Pane) -> str:
    """What the script needs to know, as JSON that cannot end its element."""
    text = json.dumps([{"folder": pane.tiles, "source": _source(pane)} for pane in panes])
    return text.replace("<", "\\u003c")  # all else that HTML reads in a script starts with "<"


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


_HEAD = """\
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 img-src 'self' file: data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">"""

_STYLE = """
:root { color-scheme: light dark; --line: #bbb; --back: #e4e4e4; --soft: #555; --mark: #0a58ca }
@media (prefers-color-scheme: dark) {
  :root { --line: #555; --back: #1b1b1b; --soft: #aaa; --mark: #8ab4f8 }
}
* { box-sizing: border-box }
html, body { height: 100%; margin: 0 }
body { display: flex; flex-direction: column; font: 15px/1.4 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; padding: .4rem .8rem;
  align-items: center }
fieldset { display: flex; gap: .9rem; border: 0; margin: 0; padding: 0 }
button { font: inherit; min-width: 2.2rem; padding: .15rem .6rem }
output { display: inline-block; min-width: 4.5rem; font-variant-numeric: tabular-nums }
#hint { color: var(--soft); font-size: .85rem }
#trouble { color: CanvasText; font-weight: 600 }
#trouble:empty { display: none }
main { flex: 1; min-height: 0; display: grid; gap: 0 4px;
  grid: "a b" auto "c d" minmax(0, 1fr) / minmax(0, 1fr) minmax(0, 1fr) }
h2 { margin: 0; padding: .1rem .8rem .3rem; font-size: 1rem; font-weight: 500; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis }
h2 small { color: var(--soft) }
.view { position: relative; background: var(--back); border-top: 1px solid var(--line) }
.view:has(.openseadragon-canvas:focus-visible) { outline: 2px solid var(--mark);
  outline-offset: -2px }
#content-title { grid-area: a }
#result-title { grid-area: b }
#content-view { grid-area: c }
#result-view { grid-area: d }
#divider { display: none; position: absolute; z-index: 1; top: 0; bottom: 0; left: 50%;
  width: 28px; margin-left: -14px; cursor: ew-resize; touch-action: none }
#divider::before { content: ""; position: absolute; top: 0; bottom: 0; left: 13px; width: 2px;
  background: #fff; box-shadow: 0 0 0 1px #0008 }
#divider::after { content: "↔"; position: absolute; top: 50%; left: 0; width: 28px; height: 28px;
  margin-top: -14px; border-radius: 50%; background: #fff; color: #000; text-align: center;
  line-height: 26px; box-shadow: 0 0 0 1px #0008 }
#divider:focus-visible { outline: none }
#divider:focus-visible::after { outline: 3px solid var(--mark) }
.divided #divider { display: block }
.divided #result-view { display: none }
.divided #result-title { text-align: right }
main.divided { grid-template-areas: "a b" "c c" }
@media (max-width: 700px) {
  main:not(.divided) { grid: "a" auto "c" minmax(0, 1fr) "b" auto "d" minmax(0, 1fr)
    / minmax(0, 1fr) }
  #hint { display: none }
}
"""

_BARS = """\
<header>
<fieldset>
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
<span id="trouble" role="alert"></span>
<noscript>This page needs JavaScript to show the pictures.</noscript>
</header>
<main>"""

_DIVIDER = """\
<div id="divider" role="slider" tabindex="0" aria-label="Divider between content and result"
 aria-valuemin="0" aria-valuemax="100" aria-valuenow="50"></div>"""

# Of two viewers one leads: the one last touched. Every frame that either moves, the other takes the
# leader's place at once, so both always stand at the same spot and nothing can echo. The first
# viewer also holds the result, unseen until the divider is asked for.
_SCRIPT = """
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const panes = JSON.parse(byId("panes").textContent);
  const stage = document.querySelector("main");
  const divider = byId("divider");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  OpenSeadragon.MouseTracker.passiveWheelEvents = false; // the page must not scroll or zoom too

  const view = (id, sources) => OpenSeadragon({
    element: byId(id),
    tileSources: sources,
    showNavigationControl: false, // its pictures would be more files
    animationTime: still ? 0 : 0.6,
    maxZoomPixelRatio: 16,
    minZoomImageRatio: 0.5,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  const first = view("content-view", [
    { tileSource: panes[0].source },
    { tileSource: panes[1].source, opacity: 0 },
  ]);
  const second = view("result-view", [{ tileSource: panes[1].source }]);
  const viewers = [first, second];
  let leader = first;
  let share = 0.5; // of the first view's width, left of the divider

  const ready = () => viewers.every((viewer) => viewer.isOpen());
  const divided = () => stage.classList.contains("divided");

  // How many pixels of the screen a pixel of the picture takes.
  const scale = () => first.world.getItemAt(0).viewportToImageZoom(
    leader.viewport.getZoom(true)) * devicePixelRatio;

  const divide = () => {
    const items = [first.world.getItemAt(0), first.world.getItemAt(1)];
    items[1].setOpacity(divided() ? 1 : 0);
    items.forEach((item, index) => {
      if (!divided()) {
        item.setClip(null);
        return;
      }
      const { x: width, y: height } = item.getContentSize();
      const point = new OpenSeadragon.Point(share * first.viewport.getContainerSize().x, 0);
      const cut = Math.min(Math.max(item.viewerElementToImageCoordinates(point).x, 0), width);
      item.setClip(index === 0
        ? new OpenSeadragon.Rect(0, 0, cut, height)
        : new OpenSeadragon.Rect(cut, 0, width - cut, height));
    });
  };

  const follow = () => {
    if (!ready()) return;
    const other = leader === first ? second : first;
    other.viewport.zoomTo(leader.viewport.getZoom(true), null, true);
    other.viewport.panTo(leader.viewport.getCenter(true), true);
    // Enlarged pixels are shown as they are: smoothing would hide what is judged here.
    viewers.forEach((viewer) => viewer.drawer.setImageSmoothingEnabled(scale() <= 1));
    byId("zoom").textContent = (scale() * 100).toFixed(scale() < 0.1 ? 1 : 0) + " %";
    divide();
  };

  const lead = (viewer) => {
    if (leader === viewer || !ready()) return;
    leader = viewer;
    follow(); // stops what still moves in the other
  };

  // The leader goes there; to the middle of the view, not to the pointer.
  const move = (how) => {
    if (!ready()) return;
    how(leader.viewport);
    leader.viewport.applyConstraints();
  };
  const fit = () => move((viewport) => viewport.goHome());
  const pixels = () => move((viewport) => viewport.zoomTo(viewport.getZoom(true) / scale()));
  const zoomBy = (factor) => move((viewport) => viewport.zoomBy(factor));
  const keys = {
    "0": fit, "1": pixels, "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5), "_": () => zoomBy(1 / 1.5),
    // The library would turn, mirror or leave the picture.
    "r": () => {}, "f": () => {}, "j": () => {}, "k": () => {},
  };

  ["content", "result"].forEach((name, index) => {
    const viewer = viewers[index];
    viewer.addHandler("open", follow);
    viewer.addHandler("viewport-change", follow);
    viewer.addHandler("canvas-key", (event) => {
      const pressed = event.originalEvent;
      const action = keys[pressed.key.toLowerCase()];
      if (!action || pressed.ctrlKey || pressed.altKey || pressed.metaKey) return;
      event.preventDefaultAction = true;
      action();
    });
    viewer.addHandler("tile-load-failed", (event) => {
      const folder = panes[event.tiledImage.source === first.world.getItemAt(0)?.source ? 0 : 1];
      byId("trouble").textContent =
        `Tiles are missing: keep the folder “${folder.folder}” beside this page.`;
    });
    ["pointerdown", "wheel", "keydown"].forEach((type) => byId(name + "-view").addEventListener(
      type, () => lead(viewer), { capture: true, passive: true }));
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-labelledby", name + "-title");
    viewer.canvas.setAttribute("aria-describedby", "hint");
  });

  const place = (wanted) => {
    share = Math.min(Math.max(wanted, 0), 1);
    divider.style.left = share * 100 + "%";
    divider.setAttribute("aria-valuenow", Math.round(share * 100));
    if (ready()) divide();
  };
  const drag = (event) => {
    const box = byId("content-view").getBoundingClientRect();
    place((event.clientX - box.left) / box.width);
  };
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    drag(event);
  });
  divider.addEventListener("pointermove", (event) => {
    if (divider.hasPointerCapture(event.pointerId)) drag(event);
  });
  divider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.01;
    const wanted = {
      ArrowLeft: share - step, ArrowDown: share - step,
      ArrowRight: share + step, ArrowUp: share + step,
      PageDown: share - 0.1, PageUp: share + 0.1, Home: 0, End: 1,
    }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    place(wanted);
  });

  document.querySelectorAll("input[name=mode]").forEach((input) => {
    input.addEventListener("change", () => {
      lead(first); // the second is hidden under the divider, and then has no size of its own
      stage.classList.toggle("divided", input.value === "divided");
      if (ready()) divide();
    });
  });
  byId("fit").addEventListener("click", fit);
  byId("pixels").addEventListener("click", pixels);
  byId("in").addEventListener("click", () => zoomBy(1.5));
  byId("out").addEventListener("click", () => zoomBy(1 / 1.5));
})();
"""
