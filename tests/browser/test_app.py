"""The app as people use it: drop two images, watch, stop, go on, paint, translate, in a browser.

The server is a process of its own, as are the trainings that the page starts.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason='the app needs the extra app: pip install ".[app]"')

import sincut
from tests.app.conftest import SETTINGS, Server, serving
from tests.browser.chromium import DESKTOP, PHONE, Browser

STATE = "document.getElementById('state').textContent"
DROP = """
const [selector, name, text] = arguments;
const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
const carried = new DataTransfer();
carried.items.add(new File([bytes], name));
const event = new DragEvent('drop', { dataTransfer: carried, bubbles: true, cancelable: true });
document.querySelector(selector).dispatchEvent(event);
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "runs") as found:
        yield found


def visit(
    browser: Browser,
    server: Server,
    path: str = "/",
    size: tuple[int, int] = DESKTOP,
    *,
    dark: bool = False,
) -> None:
    """A page, by the address that the server printed; then only the server may be asked."""
    browser.driver.get(f"{server.address}/?token={server.token}")
    browser.open(f"{server.address}/", size, dark=dark)
    browser.driver.get(f"{server.address}{path}")


def drop(browser: Browser, role: str, file: Path, name: str = "") -> None:
    """Let a file fall onto a place of the page."""
    text = base64.b64encode(file.read_bytes()).decode()
    browser.script(DROP, f"#{role}", name or file.name, text)


def choose(browser: Browser, **settings: object) -> None:
    """Fill in advanced settings, and no time."""
    browser.script("document.querySelector('input[name=minutes][value=\"\"]').click()")
    for name, value in {**SETTINGS, **settings}.items():
        browser.script(
            "const field = document.getElementById(`set-${arguments[0]}`);"
            "if (!field) return;"
            "const options = [...(field.options ?? [])].map((each) => each.value);"
            "if (!options.length || options.includes(arguments[1])) field.value = arguments[1]",
            name,
            str(value),
        )


def kept_open(browser: Browser) -> str:
    """The name of the run whose page is open."""
    return str(browser.script("return location.pathname.split('/')[2]"))


def test_from_two_images_to_a_file_in_full_size(
    browser: Browser, server: Server, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    visit(browser, server, "/new")
    for role, file in zip(("content", "style"), pair, strict=True):
        drop(browser, role, file)
    browser.until("!document.getElementById('start').disabled", seconds=60)
    said = browser.text("#content .said")
    assert said.startswith("content.png · 160 × 128 · 8 bits · no profile · ")
    choose(browser, steps=100_000, warm_steps=2, preview_every=20)
    browser.click("#start")
    # Previews come, and the divider moves.
    browser.until(f"document.getElementById('state') && {STATE} === 'Training'", seconds=90)
    browser.until("document.getElementById('after').naturalWidth > 0", seconds=60)
    browser.until("document.querySelectorAll('#curves .curve').length > 0")
    name = kept_open(browser)
    left, top, right, _ = browser.box("#compare")
    browser.drag(((left + right) // 2, top + 40), (left + (right - left) // 4, top + 40))
    assert abs(int(browser.script("return +document.getElementById('divide').value")) - 25) <= 1
    # Reloaded in mid-run, and seen in a second tab.
    browser.driver.refresh()
    browser.until(f"{STATE} === 'Training'")
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    try:
        browser.driver.get(f"{server.address}/")
        browser.until("document.querySelector('.card.running .state')")
        browser.driver.get(f"{server.address}/runs/{name}")
        browser.until(f"{STATE} === 'Training'")
        browser.click("#stop")
        browser.until(f"{STATE} === 'Stopped and saved'", seconds=60)
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(first)
    browser.until(f"{STATE} === 'Stopped and saved'")
    browser.click("#resume")
    browser.until(f"{STATE} === 'Training'", seconds=90)
    browser.click("#stop")
    browser.until(f"{STATE} === 'Stopped and saved'", seconds=60)
    # A mask, and the translation at full size with it.
    browser.driver.get(f"{server.address}/runs/{name}/result")
    browser.until("!document.getElementById('make').disabled")
    browser.script("document.getElementById('masking').open = true")
    browser.until("document.getElementById('paint').width === 160")
    browser.script("document.getElementById('paint').scrollIntoView({ block: 'center' })")
    left, top, _, _ = browser.box("#paint")
    browser.drag((left + 20, top + 20), (left + 90, top + 90))
    browser.click("#keep-mask")
    browser.until("document.getElementById('masked').checked", seconds=60)
    browser.click("#make")
    browser.until("document.querySelector('#results a.button')", seconds=90)
    folder = server.folder / name
    options = {"mask": str(folder / "mask.png")}
    sincut.translate(folder / "run", pair[0], tmp_path / "content.png", **options)
    wanted = (tmp_path / "content.png").read_bytes()
    assert (folder / "results/content.png").read_bytes() == wanted
    # It is shown by itself, and zooms.
    browser.until("document.querySelector('#stage canvas')", seconds=60)
    browser.until("document.getElementById('zoom').textContent")
    before = browser.text("#zoom")
    browser.click("#in")
    browser.until("document.getElementById('zoom').textContent !== arguments[0]", before)
    left, top, right, bottom = browser.box("#stage")
    middle = (left + right) // 2, (top + bottom) // 2
    browser.drag(middle, (left + (right - left) // 10, middle[1]))
    assert abs(int(browser.script("return +document.getElementById('divide').value")) - 10) <= 1
    browser.assert_fits()
    browser.assert_clean()


def test_a_server_that_was_killed_finds_the_training(
    browser: Browser, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        name = server.train(*pair, steps=100_000)
        server.wait(f"/api/runs/{name}", lambda run: run["step"] > 0)
        visit(browser, server, f"/runs/{name}")
        browser.until(f"{STATE} === 'Training'")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        browser.until("document.getElementById('told').textContent")
        assert browser.text("#told") == (
            "The server does not answer. Trainings go on without it; start sincut app again to "
            "see them."
        )
    with serving(tmp_path) as server:
        visit(browser, server)
        browser.until("document.querySelector('.card.running .state')")
        browser.click(".card h2 a")
        browser.until(f"document.getElementById('state') && {STATE} === 'Training'")
        browser.click("#stop")
        browser.until(f"{STATE} === 'Stopped and saved'", seconds=60)
        browser.assert_clean()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_pages_fit_and_say_nothing_in_the_console(
    browser: Browser, server: Server, tiny_run: Path, size: tuple[int, int]
) -> None:
    long = "a-very-long-name-without-any-place-to-break-" * 2
    shutil.copytree(tiny_run, server.folder / long)
    for path in ("/", "/new", f"/runs/{long}", f"/runs/{long}/result"):
        for dark in (False, True):
            visit(browser, server, path, size, dark=dark)
            browser.until("document.querySelector('h1')")
            browser.script(
                "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
            )
            browser.frames()
            browser.assert_fits()
    browser.assert_offline()


def test_a_new_run_takes_the_images_of_another(
    browser: Browser, server: Server, tiny_run: Path, pair: tuple[Path, Path]
) -> None:
    shutil.copytree(tiny_run, server.folder / "tiny")
    for file in pair:
        shutil.copy(file, server.folder)  # beside the run, where it looks for them
    visit(browser, server, "/new?from=tiny")
    browser.until("!document.getElementById('start').disabled", seconds=60)
    assert browser.text("#style .said").startswith("style.png · 144 × 120 · ")
    browser.assert_clean()


def test_names_with_markup_are_shown_as_text(
    browser: Browser, server: Server, tiny_run: Path, pair: tuple[Path, Path]
) -> None:
    title = "<img src=x onerror=\"document.title='harm'\">"
    shutil.copytree(tiny_run, server.folder / "tiny")
    server.ask("POST", "/api/runs/tiny", {"action": "rename", "title": title})
    for path, place in (("/", ".card h2"), ("/runs/tiny", "h1"), ("/runs/tiny/result", "h1")):
        visit(browser, server, path)
        browser.until(
            "document.querySelector(arguments[0])?.textContent === arguments[1]", place, title
        )
    visit(browser, server, "/new")
    drop(browser, "content", pair[0], f"{title}.png")
    browser.until("document.querySelector('#content.filled')", seconds=60)
    assert browser.text("#content .said").startswith("<img src=x onerror=")
    assert "harm" not in browser.driver.title
    assert browser.script("return document.querySelectorAll('img[src=x]').length") == 0
    browser.assert_clean()


def test_what_is_refused_is_told_in_one_line(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "words.png"
    file.write_text("these are words")
    visit(browser, server, "/new")
    drop(browser, "style", file)
    browser.until("document.getElementById('told').textContent", seconds=60)
    assert browser.text("#told").startswith("words.png is not an image that can be read; allowed:")
    assert browser.attribute("#told", "role") == "alert"
    assert browser.script("return document.getElementById('start').disabled")


@pytest.mark.parametrize(
    ("language", "heading"), [("de", "Läufe"), ("ko", "실행 목록"), ("zh-Hant", "執行列表")]
)
def test_another_language_is_kept(
    browser: Browser, server: Server, language: str, heading: str
) -> None:
    visit(browser, server)
    browser.script(
        "const select = document.getElementById('language'); select.value = arguments[0];"
        "select.dispatchEvent(new Event('change'))",
        language,
    )
    try:
        browser.until("document.documentElement.lang === arguments[0]", language)
        assert browser.text("h1") == heading
        browser.driver.get(f"{server.address}/new")
        assert browser.attribute("html", "lang") == language
    finally:
        browser.driver.delete_all_cookies()


def test_everything_can_be_reached_by_keys_and_has_a_name(
    browser: Browser, server: Server, tiny_run: Path
) -> None:
    shutil.copytree(tiny_run, server.folder / "tiny")
    nameless = """
    const named = (each) => each.getAttribute('aria-label') || each.getAttribute('aria-labelledby')
      || each.labels?.length || each.textContent.trim();
    return [...document.querySelectorAll('a[href], button, input, select, canvas, progress')]
      .filter((each) => each.getAttribute('aria-hidden') !== 'true' && !named(each)
        && !each.closest('[role=img]'))
      .map((each) => each.outerHTML.slice(0, 100));
    """
    for path in ("/", "/new", "/runs/tiny", "/runs/tiny/result"):
        visit(browser, server, path)
        browser.until("document.querySelector('.card, form, #facts div, #make')")
        assert browser.script(nameless) == []
        assert browser.script("return document.querySelectorAll('img:not([alt])').length") == 0
        assert browser.script("return document.querySelectorAll('h1').length") == 1
    visit(browser, server, "/new")
    browser.focus("#look")
    browser.press("\ue014")  # the right arrow
    assert browser.text("#look-sets") == "--look 0.55"


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_axe_finds_no_fault(
    browser: Browser, server: Server, tiny_run: Path, size: tuple[int, int]
) -> None:
    place = os.environ.get("AXE_CORE")
    if not place:
        pytest.skip("needs axe-core: npm install axe-core, AXE_CORE=…/axe-core/axe.min.js")
    run = "const done = arguments[0]; axe.run().then((found) => done(found.violations.map((each) =>"
    run += " [each.id, ...each.nodes.map((node) => node.html)])))"
    shutil.copytree(tiny_run, server.folder / "tiny")
    for path in ("/", "/new", "/runs/tiny", "/runs/tiny/result", "/nothing"):
        for dark in (False, True):
            visit(browser, server, path, size, dark=dark)
            browser.until("document.querySelector('.card, form, #facts div, #make, .button')")
            browser.script(
                "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
            )
            script = Path(place).read_text(encoding="utf-8")
            browser.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": script})
            assert browser.driver.execute_async_script(run) == [], path
