"""The Deep Zoom page as people use it: in a browser, from disk, with keys, wheel and pointer.

Every pixel of the two pictures says which picture it is of and where in it, so a screenshot tells
what is shown at each place.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sincut.pages.viewer import Pane, page_text
from tests.browser.chromium import DESKTOP, PHONE, Browser

WINDOW = (900, 600)  # screenshots take time
WIDTH, HEIGHT, TILE = 1200, 800, 256
CONTENT = Pane("photo.tif", "photo_files", WIDTH, HEIGHT, TILE, 1, "png")
RESULT = Pane("result.tif", "result_files", WIDTH, HEIGHT, TILE, 1, "png")


@dataclass(frozen=True)
class Spot:
    """What a pixel of the screen shows: a picture, or none, and where in it, from 0 to 1."""

    picture: str
    x: float = 0.0
    y: float = 0.0


def painted(channel: int) -> Image.Image:
    """Green grows from left to right, ``channel`` (0 red, 2 blue) from top to bottom, from 155."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 1] = np.linspace(0, 255, WIDTH).round()[None]
    pixels[..., channel] = np.linspace(155, 255, HEIGHT).round()[:, None]
    return Image.fromarray(pixels)


def spot(pixel: np.ndarray) -> Spot:
    """What a pixel of a screenshot is of."""
    red, green, blue = (int(value) for value in pixel)
    if max(red, blue) < 150 or min(red, blue) > 4:
        return Spot("none")
    return Spot("content" if red > blue else "result", green / 255, (max(red, blue) - 155) / 100)


def write_pyramid(folder: Path, picture: Image.Image) -> None:
    """A Deep Zoom pyramid down to one pixel, its tiles overlapping by one."""
    width, height = picture.size
    top = (max(width, height) - 1).bit_length()
    for level in range(top + 1):
        size = tuple(ceil(side / 2 ** (top - level)) for side in (width, height))
        reduced = picture.resize(size, Image.Resampling.BOX)  # type: ignore[arg-type]
        (folder / str(level)).mkdir(parents=True)
        for column in range(ceil(size[0] / TILE)):
            for row in range(ceil(size[1] / TILE)):
                left, upper = max(column * TILE - 1, 0), max(row * TILE - 1, 0)
                right = min((column + 1) * TILE + 1, size[0])
                lower = min((row + 1) * TILE + 1, size[1])
                tile = reduced.crop((left, upper, right, lower))
                tile.save(folder / str(level) / f"{column}_{row}.png", compress_level=1)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page beside both pyramids."""
    folder = tmp_path_factory.mktemp("zoom")
    write_pyramid(folder / CONTENT.tiles, painted(0))
    write_pyramid(folder / RESULT.tiles, painted(2))
    page = folder / "page.html"
    page.write_text(page_text(CONTENT, RESULT), encoding="utf-8")
    return page


@dataclass(frozen=True)
class Look:
    """What a view shows: a picture, the place in its middle, screen pixels per picture pixel."""

    picture: str
    x: float
    y: float
    scale: float


def settled(browser: Browser) -> np.ndarray:
    """The window's pixels, as soon as two screenshots in a row are the same."""
    before = None
    for _ in range(60):
        browser.frames()
        now = browser.pixels()
        if before is not None and np.array_equal(before, now):
            return now
        before = now
    raise AssertionError("the page does not come to rest")


def look(browser: Browser, view: str, pixels: np.ndarray | None = None) -> Look:
    """What is seen in a view that is filled from left to right."""
    pixels = settled(browser) if pixels is None else pixels
    left, top, right, bottom = browser.box(view)
    width, middle = right - left, (top + bottom) // 2
    first, centre, last = (spot(pixels[middle, left + width * part // 8]) for part in (2, 4, 6))
    assert first.picture == centre.picture == last.picture != "none"
    return Look(centre.picture, centre.x, centre.y, width / 2 / ((last.x - first.x) * WIDTH))


def both(browser: Browser) -> Look:
    """What both views show, which must be the same place of two pictures."""
    pixels = settled(browser)
    content, result = (look(browser, view, pixels) for view in ("#content-view", "#result-view"))
    assert (content.picture, result.picture) == ("content", "result")
    assert content.x == pytest.approx(result.x, abs=0.006)
    assert content.y == pytest.approx(result.y, abs=0.012)
    assert content.scale == pytest.approx(result.scale, rel=0.05)
    assert zoom(browser) == pytest.approx(content.scale, rel=0.05)
    return content


def zoom(browser: Browser) -> float:
    """The zoom that the page names."""
    number, unit = browser.text("#zoom").split(" ")
    assert unit == "%"
    return float(number) / 100


def opened(browser: Browser, page: Path, size: tuple[int, int] = WINDOW, **how: bool) -> None:
    """Open the page and wait for its pictures."""
    browser.open(page, size, **how)
    browser.until("document.querySelector('#zoom').textContent !== ''")


def centre(browser: Browser, selector: str) -> tuple[int, int]:
    """The middle of an element."""
    left, top, right, bottom = browser.box(selector)
    return (left + right) // 2, (top + bottom) // 2


LEFT, RIGHT, UP, DOWN = "\ue012", "\ue014", "\ue013", "\ue015"
PAGE_UP, PAGE_DOWN, END, HOME, SHIFT, TAB = (
    "\ue00e", "\ue00f", "\ue010", "\ue011", "\ue008", "\ue004",
)  # fmt: skip
VIEWS = ("#content-view", "#result-view")


def test_both_pictures_are_shown_whole_beside_each_other(browser: Browser, page: Path) -> None:
    opened(browser, page, DESKTOP)
    whole = both(browser)
    assert (whole.x, whole.y) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01))
    pixels = settled(browser)
    for view, name in zip(VIEWS, ("content", "result"), strict=True):
        left, top, right, bottom = browser.box(view)
        seen = [spot(pixel) for pixel in pixels[(top + bottom) // 2, left + 3 : right - 3]]
        assert {each.picture for each in seen} == {name}
        assert (seen[0].x, seen[-1].x) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
        column = [spot(pixel) for pixel in pixels[top + 3 : bottom - 3, (left + right) // 2]]
        shown = [each.y for each in column if each.picture == name]
        assert (shown[0], shown[-1]) == (pytest.approx(0, abs=0.03), pytest.approx(1, abs=0.03))
        assert len(shown) == pytest.approx((right - left) * HEIGHT / WIDTH, abs=3)
    assert browser.box(VIEWS[0])[2] <= browser.box(VIEWS[1])[0]
    asked = browser.requests()
    assert asked[0] == page.as_uri()
    assert {part.rsplit("/", 3)[1] for part in asked[1:]} == {CONTENT.tiles, RESULT.tiles}
    browser.assert_clean()


@pytest.mark.parametrize("view", VIEWS)
def test_keys_and_wheel_zoom_both_together(browser: Browser, page: Path, view: str) -> None:
    opened(browser, page)
    whole = both(browser)
    browser.focus(f"{view} .openseadragon-canvas")
    for keys, wanted in (
        ("1", 1.0), ("+", 1.5), ("=", 2.25), ("-", 1.5), ("_", 1.0), ("0", zoom(browser))
    ):  # fmt: skip
        browser.press(keys)
        browser.frames()
        assert zoom(browser) == pytest.approx(wanted, rel=0.01), keys
        if keys in "+-":
            seen = both(browser)
            assert (seen.x, seen.y) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.02))
    browser.press("r", "f", "j", "k")  # the library's own, which would turn or mirror
    assert both(browser) == whole
    browser.wheel(centre(browser, view), -120)
    assert both(browser).scale == pytest.approx(whole.scale * 1.2, rel=0.05)
    browser.wheel(centre(browser, view), 120)
    assert both(browser).scale == pytest.approx(whole.scale, rel=0.05)
    assert browser.script("return [scrollX, scrollY]") == [0, 0]
    browser.assert_clean()


def test_buttons_zoom_both_together(browser: Browser, page: Path) -> None:
    opened(browser, page)
    whole = both(browser)
    for button, wanted in (
        ("#pixels", 1.0), ("#in", 1.5), ("#out", 1.0), ("#fit", whole.scale)
    ):  # fmt: skip
        browser.click(button)
        assert both(browser).scale == pytest.approx(wanted, rel=0.05), button
    assert both(browser) == whole
    browser.assert_clean()


def test_the_wheel_zooms_to_what_is_under_it(browser: Browser, page: Path) -> None:
    opened(browser, page)
    left, top, right, bottom = browser.box("#result-view")
    place = left + (right - left) // 4, (top + bottom) // 2
    before = spot(settled(browser)[place[1], place[0]])
    start = both(browser)
    for _ in range(3):
        browser.wheel(place, -120)
        pixels = settled(browser)
    assert both(browser).scale == pytest.approx(start.scale * 1.2**3, rel=0.05)
    assert spot(pixels[place[1], place[0]]).picture == "result"
    assert spot(pixels[place[1], place[0]]).x == pytest.approx(before.x, abs=0.006)
    browser.assert_clean()


@pytest.mark.parametrize("focused", [*(f"{view} .openseadragon-canvas" for view in VIEWS), ""])
def test_arrows_move_both_together(browser: Browser, page: Path, focused: str) -> None:
    """Also when nothing has the keyboard yet, as on a page just opened."""
    opened(browser, page)
    if focused:
        browser.focus(focused)
    browser.press("1", "+", "+")
    start = both(browser)
    assert start.scale == pytest.approx(2.25, rel=0.05)
    across, down = 40 / (2.25 * WIDTH), 40 / (2.25 * HEIGHT)
    browser.press(*RIGHT * 5)
    seen = both(browser)
    assert (seen.x - start.x, seen.y) == (pytest.approx(5 * across, abs=0.01), start.y)
    browser.press(*DOWN * 5)
    moved = both(browser)
    assert (moved.x, moved.y - start.y) == (seen.x, pytest.approx(5 * down, abs=0.02))
    browser.press(*LEFT * 5, *UP * 5)
    back = both(browser)
    assert (back.x, back.y) == (
        pytest.approx(start.x, abs=0.006), pytest.approx(start.y, abs=0.012)
    )  # fmt: skip
    browser.assert_clean()


@pytest.mark.parametrize("view", VIEWS)
def test_dragging_moves_both_together(browser: Browser, page: Path, view: str) -> None:
    opened(browser, page)
    browser.press("1")
    start = both(browser)
    x, y = centre(browser, view)
    browser.drag((x, y), (x - 200, y - 100))
    seen = both(browser)
    assert seen.x - start.x == pytest.approx(200 / WIDTH, abs=0.03)  # it may swing on a little
    assert seen.y - start.y == pytest.approx(100 / HEIGHT, abs=0.04)
    assert seen.scale == pytest.approx(start.scale, rel=0.03)
    browser.assert_clean()


def test_where_movement_is_welcome_it_ends_at_the_same_place(browser: Browser, page: Path) -> None:
    opened(browser, page, still=False)
    browser.press("1")
    browser.until("document.querySelector('#zoom').textContent === '100 %'")
    assert both(browser).scale == pytest.approx(1, rel=0.05)
    browser.assert_clean()


def row(browser: Browser, pixels: np.ndarray) -> list[Spot]:
    """The pixels from left to right of the divided view, off the divider's handle."""
    left, top, right, bottom = browser.box("#content-view")
    return [spot(pixel) for pixel in pixels[(top + bottom) // 2 - 40, left:right]]


def divided_at(browser: Browser) -> float:
    """Where the divider parts the pictures, as a share of the view, and says so.

    Left of it there must be only the content, right of it only the result, both in their places.
    """
    pixels = settled(browser)
    seen = row(browser, pixels)
    says = int(browser.attribute("#divider", "aria-valuenow") or -1)
    line = round(len(seen) * says / 100)
    left, right = seen[: max(line - 9, 0)], seen[line + 9 :]
    assert {each.picture for each in left} <= {"content", "none"}
    assert {each.picture for each in right} <= {"result", "none"}
    shown = [(at, each.x) for at, each in enumerate(seen) if each.picture != "none"]
    (start, x), (end, last) = shown[0], shown[-1]
    slope = (last - x) / (end - start)
    assert max(abs(each - x - slope * (at - start)) for at, each in shown) < 0.01
    parts = [at for at, each in enumerate(seen) if each.picture == "content"]
    return (parts[-1] + 1) / len(seen) if parts else 0.0


def test_the_divider_moves_by_keyboard(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.click("input[value=divided]")
    assert divided_at(browser) == pytest.approx(0.5, abs=0.01)
    assert not browser.find("#result-view").is_displayed()
    browser.focus("#divider")
    says = []
    for keys, share in (
        (RIGHT, 51), (UP * 2, 53), (LEFT, 52), (DOWN, 51), (PAGE_UP, 61), (PAGE_DOWN * 3, 31)
    ):  # fmt: skip
        browser.press(*keys)
        says.append((browser.attribute("#divider", "aria-valuenow"), str(share)))
    assert [said for said, _ in says] == [wanted for _, wanted in says]
    assert divided_at(browser) == pytest.approx(0.31, abs=0.01)
    browser.press_together(SHIFT, RIGHT, RIGHT)
    assert browser.attribute("#divider", "aria-valuenow") == "51"
    browser.press(END)
    assert browser.attribute("#divider", "aria-valuenow") == "100"
    assert {each.picture for each in row(browser, settled(browser))[:-9]} == {"content", "none"}
    browser.press(HOME, LEFT)
    assert browser.attribute("#divider", "aria-valuenow") == "0"
    assert {each.picture for each in row(browser, settled(browser))[9:]} == {"result", "none"}
    browser.assert_clean()


def test_the_divider_moves_by_pointer_and_stays_while_the_pictures_move(
    browser: Browser, page: Path
) -> None:
    opened(browser, page)
    browser.click("input[value=divided]")
    left, top, right, bottom = browser.box("#content-view")
    x, y = centre(browser, "#divider")
    browser.drag((x, y), (left + (right - left) * 3 // 4, y))
    assert browser.attribute("#divider", "aria-valuenow") == "75"
    assert divided_at(browser) == pytest.approx(0.75, abs=0.01)
    before = zoom(browser)
    browser.press("1", "+")  # the divider has the keyboard now, and is not what zooms
    browser.frames()
    assert zoom(browser) == before
    x, y = left + (right - left) // 4, (top + bottom) // 2
    browser.drag((x, y), (x + 90, y))
    browser.wheel((x, y), -120)
    browser.frames()
    assert zoom(browser) == pytest.approx(before * 1.2, rel=0.02)
    assert divided_at(browser) == pytest.approx(0.75, abs=0.01)
    browser.drag(centre(browser, "#divider"), (left, y))
    assert browser.attribute("#divider", "aria-valuenow") == "0"
    browser.assert_clean()


def test_the_divider_moves_by_finger(browser: Browser, page: Path) -> None:
    opened(browser, page, PHONE)
    browser.click("input[value=divided]")
    x, y = centre(browser, "#divider")
    browser.touch_drag((x, y), (300, y + 60))
    assert divided_at(browser) == pytest.approx(0.75, abs=0.02)
    browser.assert_clean()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_what_was_whole_stays_whole(browser: Browser, page: Path, size: tuple[int, int]) -> None:
    """Under the divider, back beside each other, and in a window of another shape."""
    opened(browser, page, size)
    whole = both(browser)
    browser.click("input[value=divided]")
    divided_at(browser)
    left, top, right, bottom = browser.box("#content-view")
    fitting = min((right - left) / WIDTH, (bottom - top) / HEIGHT)
    assert zoom(browser) == pytest.approx(fitting, abs=0.007)
    browser.click("input[value=side]")
    assert both(browser) == whole
    browser.resize((1000, 500))
    settled(browser)
    left, top, right, bottom = browser.box("#content-view")
    fitting = min((right - left) / WIDTH, (bottom - top) / HEIGHT)
    assert zoom(browser) == pytest.approx(fitting, abs=0.007)
    browser.assert_clean()


def test_a_place_looked_at_stays_under_the_divider(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.focus("#result-view .openseadragon-canvas")
    browser.press("1", "+", "+", *RIGHT * 4, *DOWN * 3)
    before = both(browser)
    browser.click("input[value=divided]")
    seen = row(browser, settled(browser))
    middle = seen[len(seen) // 2 + 20]
    assert middle.x == pytest.approx(before.x, abs=0.03)
    browser.click("input[value=side]")
    after = both(browser)
    assert (after.x, after.y) == (
        pytest.approx(before.x, abs=0.01), pytest.approx(before.y, abs=0.015)
    )  # fmt: skip
    browser.assert_clean()


def test_missing_tiles_are_told(browser: Browser, tmp_path: Path) -> None:
    write_pyramid(tmp_path / RESULT.tiles, painted(2).resize((300, 200)))
    page = tmp_path / "page.html"
    small = [replace(pane, width=300, height=200) for pane in (CONTENT, RESULT)]
    page.write_text(page_text(*small), encoding="utf-8")
    for size in (DESKTOP, PHONE):
        browser.open(page, size)
        browser.until("document.querySelector('#trouble').textContent !== ''")
        assert browser.text("#trouble") == (
            "Tiles are missing: keep the folder “photo_files” beside this page."
        )
        assert browser.find("#trouble").is_displayed()
        assert look(browser, "#result-view").picture == "result"
        browser.assert_fits()
        browser.assert_offline()
    (tmp_path / RESULT.tiles).rename(tmp_path / "elsewhere")
    browser.open(page)
    browser.until("document.querySelector('#trouble').textContent.includes('result_files')")
    assert browser.text("#trouble") == (
        "Tiles are missing: keep the folders “photo_files” and “result_files” beside this page."
    )
    said = browser.errors()
    assert said
    assert all("ERR_FILE_NOT_FOUND" in line or "failed to load" in line for line in said), said


@pytest.mark.parametrize(
    "name",
    [
        "a\"b'<script>alert(1)</script><!--.tif",
        "50 %41 #1?&amp;é 画.tif",
        "C:\\x;{y}$&`${z}`.tif",
        pytest.param(
            os.fsdecode(b"\xff\xfe.tif"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="names there are text"),
        ),
    ],
)
def test_any_name_of_a_folder_works(browser: Browser, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a #b%20c?"  # where the page lies
    tiles = [f"{name}{index}_files" for index in range(2)]
    panes = []
    for pane, channel, folder_name in zip((CONTENT, RESULT), (0, 2), tiles, strict=True):
        write_pyramid(folder / folder_name, painted(channel).resize((300, 200)))
        panes.append(replace(pane, title=name, tiles=folder_name, width=300, height=200))
    page = folder / "page.html"
    page.write_text(page_text(*panes), encoding="utf-8")
    opened(browser, page)
    pixels = settled(browser)
    for view, picture in zip(VIEWS, ("content", "result"), strict=True):
        x, y = centre(browser, view)
        assert spot(pixels[y, x]).picture == picture
    shown = name.encode("utf-8", "replace").decode()
    assert browser.text("#content-title") == f"Content {shown}"
    assert browser.driver.title == f"{shown} → {shown}"
    browser.assert_clean()


def test_on_a_phone_one_lies_above_the_other(browser: Browser, page: Path) -> None:
    opened(browser, page, PHONE)
    whole = both(browser)
    assert whole.scale == pytest.approx(PHONE[0] / WIDTH, rel=0.03)
    content, result = (browser.box(view) for view in VIEWS)
    assert (content[0], content[2]) == (result[0], result[2]) == (0, PHONE[0])
    assert content[3] <= browser.box("#result-title")[1] < result[1] < result[3] <= PHONE[1]
    assert content[3] - content[1] == pytest.approx(result[3] - result[1], abs=2)
    assert not browser.find("#hint").is_displayed()
    browser.assert_fits()
    browser.click("input[value=divided]")
    settled(browser)
    assert browser.box("#content-view")[3] == PHONE[1]
    browser.assert_fits()
    browser.assert_clean()


def test_everything_is_reached_with_the_tab_key(browser: Browser, page: Path) -> None:
    opened(browser, page)
    place = "return (document.activeElement.closest('.view') || document.activeElement).id"
    assert browser.script(place) == "content-view"  # so that keys work at once
    browser.press("1")
    browser.until("document.querySelector('#zoom').textContent === '100 %'")
    reached = []
    for _ in range(8):
        browser.press(TAB)
        reached.append(browser.script(place))
        if reached[-1].endswith("-view"):  # a ring is seen over the picture too
            left, top, right, bottom = browser.box(f"#{reached[-1]}")
            pixels = settled(browser)
            for x in (left, right - 1):
                assert tuple(pixels[(top + bottom) // 2, x]) == (0x0A, 0x58, 0xCA)
    assert [name for name in reached if name] == [
        "result-view", "fit", "pixels", "out", "in", "content-view"
    ]  # fmt: skip
    browser.assert_clean()
