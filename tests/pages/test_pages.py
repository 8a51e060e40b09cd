"""The shell of pages, their tables and what their charts show: whole, escaped, within bounds."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from sincut.config.presets import train_config
from sincut.data.training_data import Crops
from sincut.pages import shell as pages
from sincut.pages import viewer
from sincut.runs import model_card as card
from sincut.runs.curves import charts
from sincut.runs.folder import RunImage, RunRecord, read_run
from sincut.training.state import initial_state
from sincut.training.step import Kind, sincut_step
from tests.pages.test_viewer import Reader
from tests.training import test_loop as test_training

HOSTILE = ["</script><b>", "<!--<script>", "a\"b'c&amp;", "{x} \\1 $& %s", "]]>"]

# Whoever changes the library has to say so here and in the docstring of the package.
UPLOT_DIGEST = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
UPLOT_STYLE_DIGEST = "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"


def run_of(*log: dict[str, Any]) -> RunRecord:
    """A run that logged so."""
    image = RunImage("a.png", 1, 1, "0" * 64)
    return RunRecord(Path("run"), "1", train_config("draft"), image, image, log, ())


def losses(steps: list[int], **values: list[float]) -> tuple[dict[str, Any], ...]:
    """Records of losses."""
    return tuple(
        {"step": step, "seconds": 1.0, "losses": {name: each[at] for name, each in values.items()}}
        for at, step in enumerate(steps)
    )


def test_a_page_has_its_parts_in_order() -> None:
    text = pages.document(
        "Title",
        "<p>body</p>",
        styles=["p { color: red }\n"],
        scripts=["one();\n", "two();\n"],
        data={"values": {"a": [1, 2.5, None, True, "é"]}},
    )
    page = Reader(text)
    assert [tag for tag, _, _ in page.found] == [
        "html", "head", "meta", "meta", "meta", "meta", "link", "title", "style", "style",
        "body", "p", "script", "script", "script",
    ]  # fmt: skip
    assert page.all("html")[0][0] == {"lang": "en"}
    assert [text.strip() for _, text in page.all("title")] == ["Title"]
    shared, own = (text.strip() for _, text in page.all("style"))
    assert shared == pages.part("shared.css").strip()
    assert own == "p { color: red }"
    data, *scripts = page.all("script")
    assert data[0] == {"type": "application/json", "id": "values"}
    assert json.loads(data[1]) == {"a": [1, 2.5, None, True, "é"]}
    assert [text.strip() for _, text in scripts] == ["one();", "two();"]
    assert text.startswith("<!DOCTYPE html>\n")
    assert text.endswith("</html>\n")
    assert text.index('charset="utf-8"') < 1024  # where browsers look for it
    assert "\r" not in text


@pytest.mark.parametrize(
    ("files", "policy"),
    [
        (
            False,
            "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'",
        ),
        (
            True,
            "default-src 'none'; img-src data: blob: 'self' file:; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline' 'self' file:",
        ),
    ],
)
def test_the_policy_lets_nothing_in_from_a_network(files: bool, policy: str) -> None:
    page = Reader(pages.document("Title", "", files=files))
    found = [attrs for attrs, _ in page.all("meta") if "http-equiv" in attrs]
    assert found == [{"http-equiv": "Content-Security-Policy", "content": policy}]
    assert [attrs["href"] for attrs, _ in page.all("link")] == ["data:,"]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_breaks_out_of_its_place(name: str) -> None:
    def page(word: str) -> Reader:
        body = f'<p id="{pages.text(word)}">{pages.text(word)}</p>' + pages.table(
            [word, "b"], [[word, 1], ["x", word]], caption=word
        )
        return Reader(pages.document(word, body, data={word: [word, {word: word}]}))

    plain, found = page("word"), page(name)
    assert [tag for tag, _, _ in found.found] == [tag for tag, _, _ in plain.found]
    assert found.all("title")[0][1].strip() == name
    assert found.all("p") == [({"id": name}, name)]
    assert [text for _, text in found.all("caption")] == [name]
    assert [text.strip() for _, text in found.all("th")] == [name, "b", name, "x"]
    assert [text.strip() for _, text in found.all("td")] == ["1", name]
    attributes, data = found.all("script")[0]
    assert attributes["id"] == name
    assert json.loads(data) == [name, {name: name}]


def test_text_is_for_elements_and_attributes() -> None:
    assert pages.text("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"
    assert pages.text(0.5) == "0.5"
    assert pages.text(None) == "None"
    assert pages.text("\udcff.png") == "?.png"  # a byte of a file name that is no text
    pages.text("\udcff").encode("utf-8")


def test_a_table_names_rows_and_columns() -> None:
    page = Reader(pages.table(["", "S1"], [["mine", 0.25], ["other", "–"]], caption="Figures"))
    assert [(attrs["scope"], text) for attrs, text in page.all("th")] == [
        ("col", ""), ("col", "S1"), ("row", "mine"), ("row", "other"),
    ]  # fmt: skip
    assert [text for _, text in page.all("td")] == ["0.25", "–"]
    assert page.all("div")[0][0] == {"class": "wide"}  # scrolls in itself on a phone
    assert "<caption>" not in pages.table(["a"], [["b"]])
    assert "<thead>" not in pages.table([], [["a", "b"]])


def test_values_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pages.document("Title", "", data={"values": [math.nan]})


def test_a_file_becomes_an_address() -> None:
    content = bytes(range(256))
    address = pages.data_uri(content, "image/png")
    kind, data = address.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == content


def test_libraries_are_inlined_unchanged_with_their_licences() -> None:
    uplot = pages.UPLOT.read_bytes()
    assert hashlib.sha256(uplot).hexdigest() == UPLOT_DIGEST
    assert uplot.startswith(b"/*! https://github.com/leeoniya/uPlot (v1.6.32) */")
    assert "uPlot 1.6.32" in (pages.__doc__ or "")
    assert hashlib.sha256(pages.UPLOT_STYLE.read_bytes()).hexdigest() == UPLOT_STYLE_DIGEST
    for library, licence, first in (
        (pages.curves_library(), pages.UPLOT_LICENCE, pages.UPLOT),
        (viewer.library(), viewer.LICENCE, viewer.LIBRARY),
    ):
        terms = licence.read_text(encoding="utf-8")
        assert library.startswith(f"/*!\n{terms}*/\n{first.read_text(encoding='utf-8')}")
        assert "*/" not in terms
        assert not re.search(r"</script|<!--|<script", library, re.IGNORECASE)
    assert "Copyright (c) 2022 Leon Sorokin" in pages.UPLOT_LICENCE.read_text()
    assert pages.curves_library().endswith(pages.part("curves.js"))
    assert not re.search(r"</style|@import|url\(", pages.curves_style() + pages.part("shared.css"))


def test_a_run_gives_the_charts_of_what_it_logged(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    found = charts(run)
    titles = {chart["title"]: [each["name"] for each in chart["series"]] for chart in found}
    assert titles == {
        "Adversarial: G and D against each other": ["G_gan", "D_gan"],
        "PatchNCE and identity": ["NCE_x", "NCE_y", "identity"],
        "All of G's loss, all of D's": ["G", "D"],
        "R1 penalties of D": ["R1"],
        "Warm start: L1 to the colour transfer or the painting": ["warm"],
    }
    known = run.series("losses")
    for chart in found:
        for each in chart["series"]:
            steps, values = known[each["name"]]
            assert each["steps"] == steps
            assert each["values"] == pytest.approx(values, rel=1e-5)
    # Each loss of the log is in one of the charts.
    assert {name for names in titles.values() for name in names} == set(known)
    pages.document("Curves", "", data={"charts": found})


def test_figures_have_charts_of_their_own() -> None:
    figures = {"S1": 0.5, "S2": 0.4, "S3": 0.6, "C1": 0.9, "C2": 0.8, "other": 1.0}
    found = charts(run_of({"step": 5, "seconds": 1.0, "figures": figures}))
    assert [(chart["title"], [each["name"] for each in chart["series"]]) for chart in found] == [
        ("Colour and texture, lower is better", ["S1", "S2"]),
        ("Told apart from the style (0.5: not at all)", ["S3"]),
        ("Structure of the content, higher is better", ["C1", "C2"]),
    ]
    assert found[0]["series"][1] == {"name": "S2", "steps": [5], "values": [0.4]}
    assert charts(run_of()) == []


@pytest.mark.parametrize("count", [1, 599, 600, 601, 602, 1000, 1199, 1200, 20_001])
def test_long_curves_are_thinned_evenly_and_keep_their_ends(count: int) -> None:
    steps = list(range(-3, count - 3))
    (chart,) = charts(run_of(*losses(steps, R1=[float(step) for step in steps])))
    (series,) = chart["series"]
    kept = series["steps"]
    assert len(kept) == min(count, 600)
    assert (kept[0], kept[-1]) == (steps[0], steps[-1])
    assert series["values"] == pytest.approx([float(step) for step in kept], rel=1e-5)
    if count > 600:
        gaps = [after - before for before, after in itertools.pairwise(kept)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1
    else:
        assert kept == steps


def test_values_that_are_not_finite_are_left_out() -> None:
    values = [math.nan, 1.0, math.inf, 2.0, -math.inf]
    log = losses([1, 2, 3, 4, 5], R1=values, G=[math.nan] * 5)
    found = charts(run_of(*log))
    assert found == [
        {
            "title": "R1 penalties of D",
            "series": [{"name": "R1", "steps": [2, 4], "values": [1.0, 2.0]}],
        }
    ]


def test_values_keep_six_digits() -> None:
    (chart,) = charts(run_of(*losses([1, 2], R1=[0.123456789, 123456789.0])))
    assert chart["series"][0]["values"] == [0.123457, 123457000.0]


def test_every_term_of_a_step_is_drawn_and_explained() -> None:
    """Also those of what draft adds, which tiny_run has not."""
    settings = test_training.config(lambda_painting=1.0, lambda_strokes=1.0)
    state = initial_state(settings)
    x, y = test_training.batch(settings)
    crops = Crops(x, y, painting=y)
    step = sincut_step(state, crops, settings, test_training.draws(0), Kind(with_r1=True))
    assert {"painting", "strokes"} < set(step)
    drawn = charts(run_of(*losses([1], **{name: [1.0] for name in step})))
    assert {each["name"] for chart in drawn for each in chart["series"]} == set(step)
    assert set(step) < set(card._LOSSES)
