"""The page of an inspection in a browser: points are chosen by key and by pointer."""

from __future__ import annotations

from pathlib import Path

import pytest

from sincut.inspection.inspect import inspect
from tests.browser.chromium import DESKTOP, PHONE, Browser

POINTS = [(20, 20), (140, 110), (80, 60)]
ARROW_RIGHT = "\ue014"  # as selenium names it, which is imported only where it is there


@pytest.fixture(scope="module")
def page(pair: tuple[Path, Path], tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inspection of three points."""
    folder = tmp_path_factory.mktemp("inspected") / "out"
    inspect(tiny_run, pair[0], POINTS, folder, device="cpu")
    return folder / "index.html"


def shown(browser: Browser) -> list[bool]:
    """Which points' maps are seen."""
    seen: list[bool] = browser.script(
        "return [...document.querySelectorAll('section[data-point]')]"
        ".map((section) => section.offsetHeight > 0)"
    )
    return seen


def marked(browser: Browser) -> list[bool]:
    """Which points are marked as chosen in the picture."""
    found: list[bool] = browser.script(
        "return [...document.querySelectorAll('.spot')]"
        ".map((spot) => spot.classList.contains('chosen'))"
    )
    return found


def test_a_point_is_chosen_by_key(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert shown(browser) == marked(browser) == [True, False, False]
    browser.focus("input[name=point]")
    browser.press(ARROW_RIGHT)
    assert shown(browser) == marked(browser) == [False, True, False]
    browser.press(ARROW_RIGHT, ARROW_RIGHT)  # round to the first again
    assert shown(browser) == [True, False, False]
    browser.assert_clean()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_click_chooses_the_nearest_point(
    browser: Browser, page: Path, size: tuple[int, int]
) -> None:
    browser.open(page, size)
    left, top, right, bottom = browser.box(".pick img")
    for number, (x, y) in enumerate(POINTS):
        # Six pixels of the image beside the point.
        place = left + (x + 6) * (right - left) // 160, top + (y + 6) * (bottom - top) // 128
        browser.drag(place, place)
        assert shown(browser) == marked(browser) == [number == each for each in range(3)]
    browser.assert_fits()
    browser.assert_clean()


def test_every_picture_is_there(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    browser.until("[...document.images].every((image) => image.complete)")
    widths = browser.script("return [...document.images].map((image) => image.naturalWidth)")
    assert len(widths) > 3 * len(POINTS)
    assert min(widths) > 16
    assert browser.pixels()[4, 4].mean() < 60
    browser.assert_clean()
