"""Pages and their charts in a browser: drawn, said to the keyboard, redrawn, never too wide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sincut.pages import shell as pages
from tests.browser.chromium import DESKTOP, PHONE, Browser

HOSTILE = "</script><img src=http://far.example/x>'\"&amp;"
LIGHT, DARK = ((0x0A, 0x58, 0xCA), (0xC2, 0x41, 0x0C)), ((0x8A, 0xB4, 0xF8), (0xFB, 0x92, 0x3C))
CHARTS: list[dict[str, Any]] = [
    {
        "title": f"Two curves {HOSTILE}",
        "series": [
            {"name": "falls", "steps": list(range(0, 101, 10)), "values": list(range(30, -3, -3))},
            {"name": "rises", "steps": list(range(0, 101, 20)), "values": [0.5, 1, 2, 4, 8, 16]},
        ],
    },
    {"title": "One point", "series": [{"name": HOSTILE, "steps": [7], "values": [0.123456]}]},
    {
        "title": "Never changes",
        "series": [{"name": "1e-9", "steps": [-4, -2], "values": [1e-9] * 2}],
    },
]
LEFT, RIGHT, HOME, END, ALT = "\ue012", "\ue014", "\ue011", "\ue010", "\ue00a"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part that others are made of."""
    rows = [
        [f"{HOSTILE} {row}", *[f"{row}.{column} " * 4 for column in range(8)]] for row in (1, 2)
    ]
    body = "\n".join(
        (
            f"<h1>{pages.text(HOSTILE)}</h1>",
            f"<p>{'wide' * 60}</p><pre>{'wider' * 60}</pre>",
            pages.table(["name", *map(str, range(8))], rows, caption=HOSTILE),
            '<div id="curves" class="curves"></div>',
        )
    )
    page = tmp_path_factory.mktemp("pages") / "page.html"
    text = pages.document(
        HOSTILE,
        body,
        styles=[pages.curves_style()],
        scripts=[
            pages.curves_library(),
            'sincutCurves(document.getElementById("curves"),'
            ' JSON.parse(document.getElementById("charts").textContent));',
        ],
        data={"charts": CHARTS},
    )
    page.write_text(text, encoding="utf-8")
    return page


def opened(browser: Browser, page: Path, size: tuple[int, int] = DESKTOP, **how: bool) -> None:
    """Open the page and wait until its charts are drawn."""
    browser.open(page, size, **how)
    browser.frames(3)


def inked(browser: Browser, index: int, colour: tuple[int, int, int]) -> int:
    """How many pixels of a chart's canvas are of a colour."""
    return int(
        browser.script(
            "const canvas = document.querySelectorAll('canvas')[arguments[0]];"
            "const copy = new OffscreenCanvas(canvas.width, canvas.height)"
            "  .getContext('2d', { willReadFrequently: true });"
            "copy.drawImage(canvas, 0, 0);"
            "const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);"
            "let count = 0;"
            "for (let at = 0; at < data.length; at += 4)"
            "  if (data[at + 3] > 200 && [0, 1, 2].every("
            "    (c) => Math.abs(data[at + c] - arguments[1][c]) < 24)) count += 1;"
            "return count",
            index,
            list(colour),
        )
    )


def test_all_charts_are_drawn_with_their_legends(browser: Browser, page: Path) -> None:
    opened(browser, page)
    titles = browser.script(
        "return [...document.querySelectorAll('figcaption')].map(e => e.innerText)"
    )
    assert titles == [chart["title"] for chart in CHARTS]
    legends = browser.script(
        "return [...document.querySelectorAll('.u-legend')].map("
        "  (each) => [...each.querySelectorAll('.u-label')].map((label) => label.textContent))"
    )
    assert legends == [["step", "falls", "rises"], ["step", HOSTILE], ["step", "1e-9"]]
    assert inked(browser, 0, LIGHT[0]) > 300  # a line of 1.5 pixels across some 500
    assert inked(browser, 0, LIGHT[1]) > 100  # one of dashes
    assert inked(browser, 1, LIGHT[0]) >= 4  # a point
    assert inked(browser, 2, LIGHT[0]) > 300
    assert inked(browser, 2, LIGHT[1]) == 0
    seen = browser.pixels(".plot canvas").reshape(-1, 3).astype(int)
    for colour in LIGHT:
        assert (np.abs(seen - colour).max(1) < 24).sum() > 50
    assert browser.driver.title == browser.text("h1") == HOSTILE
    browser.assert_clean()


def test_a_curve_is_where_its_values_are(browser: Browser, page: Path) -> None:
    """It falls from the upper left to the lower right, the other rises."""
    opened(browser, page)
    pixels = browser.pixels(".plot .u-over").astype(int)
    for colour, falls in zip(LIGHT, (True, False), strict=True):
        rows, columns = np.nonzero(np.abs(pixels - colour).max(2) < 24)
        slope = np.polyfit(columns, rows, 1)[0]
        assert (slope > 0) == falls
    rows, columns = np.nonzero(np.abs(pixels - LIGHT[0]).max(2) < 24)
    assert np.ptp(columns) > 0.95 * pixels.shape[1]  # steps 0 to 100 over the whole width
    assert np.corrcoef(columns, rows)[0, 1] > 0.999


def test_the_keyboard_reads_the_values(browser: Browser, page: Path) -> None:
    opened(browser, page)
    assert browser.attribute(".plot", "aria-label") == (
        f"Two curves {HOSTILE}. falls: 30 at step 0, 0 at step 100; "
        "rises: 0.5 at step 0, 16 at step 100"
    )
    browser.focus(".plot")
    for keys, said in (
        (RIGHT, "step 0: falls 30, rises 0.5"),
        (RIGHT, "step 10: falls 27, rises –"),
        (RIGHT, "step 20: falls 24, rises 1"),
        (END, "step 100: falls 0, rises 16"),
        (RIGHT, "step 100: falls 0, rises 16"),
        (LEFT + LEFT, "step 80: falls 6, rises 8"),
        (HOME + LEFT, "step 0: falls 30, rises 0.5"),
    ):
        browser.press(*keys)
        assert browser.text("output") == said
    legend = "return [...document.querySelectorAll('.u-value')].slice(0, 3).map(e => e.textContent)"
    browser.press(RIGHT, RIGHT)
    assert browser.script(legend) == ["20", "24", "1"]
    browser.press_together(ALT, END)  # belongs to the browser
    assert browser.text("output") == "step 20: falls 24, rises 1"
    browser.press("\ue004", LEFT)  # Tab: the next chart
    assert browser.script("return document.activeElement.getAttribute('aria-label')") == (
        f"One point. {HOSTILE}: 0.1235 at step 7, 0.1235 at step 7"
    )
    said = "return [...document.querySelectorAll('output')].map(e => e.textContent)"
    assert browser.script(said)[1:] == [f"step 7: {HOSTILE} 0.1235", ""]
    browser.assert_clean()


def test_the_pointer_reads_the_values(browser: Browser, page: Path) -> None:
    opened(browser, page)
    left, top, right, bottom = browser.box(".plot .u-over")
    browser.hover((left + round((right - left) * 0.41), (top + bottom) // 2))
    browser.frames()
    legend = "return [...document.querySelectorAll('.u-value')].slice(0, 3).map(e => e.textContent)"
    assert browser.script(legend) == ["40", "18", "2"]
    browser.assert_clean()


def test_dark_and_light_draw_in_their_own_colours(browser: Browser, page: Path) -> None:
    opened(browser, page, dark=True)
    assert inked(browser, 0, DARK[0]) > 300
    assert inked(browser, 0, LIGHT[0]) == 0
    paper = browser.pixels()[-1, 2].astype(int)
    assert paper.max() < 40
    browser.focus(".plot")
    browser.press(RIGHT)
    browser.media(dark=False)
    browser.frames(3)
    assert inked(browser, 0, LIGHT[0]) > 300
    assert inked(browser, 0, DARK[0]) == 0
    assert browser.pixels()[-1, 2].min() == 255
    browser.press(RIGHT)  # goes on where it was
    assert browser.text("output") == "step 10: falls 27, rises –"
    browser.assert_clean()


def test_charts_follow_the_window(browser: Browser, page: Path) -> None:
    widths = "return [...document.querySelectorAll('.uplot')].map(e => Math.round(e.offsetWidth))"
    holders = "return [...document.querySelectorAll('.plot')].map(e => Math.round(e.clientWidth))"
    opened(browser, page)
    seen = []
    for size in (PHONE, (320, 640), (800, 600), DESKTOP):
        browser.resize(size)
        browser.frames(4)
        browser.assert_fits()
        assert browser.script(widths) == browser.script(holders)
        assert inked(browser, 0, LIGHT[0]) > 150
        seen.append(browser.script(widths)[0])
    assert seen[:2] == [PHONE[0] - 32, 320 - 32]
    assert seen[2] == 800 - 32
    assert 500 < seen[3] < 640  # two beside each other
    browser.assert_clean()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_without_sideways_scrolling(
    browser: Browser, page: Path, dark: bool
) -> None:
    opened(browser, page, PHONE, dark=dark)
    browser.assert_fits()
    table = browser.find(".wide")  # scrolls in itself
    assert browser.script("return arguments[0].scrollWidth > arguments[0].clientWidth", table)
    assert inked(browser, 0, (DARK if dark else LIGHT)[0]) > 200
    browser.assert_clean()


def test_drawn_again_nothing_of_the_old_charts_is_left(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.script(
        "const charts = arguments[0];"
        "for (let time = 0; time < 3; time += 1)"
        "  sincutCurves(document.getElementById('curves'), charts);",
        CHARTS[:1],
    )
    browser.frames(3)
    assert browser.script("return document.querySelectorAll('canvas').length") == 1
    assert inked(browser, 0, LIGHT[0]) > 300
    browser.script(
        "window.made = 0; const Plot = uPlot;"
        "uPlot = function (...values) { window.made += 1; return new Plot(...values); }"
    )
    browser.media(dark=True)
    browser.frames(3)
    assert browser.script("return window.made") == 1
    browser.script("sincutCurves(document.getElementById('curves'), [])")
    assert browser.text("#curves") == ""
    browser.assert_clean()


def test_a_page_may_ask_nothing_of_a_network(browser: Browser, tmp_path: Path) -> None:
    """The policy stops what a mistake might let in."""
    page = tmp_path / "page.html"
    body = '<img src="http://far.example/a.png"><script src="http://far.example/b.js"></script>'
    page.write_text(pages.document("Leaky", body, files=True), encoding="utf-8")
    browser.open(page)
    browser.script("fetch('http://far.example/c').catch(() => 0)")
    browser.frames(3)
    stopped = [line for line in browser.errors() if "Content Security Policy" in line]
    for name, directive in (("a.png", "img-src"), ("b.js", "script-src"), ("c", "default-src")):
        assert any(f"far.example/{name}'" in line and directive in line for line in stopped), (
            stopped
        )
    with pytest.raises(AssertionError, match="asked of a network"):
        browser.assert_offline()


@pytest.mark.parametrize("files", [False, True])
def test_only_with_files_a_page_loads_what_lies_beside_it(
    browser: Browser, tmp_path: Path, files: bool
) -> None:
    (tmp_path / "beside.js").write_text("document.title = 'loaded';")
    page = tmp_path / "page.html"
    text = pages.document("Alone", '<script src="beside.js"></script>', files=files)
    page.write_text(text, encoding="utf-8")
    browser.open(page)
    assert browser.driver.title == ("loaded" if files else "Alone")
    assert bool(browser.errors()) is not files
