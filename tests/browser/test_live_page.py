"""The live page of a training that is really running, in a real browser, from disk."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.browser.chromium import PHONE, Browser
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
    assert said.endswith(" of 100000 steps and saved")
    saved = json.loads((run / "live.js").read_text()[len("sincutLive(") : -len(");\n")])
    with safe_open(run / "model.safetensors", framework="np") as file:
        step = json.loads(file.metadata()["header"])["step"]
    assert said.startswith(f"Interrupted after {step} of ")
    assert saved["facts"][0] == ["Step", f"{step} of 100000"]
    assert browser.text("#resume pre") == "sincut train content.png style.png -o run --resume"
    assert "left" not in browser.text("#facts")
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
    values = json.loads(data.read_text()[len("sincutLive(") : -len(");\n")])
    data.write_text(said({**values, "report": "other.html"}))
    browser.open(page)
    browser.until("!document.getElementById('report').hidden")
    assert browser.script("return document.querySelector('#report a').href").endswith("/other.html")
    data.unlink()
    browser.open(page)
    browser.until(
        "document.getElementById('state').textContent.startsWith('live.js is not beside')"
    )
    assert browser.script("return document.getElementById('live').hidden")


# Every wait of the page is noted, and cut short.
HURRY = """
const real = window.setTimeout;
window.waits = [];
window.setTimeout = (work, time = 0) => { waits.push(time); return real(work, time / 100); };
"""


def said(values: dict[str, Any]) -> str:
    """The text of ``live.js`` that says this."""
    return f"sincutLive({json.dumps(values)});\n"


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The page of a copy of the small run, and what it is told."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("*.safetensors", "*.html"))
    shutil.copy(tiny_run / "index.html", run)
    text = (run / "live.js").read_text()
    return run / "index.html", json.loads(text[len("sincutLive(") : -len(");\n")])


@pytest.mark.parametrize(
    ("age", "patience", "alarm"),
    [(61, 60, True), (1600, 1670, False), (1700, 1670, True), (9999, None, False)],
)
def test_only_a_run_that_is_late_rings(
    browser: Browser, copied: tuple[Path, dict[str, Any]], age: float, patience: float, alarm: bool
) -> None:
    page, values = copied
    words = "Trained 6 steps; the report is being written"
    running = {"state": "reporting", "running": True, "said": words, "patience": patience}
    told = {**values, **running, "written": time.time() - age}
    page.with_name("live.js").write_text(said(told))
    browser.open(page)
    browser.until("document.getElementById('state').textContent")
    assert browser.script("return document.getElementById('resume').hidden") is not alarm
    if not alarm:
        assert browser.text("#state") == words
        return
    assert browser.text("#state").startswith("No news since ")
    assert browser.text("#state").endswith(
        ". See whether the training still runs; if so, it is slow, and must be left alone. Only "
        "if it was killed:"
    )
    assert browser.text("#resume pre") == "sincut train content.png style.png -o tiny --resume"
    browser.assert_fits()


def test_a_run_that_goes_on_is_followed(
    browser: Browser, copied: tuple[Path, dict[str, Any]]
) -> None:
    page, values = copied
    data = page.with_name("live.js")
    running = {"state": "training", "running": True, "said": "Training", "every": 2.0}
    data.write_text(said({**values, **running}))
    browser.open(page)
    browser.until("document.getElementById('state').textContent === 'Training'")
    browser.script(HURRY)
    for index, state in enumerate(("interrupted", "stopped")):
        browser.script("window.waits = []")
        data.write_text(said({**values, "state": state, "said": state, "written": index}))
        browser.until("document.getElementById('state').textContent === arguments[0]", state)
        assert not browser.script("return document.getElementById('resume').hidden")
        asked = loads(browser)
        browser.until("window.waits.filter((time) => time === 10000).length > 3")
        assert loads(browser) >= asked + 2
        assert browser.script("return window.waits.filter((time) => time > 1000).at(-1)") == 10000
    # Its page is another, too: settings, commands.
    text = page.read_text("utf-8").replace("<h3>The same again</h3>", "<h3>As it is now</h3>")
    page.write_text(text, "utf-8")
    data.write_text(said({**values, "session": values["session"] + 1}))
    browser.until("!window.waits && document.getElementById('state').textContent")
    assert browser.text("#state") == "Finished after 6 steps"
    assert "As it is now" in browser.text("#settings")
    assert browser.script("return document.getElementById('resume').hidden")
    browser.assert_clean()
