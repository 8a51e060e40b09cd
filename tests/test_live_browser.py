"""The live page of a training that is really running, in a real browser, from disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import PHONE, Browser
from tests.conftest import TINY

SETTINGS = {"steps": 100_000, "warm_steps": 1, "preview_every": 20, "checkpoint_every": 1000}
LOADED = "document.getElementById('preview').naturalWidth > 0"
STEP = "document.querySelector('#facts dd').textContent"
CURVES = "document.querySelectorAll('#curves .curve').length > 0"


def started(pair: tuple[Path, Path], run: Path) -> subprocess.Popen[str]:
    values = {**TINY, **SETTINGS}
    fixed = [f"--{name}={values.pop(name)}" for name in ("preset", "device", "precision", "steps")]
    sets = [f"--set={name}={value}" for name, value in values.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "sincut", "train", *map(str, pair), "-o", str(run), *fixed,
         *sets],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run / "previews/000020.png").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.fixture
def training(pair: tuple[Path, Path], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = started(pair, tmp_path / "run")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def loads(browser: Browser) -> int:
    """How often the page has asked for its data."""
    return sum("/live.js?" in address for address in browser.requests())


def test_it_follows_a_training_to_its_end(
    browser: Browser, training: subprocess.Popen[str], tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    run = tmp_path / "run"
    browser.open(run / "index.html")
    browser.until(LOADED)
    browser.until(CURVES)
    assert browser.text("#state") == "Training"
    assert browser.text("h1") == "content.png in the look of style.png"

    # By itself: steps, previews, curves. The page is marked, to see that it is never left.
    browser.script("window.mark = document.querySelector('#curves .curve')")
    first, label = browser.script(f"return {STEP}"), browser.text("#shown")
    browser.until(f"{STEP} !== arguments[0]", first)
    browser.until("document.getElementById('shown').textContent !== arguments[0]", label)
    browser.until("window.mark && !window.mark.isConnected && " + CURVES)
    assert loads(browser) >= 2

    # The preview and the place chosen with the keyboard stay while new ones arrive.
    browser.focus("#scrubber")
    browser.press(Keys.HOME)
    assert browser.text("#shown").startswith("0 (1 of ")
    browser.until("document.getElementById('preview').src.includes('000000.png')")
    assert browser.attribute("#scrubber", "aria-valuetext") == "step 0"
    count = browser.script("return +document.getElementById('scrubber').max")
    browser.until("+document.getElementById('scrubber').max > arguments[0]", count)
    assert browser.text("#shown").startswith("0 (1 of ")
    assert browser.focused().get_dom_attribute("id") == "scrubber"
    browser.click("#newest")
    browser.until("document.getElementById('newest').disabled")
    assert browser.focused().get_dom_attribute("id") == "scrubber"
    newest = browser.script("return document.getElementById('shown').textContent.split(' ')[0]")
    assert int(newest) >= 20

    # A curve that has the keyboard is not drawn anew; afterwards it is.
    browser.focus("#curves .plot")
    browser.script("window.held = document.activeElement")
    browser.until("document.getElementById('waiting').classList.contains('now')")
    assert browser.script("return document.activeElement === window.held && held.isConnected")
    browser.focus("#scrubber")
    browser.until("!window.held.isConnected")

    training.send_signal(signal.SIGINT)
    training.wait(60)
    browser.until("document.getElementById('state').textContent.startsWith('Interrupted after ')")
    said = browser.text("#state")
    assert said.endswith(" of 100000 steps and saved; the same command with --resume goes on")
    assert "left" not in browser.text("#facts")
    asked = loads(browser)
    time.sleep(2.5)
    assert loads(browser) == asked
    browser.assert_clean()
    assert browser.attribute("#report", "hidden") is not None


def test_a_phone_the_dark_and_a_report(browser: Browser, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    page, data = tmp_path / "run/index.html", tmp_path / "run/live.js"
    for size, dark in ((PHONE, False), ((1280, 900), True)):
        browser.open(page, size, dark=dark)
        browser.until(LOADED)
        browser.until(CURVES)
        browser.frames()
        assert browser.text("#state") == "Finished after 6 steps"
        assert browser.text("#shown") == "6 (3 of 3)"
        browser.assert_fits()
        browser.assert_clean()
        paper = browser.pixels()[2, 2]
        assert (paper < 64).all() if dark else (paper > 192).all()
        assert loads(browser) == 1
    text = data.read_text()
    data.write_text(text.replace('"state":', '"report":"report.html","state":', 1))
    browser.open(page)
    browser.until("!document.getElementById('report').hidden")
    assert browser.script("return document.querySelector('#report a').href").endswith(
        "/report.html"
    )

    # A run that was killed says nothing any more.
    data.write_text(
        text.replace('"running":false', '"running":true').replace(
            '"written":', '"written":1e9,"x":'
        )
    )
    browser.open(page)
    browser.until("document.getElementById('state').textContent.startsWith('No news since ')")
    data.unlink()
    browser.open(page)
    browser.until(
        "document.getElementById('state').textContent.startsWith('live.js is not beside')"
    )
    assert browser.script("return document.getElementById('live').hidden")
