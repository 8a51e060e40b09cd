"""The report as people use it: in a browser, from disk, with keys and pointer, wide and narrow.

Content, style and result are painted so that every pixel of a screenshot says which it is of.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sincut.files import file_digest
from sincut.runs.reporting import report
from tests.browser.chromium import DESKTOP, PHONE, Browser
from tests.browser.test_viewer import centre, painted, settled, spot, zoom

# As selenium names them, which is imported only where it is there.
PAGE_UP, TAB, HOME = "\ue00e", "\ue004", "\ue011"
ARROW_LEFT, ARROW_UP, ARROW_DOWN = "\ue012", "\ue013", "\ue015"


@pytest.fixture(scope="module")
def page(tiny_run: Path, pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose content is red, whose style is grey, and whose result is blue."""
    folder = tmp_path_factory.mktemp("report")
    run = folder / "run"
    shutil.copytree(tiny_run, run)
    painted(0).save(folder / "content.png")
    painted(2).save(folder / "result.png")
    Image.new("RGB", (900, 700), (128, 128, 128)).save(folder / "style.png")
    record = json.loads((run / "config.json").read_text())
    for role in ("content", "style"):
        path = folder / f"{role}.png"
        with Image.open(path) as image:
            width, height = image.size
        record[role] |= {"width": width, "height": height, "sha256": file_digest(path)}
    (run / "config.json").write_text(json.dumps(record))
    return report(run, result=folder / "result.png", figures=False).path


def opened(
    browser: Browser, page: Path, size: tuple[int, int] = DESKTOP, *, dark: bool = False
) -> None:
    browser.open(page, size, dark=dark)
    browser.until("document.querySelector('#zoom').textContent !== ''")
    browser.until("document.querySelector('#stage').classList.contains('divided')")
    browser.frames(4)


def shown(browser: Browser, share: float) -> str:
    """Which picture is seen at a share of the first view's width, in its middle."""
    left, top, right, bottom = browser.box("#content-view")
    pixel = settled(browser)[(top + bottom) // 2, round(left + share * (right - left))]
    if max(pixel.astype(int)) - min(pixel.astype(int)) < 12 and 110 < pixel[0] < 145:
        return "style"
    return spot(pixel).picture


def test_the_slider_moves_by_key_and_by_pointer(browser: Browser, page: Path) -> None:
    opened(browser, page)
    assert [shown(browser, share) for share in (0.4, 0.6)] == ["content", "result"]
    browser.focus("#divider")
    browser.press(*[PAGE_UP] * 2)
    assert browser.attribute("#divider", "aria-valuenow") == "70"
    assert [shown(browser, share) for share in (0.6, 0.76)] == ["content", "result"]
    left, _, right, _ = browser.box("#content-view")
    x, y = centre(browser, "#divider")
    browser.drag((x, y), (left + (right - left) // 4, y))
    assert [shown(browser, share) for share in (0.2, 0.3)] == ["content", "result"]
    browser.assert_clean()


def test_it_begins_with_the_whole_picture_and_zooms_to_its_pixels(
    browser: Browser, page: Path
) -> None:
    opened(browser, page)
    settled(browser)
    left, top, right, bottom = browser.box("#content-view")
    assert zoom(browser) == pytest.approx(min((right - left) / 1200, (bottom - top) / 800), 0.03)
    browser.click("#pixels")
    settled(browser)
    assert zoom(browser) == 1
    browser.focus("#content-view .openseadragon-canvas")
    browser.press("+")
    settled(browser)
    assert zoom(browser) == 1.5
    browser.press("0")
    settled(browser)
    assert zoom(browser) < 1
    browser.assert_clean()


def test_the_style_can_stand_before_the_result(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.focus("#before")
    browser.press(ARROW_DOWN)
    browser.until("document.querySelector('#content-title').textContent === 'Style'")
    browser.frames(4)
    assert [shown(browser, share) for share in (0.4, 0.6)] == ["style", "result"]
    browser.press(ARROW_UP)
    browser.until("document.querySelector('#content-title').textContent === 'Content'")
    browser.frames(4)
    assert shown(browser, 0.4) == "content"
    browser.assert_clean()


def test_side_by_side(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.click("input[value=side]")
    pixels = settled(browser)
    for view, name in (("#content-view", "content"), ("#result-view", "result")):
        x, y = centre(browser, view)
        assert spot(pixels[y, x]).picture == name
    browser.assert_clean()


def test_the_scrubber_goes_through_the_previews(browser: Browser, page: Path) -> None:
    opened(browser, page)
    steps = browser.script(
        "return [...document.querySelectorAll('#previews figure')].map((figure)"
        " => figure.dataset.step)"
    )
    assert steps == ["0", "3", "6"]
    visible = "[...document.querySelectorAll('#previews figure')].map((figure) => !figure.hidden)"
    assert browser.script(f"return {visible}") == [False, False, True]
    browser.focus("#when")
    browser.press(ARROW_LEFT)
    assert browser.script(f"return {visible}") == [False, True, False]
    assert browser.text("#when-text") == "after 3 steps"
    assert browser.attribute("#when", "aria-valuetext") == "after 3 steps"
    browser.press(HOME)
    assert browser.script(f"return {visible}") == [True, False, False]
    browser.assert_clean()


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_it_fits(browser: Browser, page: Path, dark: bool) -> None:
    opened(browser, page, PHONE, dark=dark)
    browser.assert_fits()
    assert [shown(browser, share) for share in (0.3, 0.7)] == ["content", "result"]
    paper = browser.pixels()[4, 4]
    assert (paper.mean() < 60) == dark
    browser.assert_clean()


def test_everything_that_acts_takes_the_keyboard(browser: Browser, page: Path) -> None:
    """Tab reaches the modes, buttons, choice, pictures, divider, scrubber, curves and settings."""
    opened(browser, page)
    reached = set()
    for _ in range(40):
        browser.press(TAB)
        reached.add(
            browser.script(
                "const it = document.activeElement;"
                " return it.id || it.name || it.className || it.tagName.toLowerCase()"
            )
        )
    wanted = {"mode", "fit", "pixels", "in", "out", "before", "divider", "when", "plot", "summary"}
    assert wanted <= reached
    assert any("openseadragon-canvas" in name for name in reached)
    browser.assert_clean()


def test_the_curves_are_drawn(browser: Browser, page: Path) -> None:
    opened(browser, page)
    drawn = browser.until(
        "[...document.querySelectorAll('#curves canvas')].filter((canvas) => canvas.width > 100)"
        ".length"
    )
    charts = json.loads(browser.text("#charts"))
    assert drawn == len(charts) >= 4
    inked = browser.script(
        "return [...document.querySelectorAll('#curves canvas')].map((canvas) => {"
        " const { width, height } = canvas;"
        " const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);"
        " let inked = 0; for (let i = 3; i < data.length; i += 4) inked += data[i] > 0;"
        " return inked; })"
    )
    assert np.min(inked) > 500
    browser.assert_clean()
