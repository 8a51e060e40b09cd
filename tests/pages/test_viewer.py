"""The page that shows two pyramids: whole in itself, and safe with any file name."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from sincut.pages import viewer
from sincut.pages.viewer import Pane, page_text

CONTENT = Pane("photo.tif", "photo_files", 40000, 30000, 512, 1, "jpeg")
RESULT = Pane("result.tif", "result_files", 39999, 30001, 254, 2, "png")
HOSTILE = 'a"</script><b>.tif'


class Reader(HTMLParser):
    """What a browser makes of the page: elements, the text of each, the attributes of each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, "".join(text)) for name, attrs, text in self.found if name == tag]

    def panes(self) -> list[dict[str, Any]]:
        """What the script of the page is given."""
        (text,) = (text for attrs, text in self.all("script") if attrs.get("id") == "panes")
        found: list[dict[str, Any]] = json.loads(text)
        return found


def without_library(page: str) -> str:
    library = viewer.LIBRARY.read_text(encoding="utf-8")
    assert page.count(library) == 1
    return page.replace(library, "")


def test_the_page_names_both_pyramids() -> None:
    xmlns = "http://schemas.microsoft.com/deepzoom/2008"
    assert Reader(page_text(CONTENT, RESULT)).panes() == [
        {
            "folder": "photo_files",
            "source": {
                "Image": {
                    "xmlns": xmlns,
                    "Url": "photo_files/",
                    "Format": "jpeg",
                    "Overlap": 1,
                    "TileSize": 512,
                    "Size": {"Width": 40000, "Height": 30000},
                }
            },
        },
        {
            "folder": "result_files",
            "source": {
                "Image": {
                    "xmlns": xmlns,
                    "Url": "result_files/",
                    "Format": "png",
                    "Overlap": 2,
                    "TileSize": 254,
                    "Size": {"Width": 39999, "Height": 30001},
                }
            },
        },
    ]


def test_the_titles_are_shown_over_their_pictures() -> None:
    page = Reader(page_text(CONTENT, RESULT))
    assert [text for _, text in page.all("title")] == ["photo.tif → result.tif\n"]
    # The text after </small> belongs to the last element that began.
    assert [text for _, text in page.all("small")] == ["Content photo.tif\n", "Result result.tif\n"]


@pytest.mark.parametrize("name", [HOSTILE, "<!--<script>", "&lt;b>", "@@ {x} \\1 $& .tif", "']]>"])
def test_no_name_breaks_out(name: str) -> None:
    plain = Reader(page_text(CONTENT, RESULT))
    page = Reader(page_text(replace(CONTENT, title=name, tiles=name), replace(RESULT, title=name)))
    assert [tag for tag, _, _ in page.found] == [tag for tag, _, _ in plain.found]
    assert page.all("title") == [({}, f"{name} → {name}\n")]
    assert [text for _, text in page.all("small")] == [f"Content {name}\n", f"Result {name}\n"]
    first = page.panes()[0]
    assert first["folder"] == name
    assert unquote_to_bytes(first["source"]["Image"]["Url"]) == name.encode() + b"/"


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("my picture_files", "my%20picture_files/"),
        ("50 %#1?_files", "50%20%25%231%3F_files/"),
        ("http://far.example/x_files", "http%3A//far.example/x_files/"),
        ("pyramids/é_files", "pyramids/%C3%A9_files/"),
        ("\udcff_files", "%FF_files/"),  # a byte of a name that is no UTF-8
    ],
)
def test_folders_become_relative_addresses(folder: str, url: str) -> None:
    text = page_text(replace(CONTENT, tiles=folder, title=folder), RESULT)
    assert Reader(text).panes()[0]["source"]["Image"]["Url"] == url
    text.encode("utf-8")  # the page can be written whatever the name


def test_a_name_that_is_no_text_is_shown_with_a_question_mark() -> None:
    page = Reader(page_text(replace(CONTENT, title="\udcff.tif"), RESULT))
    assert page.all("title")[0][1] == "?.tif → result.tif\n"


def test_the_library_is_inlined_unchanged_with_its_licence() -> None:
    page = page_text(CONTENT, RESULT)
    library = viewer.LIBRARY.read_bytes()
    assert hashlib.sha256(library).hexdigest() == (
        "3e3b0ec92fd129d31b8a8bfd1e9e5a8c97a1f51dd25c0c2ec68c2feca62c0954"
    )
    assert library.startswith(b"//! openseadragon 4.1.0\n")
    assert b"v4.1.0-0-8849681" in library
    assert "v4.1.0-0-8849681" in (viewer.__doc__ or "")
    assert library.decode() in page
    licence = viewer.LICENCE.read_text(encoding="utf-8")
    assert hashlib.sha256(licence.encode()).hexdigest() == (
        "6a00feb184dd2b75fc08bc9f3d780a41dc63e26c47ce592901f8885774f09c8a"
    )
    assert licence in page


def test_what_is_inlined_cannot_end_its_script() -> None:
    for part in (viewer.LIBRARY, viewer.LICENCE):
        text = part.read_text(encoding="utf-8")
        assert not re.search(r"</script|<!--|<script", text, re.IGNORECASE)
    assert "*/" not in viewer.LICENCE.read_text(encoding="utf-8")
    assert "sourceMappingURL" not in page_text(CONTENT, RESULT)


def test_nothing_comes_from_elsewhere() -> None:
    text = page_text(CONTENT, RESULT)
    own = without_library(text)
    assert set(re.findall(r"https?://[^\"' ]+", own)) == {
        "http://schemas.microsoft.com/deepzoom/2008"
    }
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", own)
    page = Reader(text)
    asked = [value for _, attrs, _ in page.found for key, value in attrs.items() if key == "src"]
    assert asked == []
    assert [attrs["href"] for attrs, _ in page.all("link")] == ["data:,"]
    (policy,) = (
        attrs["content"] for attrs, _ in page.all("meta") if attrs.get("http-equiv") is not None
    )
    assert policy is not None
    assert " ".join(policy.split()) == (
        "default-src 'none'; img-src 'self' file: data:; "
        "script-src 'unsafe-inline'; style-src 'unsafe-inline'"
    )


def test_the_script_finds_every_element_it_asks_for() -> None:
    page = Reader(page_text(CONTENT, RESULT))
    ids = [attrs["id"] for _, attrs, _ in page.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    script = page.all("script")[-1][1]
    asked = set(re.findall(r'byId\("([a-z-]+)"\)', script))
    assert {"panes", "divider", "zoom", "fit", "pixels", "in", "out", "trouble"} <= asked
    asked -= {"before"}  # only pages with a choice have it
    assert asked | {"content-view", "result-view", "content-title", "result-title"} <= set(ids)
    styled = set(re.findall(r"#([a-z]+-?[a-z]*) \{", page.all("style")[0][1]))
    assert styled <= set(ids)


def test_every_control_says_what_it_does() -> None:
    page = Reader(page_text(CONTENT, RESULT))
    assert [attrs.get("aria-label") or text.strip() for attrs, text in page.all("button")] == [
        "Fit",
        "1:1",
        "Zoom out",
        "Zoom in",
    ]
    (divider,) = (attrs for attrs, _ in page.all("div") if attrs.get("role") == "slider")
    assert divider["tabindex"] == "0"
    assert divider["aria-label"] == "Divider between content and result"


def test_the_page_reads_the_same_everywhere() -> None:
    text = page_text(CONTENT, RESULT)
    assert text.index('charset="utf-8"') < 1024  # where browsers look for it
    assert "\r" not in text
