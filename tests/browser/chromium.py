"""A headless Chromium for the tests of pages: real windows, keys and pointers, no network.

The fixture ``browser`` lives as long as the tests do; every :meth:`Browser.open` begins anew, with
a window of the size asked for and an empty list of errors and requests.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

DESKTOP = (1280, 900)
PHONE = (400, 800)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # cannot be had as root, nor in most containers
    "--disable-gpu",
    "--disable-dev-shm-usage",  # 64 MB in most containers, too little for a page of pictures
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
INSIDE = ("file:", "data:", "blob:", "about:")  # addresses that leave neither page nor disk


class Browser:
    """What the tests ask of a browser, over selenium's ``driver``."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.size = DESKTOP
        self._errors: list[str] = []
        self._requests: list[str] = []
        self._allowed: tuple[str, ...] = INSIDE

    def open(
        self,
        page: Path | str,
        size: tuple[int, int] = DESKTOP,
        *,
        dark: bool = False,
        still: bool = True,
        fragment: str = "",
    ) -> None:
        """Load a file of the disk, in a window of width and height, with ``dark`` or light colours.

        A text is the address of a server on this machine, which may then be asked for more.
        ``still`` asks the page for no animations, as people may; what was said and asked for on
        earlier pages is forgotten. ``fragment`` comes after ``#``.
        """
        self.driver.get("about:blank")
        self.resize(size)
        self.media(dark=dark, still=still)
        self._collect()
        self._errors, self._requests = [], []
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self._allowed = (*INSIDE, address) if isinstance(page, str) else INSIDE
        self.driver.get(f"{address}#{fragment}" if fragment else address)

    def resize(self, size: tuple[int, int]) -> None:
        """The window's inside; below 700 pixels of width it is a phone's."""
        self.size = size
        width, height = size
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700},
        )

    def media(self, *, dark: bool = False, still: bool = True) -> None:
        """What the system prefers: dark or light colours, and whether things may move."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self._tell("Emulation.setEmulatedMedia", {"features": features})

    def script(self, code: str, *values: Any) -> Any:
        """The value of a function's body with ``arguments``; a promise is waited for."""
        return self.driver.execute_script(code, *values)

    def until(self, code: str, *values: Any, seconds: float = 20.0) -> Any:
        """The value of an expression as soon as it is true.

        Raises:
            AssertionError: it is not within ``seconds``.
        """
        end = time.monotonic() + seconds
        while not (value := self.script(f"return {code}", *values)):
            if time.monotonic() > end:
                said = "\n".join(self.errors())
                raise AssertionError(f"not true within {seconds} s: {code}\n{said}")
            time.sleep(0.02)
        return value

    def frames(self, count: int = 2) -> None:
        """Wait until the page has been drawn so often."""
        self.script(
            "return new Promise((done) => { let left = arguments[0];"
            " const next = () => left-- > 0 ? requestAnimationFrame(next) : done(true); next(); })",
            count,
        )

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector; an error where there is none."""
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """What an element says, seen or not."""
        return str(self.script("return document.querySelector(arguments[0]).textContent", selector))

    def attribute(self, selector: str, name: str) -> str | None:
        """An attribute of an element."""
        value = self.find(selector).get_dom_attribute(name)
        return None if value is None else str(value)

    def box(self, selector: str) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of an element in the window, rounded."""
        left, top, right, bottom = self.script(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            " return [box.left, box.top, box.right, box.bottom].map(Math.round)",
            selector,
        )
        return left, top, right, bottom

    def focus(self, selector: str) -> None:
        """Give an element the keyboard, without a click."""
        self.script("document.querySelector(arguments[0]).focus()", selector)

    def focused(self) -> Any:
        """The element that has the keyboard."""
        return self.driver.switch_to.active_element

    def click(self, selector: str) -> None:
        """A click with the mouse."""
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """Keys one after the other, to whatever has the keyboard; special ones as in ``Keys``."""
        actions = self._actions()
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def press_together(self, held: str, *keys: str) -> None:
        """Keys while another is held down."""
        actions = self._actions().key_down(held)
        for key in keys:
            actions.send_keys(key)
        actions.key_up(held).perform()

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the mouse's button at a place of the window, move, and let go at another."""
        actions = self._actions()
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to_location(*start)
        pointer.pointer_down()
        pointer.move_to_location((start[0] + end[0]) // 2, (start[1] + end[1]) // 2)
        pointer.move_to_location(*end)
        pointer.pointer_up()
        actions.perform()

    def touch_drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """The same with a finger."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        finger = PointerInput("touch", "finger")
        actions = ActionChains(self.driver, duration=30, devices=[finger])
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to_location(*start)
        pointer.pointer_down()
        pointer.move_to_location((start[0] + end[0]) // 2, (start[1] + end[1]) // 2)
        pointer.move_to_location(*end)
        pointer.pointer_up()
        actions.perform()

    def hover(self, place: tuple[int, int]) -> None:
        """Move the mouse to a place of the window."""
        actions = self._actions()
        actions.w3c_actions.pointer_action.move_to_location(*place)
        actions.perform()

    def wheel(self, place: tuple[int, int], down: int) -> None:
        """Turn the mouse's wheel over a place of the window; a notch is about 120."""
        actions = self._actions()
        actions.w3c_actions.wheel_action.scroll(*place, 0, down)
        actions.perform()

    def pixels(self, selector: str | None = None) -> npt.NDArray[np.uint8]:
        """(H, W, 3) of what the window shows, or of an element's part of it."""
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as image:
            shown = np.asarray(image.convert("RGB"))
        if selector is None:
            return shown
        left, top, right, bottom = self.box(selector)
        return shown[max(top, 0) : bottom, max(left, 0) : right]

    def screenshot(self, path: Path) -> None:
        """What the window shows, as a PNG."""
        path.write_bytes(self.driver.get_screenshot_as_png())

    def errors(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        self._collect()
        return list(self._errors)

    def requests(self) -> list[str]:
        """Every address asked for since the page was opened, its own first, data: ones cut."""
        self._collect()
        return list(self._requests)

    def assert_clean(self) -> None:
        """No error and no warning in the console, and nothing asked of a network.

        Raises:
            AssertionError: there was one.
        """
        self.assert_offline()
        assert not self._errors, "the console says:\n" + "\n".join(self._errors)

    def assert_offline(self) -> None:
        """Nothing was asked of a network, not even in vain.

        Raises:
            AssertionError: there was a request.
        """
        self._collect()
        assert self._requests, "the log of requests is empty; not even the page itself is in it"
        outside = [address for address in self._requests if not address.startswith(self._allowed)]
        # What the page's own policy stopped was never sent, and yet something wanted to send it.
        outside += [line for line in self._errors if "Content Security Policy" in line]
        assert not outside, "asked of a network:\n" + "\n".join(outside)

    def assert_fits(self) -> None:
        """The page is not wider than the window.

        ``innerWidth`` says nothing of this: a phone's grows with the page.

        Raises:
            AssertionError: it is; the message names the elements that stick out.
        """
        width, wide = self.size[0], self.script("return document.documentElement.scrollWidth")
        if wide > width:
            outside = self.script(
                "return [...document.body.querySelectorAll('*')]"
                ".filter((each) => each.getBoundingClientRect().right > arguments[0] + 1 &&"
                " !(each.parentElement.closest('.wide')))"
                ".slice(0, 8).map((each) => each.cloneNode(false).outerHTML.slice(0, 120))",
                width,
            )
            raise AssertionError(
                f"the page is {wide} pixels wide in {width}:\n" + "\n".join(outside)
            )

    def _actions(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.driver, duration=30)

    def _tell(self, command: str, values: dict[str, Any]) -> None:
        self.driver.execute_cdp_cmd(command, values)

    def _collect(self) -> None:
        """Selenium hands each entry out once."""
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING"):
                self._errors.append(entry["message"])
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self._requests.append(event["params"]["request"]["url"][:500])
            elif event["method"] == "Network.webSocketCreated":
                self._requests.append(event["params"]["url"])


def _program(*names: str) -> str:
    """The first of these programs that is there; the tests are skipped where none is."""
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"the tests of pages in a browser need {' or '.join(names)}")
    return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium of the machine; nothing is downloaded for it."""
    pytest.importorskip(
        "selenium", reason="the tests of pages in a browser need selenium: pip install selenium"
    )
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    chromium = _program("chromium", "chromium-browser", "google-chrome")
    chromedriver = _program("chromedriver")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    profile = tmp_path_factory.mktemp("chromium")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With a path selenium does not start its manager, which would look for drivers in a network.
    service = Service(executable_path=chromedriver)
    with pytest.MonkeyPatch.context() as patch:
        local = os.environ.get("no_proxy", "")
        patch.setenv("no_proxy", f"{local},localhost,127.0.0.1".lstrip(","))
        try:
            driver = Chrome(options=options, service=service)
        except WebDriverException as error:  # of a container that forbids it, another version, …
            first = str(error.msg).splitlines()[:1]
            pytest.skip(f"Chromium is there and does not start: {' '.join(first)}")
        try:
            driver.set_page_load_timeout(30)
            driver.set_script_timeout(30)
            yield Browser(driver)
        finally:
            driver.quit()
