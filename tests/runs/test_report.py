"""The report: one file with everything inside, and the right things in it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import sincut
from sincut.cli import main
from sincut.config.translating import TranslateConfig
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation.anchors import PATCHES
from sincut.files import file_digest
from sincut.pages.pictures import exact, photograph
from sincut.runs import report as module
from sincut.runs.folder import read_run
from sincut.runs.report import LARGEST
from sincut.runs.reporting import report
from sincut.translation.tiles import translate_pixels
from tests.pages.test_viewer import Reader


@pytest.fixture
def run(tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path) -> Path:
    """A run of its own, with its pair beside it."""
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    for path in pair:
        shutil.copy(path, tmp_path)
    return tmp_path / "run"


@pytest.fixture
def larger(run: Path) -> Path:
    """The same on images large enough to be measured."""
    record = json.loads((run / "config.json").read_text())
    for role, render, (width, height) in (
        ("content", render_content, (230, 170)),
        ("style", render_style, (200, 160)),
    ):
        path = run.parent / f"{role}.png"
        Image.fromarray(render(width, height)).save(path)
        record[role] |= {"width": width, "height": height, "sha256": file_digest(path)}
    (run / "config.json").write_text(json.dumps(record))
    return run


def decoded(uri: str | None) -> np.ndarray:
    assert uri is not None
    kind, data = uri.split(",", 1)
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def pictures(page: Reader) -> dict[str, np.ndarray]:
    """The pictures of the page by their alternative text."""
    found = {}
    for attrs, _ in page.all("img"):
        alt = attrs["alt"]
        assert alt
        assert alt not in found
        found[alt] = decoded(attrs["src"])
        assert found[alt].shape[:2] == (int(attrs["height"] or 0), int(attrs["width"] or 0))
    return found


def opened(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def test_a_report_shows_pair_result_previews_and_figures(larger: Path, tmp_path: Path) -> None:
    """… and the command says the same as JSON."""
    run = larger
    said = CliRunner().invoke(main, ["report", str(run), "--json"])
    assert said.exit_code == 0, said.output
    made = json.loads(said.stdout)
    assert made["path"] == str(run / "report.html")
    assert made["bytes"] == (run / "report.html").stat().st_size < LARGEST
    page = opened(run / "report.html")
    assert page.all("h1")[0][1].strip() == "content.png in the look of style.png"

    sincut.translate(run, tmp_path / "content.png", tmp_path / "result.png")
    shown = pictures(page)
    for name, alt in (
        ("content", "Content: content.png"),
        ("style", "Style: style.png"),
        ("result", "Result"),
    ):
        with Image.open(tmp_path / f"{name}.png") as image:
            truth = np.asarray(image.convert("RGB"), dtype=np.int16)
        assert shown[alt].shape == truth.shape
        assert np.abs(shown[alt] - truth).mean() < 6  # JPEG
    for step, path in read_run(run).previews:
        with Image.open(path) as image:
            truth = np.asarray(image, dtype=np.int16)
        assert np.abs(shown[f"Preview after {step} steps"] - truth).mean() < 6

    found = sincut.evaluate(
        tmp_path / "content.png", tmp_path / "style.png", tmp_path / "result.png", anchors=True
    )
    truth = found.to_dict()
    of_result = truth[str(tmp_path / "result.png")]
    beyond = of_result.pop("beyond")
    assert made["figures"] == pytest.approx(of_result, abs=1e-5)
    rows = cells(page)
    figures = found.outputs[str(tmp_path / "result.png")]
    assert rows["result"][:7] == [f"{value:.3f}" for value in dataclasses.astuple(figures)]
    assert rows["result"][7] == ("yes" if beyond else "no")
    del found.anchors[PATCHES]  # takes a minute, which a report has not
    for name, of_anchor in found.anchors.items():
        assert rows[f"anchor: {name}"][3] == f"{of_anchor.S3:.3f}"
        assert made["anchors"][f"anchor: {name}"]["C1"] == pytest.approx(of_anchor.C1)


def cells(page: Reader) -> dict[str, list[str]]:
    """The rows of all tables: the first cell, then the others."""
    rows: dict[str, list[str]] = {}
    name = ""
    for tag, attrs, texts in page.found:
        if tag == "th" and attrs.get("scope") == "row":
            name = "".join(texts)
            rows[name] = []
        elif tag == "td":
            rows[name].append("".join(texts))
    return rows


def test_it_says_how_to_repeat_the_run_and_what_it_was(run: Path) -> None:
    made = report(run, figures=False)
    page = opened(made.path)
    text = made.path.read_text(encoding="utf-8")
    assert "sincut train content.png style.png -o run --preset draft" in "".join(
        page.all("code")[0][1]
    )
    rows = cells(page)
    record = read_run(run)
    assert rows["content"] == ["content.png", "160×128 pixels", record.content.sha256]
    assert rows["steps"] == ["6", "changed"]
    assert rows["temperature"] == ["0.07", ""]
    assert rows["layers"] == ["0,2,4", "changed"]
    assert "training" in rows
    assert f"sincut {sincut.__version__}" in rows["this report with"][0]
    assert "Not measured, as asked." in text
    assert made.figures is None


def test_the_curves_hold_the_log(run: Path) -> None:
    page = opened(report(run, figures=False).path)
    (data,) = [texts for attrs, texts in page.all("script") if attrs.get("id") == "charts"]
    drawn = {line["name"]: line for chart in json.loads(data) for line in chart["series"]}
    known = read_run(run).series("losses")
    assert set(drawn) == set(known)
    for name, (steps, values) in known.items():
        assert drawn[name]["steps"] == steps
        assert drawn[name]["values"] == pytest.approx(values, rel=1e-5)


def test_nothing_leaves_the_file(run: Path) -> None:
    page = opened(report(run).path)
    for tag, attrs, _ in page.found:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attrs.get(name) or "data:").startswith("data:")
    (policy,) = [attrs for attrs, _ in page.all("meta") if "http-equiv" in attrs]
    assert "default-src 'none'" in (policy["content"] or "")
    assert "http:" not in (policy["content"] or "")
    assert "file:" not in (policy["content"] or "")


def test_every_range_and_choice_has_a_name(run: Path) -> None:
    page = opened(report(run, figures=False).path)
    ids = [attrs["id"] for _, attrs, _ in page.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    labels = {attrs.get("for") for attrs, _ in page.all("label")}
    (range_input,) = [attrs for attrs, _ in page.all("input") if attrs["type"] == "range"]
    assert range_input["id"] in labels
    assert {option["value"] for option, _ in page.all("option")} <= set(ids)


def test_hostile_names_are_only_text(run: Path) -> None:
    hostile = "a\"></script><script>alert(1)</script>'.png"
    record = json.loads((run / "config.json").read_text())
    record["content"]["name"] = hostile
    record["sessions"][0]["environment"]["processor"] = "<img src=x>"
    (run / "config.json").write_text(json.dumps(record))
    made = report(run, content=run.parent / "content.png", figures=False)
    page = opened(made.path)
    assert hostile in page.all("h1")[0][1]
    assert all("alert" not in texts for _, texts in page.all("script"))
    assert all(attrs["src"] != "x" for attrs, _ in page.all("img"))
    assert cells(page)["trained with processor"] == ["<img src=x>"]


def test_squares_are_the_pixels_themselves(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the result is too large to be made whole: the law of tiles."""
    monkeypatch.setattr(module, "_CROP", 32)
    with Image.open(tmp_path / "content.png") as image:
        content = np.asarray(image.convert("RGB"))
    whole = translate_pixels(sincut.load_generator(run), content, TranslateConfig())
    at_once = pictures(opened(report(run, figures=False).path))
    monkeypatch.setattr(module, "WHOLE_PIXELS", 1000)
    monkeypatch.setattr(module, "_REDUCED_SIDE", 64)
    made = report(run, figures=False)
    by_parts = pictures(opened(made.path))
    places = [alt for alt in at_once if alt.startswith("Result, from ")]
    assert len(places) == 4
    for alt in places:
        x, y = map(int, alt.removeprefix("Result, from ").split(", "))
        square = whole[y : y + 32, x : x + 32]
        assert np.array_equal(at_once[alt], square)
        assert np.abs(by_parts[alt].astype(int) - square).max() <= 1
        assert np.array_equal(
            by_parts[alt.replace("Result", "Content")], content[y : y + 32, x : x + 32]
        )
    assert max(by_parts["Result"].shape) == 64
    text = made.path.read_text(encoding="utf-8")
    assert "the result shown is that of the content reduced to 64×51" in text
    with pytest.raises(SincutError) as caught:
        report(run, figures=True)
    assert str(caught.value) == (
        "figures take a translation of the whole content, and above 0 megapixels a report makes "
        "none; translate it and give it with --result FILE, or try --no-figures"
    )


def test_squares_lie_where_the_detail_is() -> None:
    content = np.full((600, 900, 3), 120, np.uint8)
    random = np.random.default_rng(5)
    content[300:556, 600:856] = random.integers(0, 256, (256, 256, 3))
    squares = module._telling_squares(content)
    top, bottom, left, right = squares[0]
    assert (bottom - top, right - left) == (256, 256)
    overlap = max(min(bottom, 556) - max(top, 300), 0) * max(min(right, 856) - max(left, 600), 0)
    assert overlap > 0.6 * 256**2
    for index, (t, b, le, r) in enumerate(squares):
        for t2, b2, le2, r2 in squares[index + 1 :]:
            assert b <= t2 or b2 <= t or r <= le2 or r2 <= le
    t, b, le, r = squares[-1]
    assert content[t:b, le:r].std() == 0


def test_a_given_result_is_shown(run: Path, tmp_path: Path) -> None:
    with Image.open(tmp_path / "content.png") as image:
        image.save(tmp_path / "copy.png")
    made = report(run, result=tmp_path / "copy.png", figures=False)
    shown = pictures(opened(made.path))
    assert np.array_equal(shown["Result"], shown["Content: content.png"])
    assert "The result is the file that was given." in made.path.read_text(encoding="utf-8")


def test_images_are_not_measured_by_themselves_where_large_or_tiny(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MEASURED_PIXELS", 1_000_000)
    for side, asked, why in (
        (2000, None, "Not measured by itself, since the images are large; "),
        (127, None, "Not measured: that takes images of at least 128 pixels a side."),
        (200, False, "Not measured, as asked."),
        (200, None, ""),
        (2000, True, ""),
    ):
        large = np.zeros((side, side, 3), np.uint8)
        wanted, said = module._figures_wanted((large, np.zeros((200, 200, 3), np.uint8)), asked)
        assert wanted == (why == "")
        assert said.startswith(why)


def test_the_page_stays_below_its_size(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = report(run, figures=False)
    monkeypatch.setattr(module, "LARGEST", first.size - 3000)
    second = report(run, figures=False)
    assert second.size < first.size - 3000 < LARGEST
    assert "Content: content.png" in pictures(opened(second.path))


def test_a_photograph_gives_way_in_quality_then_in_size() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    free = photograph(noise, 10**7, 4096)
    assert (free.width, free.height) == (400, 300)
    tight = photograph(noise, 20_000, 4096)
    assert len(tight.uri) <= 20_000
    assert tight.width < 400
    assert abs(tight.width / tight.height - 4 / 3) < 0.05
    assert photograph(noise, 10**7, 200).width == 200
    assert np.array_equal(decoded(exact(noise).uri), noise)


def test_a_style_that_cannot_be_measured_is_no_obstacle(larger: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 160), (90, 120, 30)).save(tmp_path / "style.png")
    record = json.loads((larger / "config.json").read_text())
    record["style"]["sha256"] = file_digest(tmp_path / "style.png")
    (larger / "config.json").write_text(json.dumps(record))
    made = report(larger)
    assert made.figures is None
    why = "the style image must have texture to be measured"
    assert f"Not measured: {why}" in made.path.read_text(encoding="utf-8")
    with pytest.raises(SincutError, match=why):
        report(larger, figures=True)


def test_a_damaged_preview_is_left_out(run: Path) -> None:
    path = run / "previews" / "000003.png"
    path.write_bytes(path.read_bytes()[:200])
    shown = pictures(opened(report(run, figures=False).path))
    assert [name for name in shown if name.startswith("Preview")] == [
        "Preview after 0 steps", "Preview after 6 steps",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": "."}, ". is a folder, not a file; try report.html"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, got tpu; try --device auto"),
        (
            {"content": "style.png"},
            "{run} was trained with another content image, content.png (160×128), and style.png is "
            "not that file; give the image it was trained with",
        ),
        ({"output": "a.png"}, "a report is an HTML file, got a.png; try a.html"),
        ({"output": "no/a.html"}, "the folder no does not exist; create it first"),
        (
            {"result": "style.png"},
            "style.png must have the content's size, 160×128, got 144×120; try a translation of "
            "this content",
        ),
    ],
)
def test_what_is_wrong_is_said(
    run: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    with pytest.raises(SincutError) as caught:
        report("run", **change)
    assert str(caught.value) == message.format(run="run")
    assert not (run / "report.html").exists()


def test_an_image_that_is_not_there_is_asked_for(run: Path) -> None:
    (run.parent / "style.png").unlink()
    result = CliRunner().invoke(main, ["report", str(run)])
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: the style of {run}, style.png (144×120), is neither here nor beside the run; "
        "try --style FILE\n"
    )


def test_another_file_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.html"
    target.write_text("mine")
    with pytest.raises(SincutError, match=r"a\.html exists already; try --force or another -o$"):
        report(run, target, figures=False)
    assert target.read_text() == "mine"
    report(run, target, figures=False, force=True)
    assert target.read_text().startswith("<!DOCTYPE html>")


def test_the_command_line_says_where_it_is(run: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(run), "--no-figures"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Report: {run / 'report.html'} (")


@pytest.mark.parametrize("size", [(6000, 3000), (3600, 4000)], ids=["reduced", "as it is"])
def test_the_memory_of_its_largest_picture_is_foreseen(size: tuple[int, int]) -> None:
    """In a process of its own; Linux tells the peak since it began, and ``ru_maxrss`` that of the
    process that began it as well."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process's own peak of memory")
    code = f"""
import re
from pathlib import Path
import numpy as np
from sincut.pages.pictures import photograph
from sincut.runs.report import LARGEST, WHOLE_PIXELS, _PICTURE_SIDE, expected_bytes
width, height = {size}
row = np.linspace(0, 255, width).astype(np.uint8)
pixels = np.broadcast_to(row[None, :, None], (height, width, 3)).copy()
photograph(pixels[:64, :64].copy(), 10**5, 64)
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
before = peak()
photograph(pixels, 4 * 10**6, _PICTURE_SIDE)
taken = peak() - before
said = expected_bytes(pixels, pixels[:1, :1]) - pixels.nbytes - 2 * LARGEST
print(said, taken)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, taken = map(int, done.stdout.split())
    assert said == pytest.approx(taken, rel=0.2)
