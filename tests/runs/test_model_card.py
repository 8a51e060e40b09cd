"""The model card: what it says, that names cannot break it, that hands off means hands off."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import sincut
from sincut.config.fields import as_text
from sincut.config.presets import train_config
from sincut.files import file_digest
from sincut.pages.markdown import plain
from sincut.runs import report as reporting
from sincut.runs.estimate import Estimate
from sincut.runs.folder import RunImage, RunRecord, Session, read_run
from sincut.runs.model_card import is_own, model_card, write_card
from tests.conftest import TINY, heard, size_of

HOSTILE = [
    "a|b.png", "`rm -rf`.png", "line\nbreak.png", "--dashes.png", "'quote\".png", "<b>&amp;.png",
    "[x](y)*_~.png", "```.png", "# heading.png", "back\\slash.png", "\udcff.png", "\x1b[0m.png",
]  # fmt: skip


@pytest.fixture(autouse=True)
def estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are told an estimate, which is no matter here, instead of measuring it."""
    estimate = Estimate(0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 1000)
    monkeypatch.setattr("sincut.runs.train.measure", lambda *_: estimate)


def tables(card: str) -> dict[str, list[str]]:
    """The cells after the first of every row by the first, which no two rows share."""
    found: dict[str, list[str]] = {}
    for line in card.splitlines():
        if line.startswith("|"):
            first, *rest = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            assert first not in found or first in ("", "---"), first
            found[first] = rest
    return found


def front_matter(card: str) -> str:
    match = re.match(r"---\n(.*?)\n---\n\n# ", card, flags=re.DOTALL)
    assert match
    return match[1]


def test_the_front_matter_is_what_the_hub_reads(tiny_run: Path) -> None:
    text = front_matter((tiny_run / "README.md").read_text("utf-8"))
    assert text.splitlines()[:3] == [
        "library_name: sincut", "pipeline_tag: image-to-image", "tags:",
    ]  # fmt: skip
    assert all(re.fullmatch(r"- [a-z-]+", line) for line in text.splitlines()[3:])
    assert "license" not in text


def test_the_front_matter_is_yaml(tiny_run: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")
    assert yaml.safe_load(front_matter((tiny_run / "README.md").read_text("utf-8"))) == {
        "library_name": "sincut",
        "pipeline_tag": "image-to-image",
        "tags": [
            "sincut", "image-to-image", "style-transfer", "unpaired-translation", "single-image",
        ],
    }  # fmt: skip


def test_what_a_finished_run_says(tiny_run: Path, pair: tuple[Path, Path]) -> None:
    card = (tiny_run / "README.md").read_text("utf-8")
    run = read_run(tiny_run)
    assert card.startswith(model_card(run))
    assert "\n# content.png in the look of style.png\n" in card
    assert "![The content after 6 steps](previews/000006.png)" in card
    assert (tiny_run / "previews/000006.png").is_file()
    cells = tables(card)
    assert cells["content: its structure stays"] == [
        "content.png", "160×128 pixels", f"`{file_digest(pair[0])}`",
    ]  # fmt: skip
    assert cells["style: gives the look"][1:] == ["144×120 pixels", f"`{file_digest(pair[1])}`"]
    for name, value in {
        "preset": "draft", "method": "sincut", "steps": "6", "warm start": "2 steps", "seed": "0",
        "device": "cpu", "precision": "fp32", "sincut": sincut.__version__,
        **{name: plain(value) for name, value in run.environment.items()},
    }.items():  # fmt: skip
        assert cells[name] == [value]
    assert {"processor", "threads", "torch"} <= set(cells)
    assert "| None |" not in card
    usual = train_config("draft").to_dict()
    said = ("preset", "method", "seed", "device", "precision", "steps", "warm_steps")
    changed = {n: v for n, v in run.config.to_dict().items() if v != usual[n] and n not in said}
    assert len(changed) > 10
    texts = {n: as_text(v) for n, v in changed.items()}
    assert cells["other than the preset"] == [", ".join(f"`{n}={v}`" for n, v in texts.items())]
    logged = run.series("losses")
    assert cells["`G`"][:2] == [f"{logged['G'][1][-1]:.4g}", "6"]
    assert cells["`R1`"][:2] == [f"{logged['R1'][1][-1]:.4g}", str(logged["R1"][0][-1])]
    assert "`warm`" not in cells
    assert "## Figures" not in card
    assert "on images up to 160 pixels wide" in card
    assert "Who may say so adds `license:`" in card
    assert "@inproceedings{park2020contrastive," in card
    assert "--resume" not in card


def test_its_command_trains_the_same_again(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from sincut.cli import main

    card = (tiny_run / "README.md").read_text("utf-8")
    (line,) = [line for line in card.splitlines() if line.startswith("sincut train ")]
    for path in pair:
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*shlex.split(line)[1:], "--no-report"])
    assert result.exit_code == 0, result.output
    again, before = read_run("tiny"), read_run(tiny_run)
    assert again.config == before.config
    assert again.series("losses") == before.series("losses")


def test_its_python_runs(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (tiny_run / "README.md").read_text("utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    shutil.copy(tiny_run / "model.safetensors", tmp_path)
    shutil.copy(pair[0], tmp_path / "IMAGE.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert Path("result.png").is_file()
    assert names["generator"].channels == 4


def test_the_last_logged_figures(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    logged = (
        {"step": 3, "seconds": 8.0, "figures": {"S3": 0.25, "C2": 0.125}},
        {"step": 5, "seconds": 9.0, "figures": {"S3": 0.75, "C2": 0.51234}},
    )
    card = model_card(dataclasses.replace(run, log=(*run.log, *logged)))
    cells = tables(card)
    assert cells["S3 ↓"][0] == "0.750"
    assert cells["C2 ↑"][0] == "0.512"
    assert "layout" in cells["C2 ↑"][1]
    assert "S2 ↓" not in cells
    assert "compared with content and style, after step 5.\n" in card


@pytest.mark.parametrize("name", HOSTILE)
def test_names_cannot_leave_their_place(tiny_run: Path, tmp_path: Path, name: str) -> None:
    run = read_run(tiny_run)
    image = RunImage(name, 3, 4, "00")
    card = model_card(dataclasses.replace(run, content=image, style=image))
    card.encode()
    assert tables(card)["style: gives the look"] == [plain(name), "3×4 pixels", "`00`"]
    title = card.splitlines()[front_matter(card).count("\n") + 4]
    assert title == f"# {plain(name)} in the look of {plain(name)}"
    # Whatever stands in the command, its block ends where it should and the rest follows.
    fence = re.search(r"same numbers:\n\n(`{3,})sh\n(.*?)\n\1\n\n## Last losses", card, re.DOTALL)
    assert fence
    assert fence[1] not in fence[2]
    shown = name.encode("utf-8", "replace").decode()
    assert shlex.split(fence[2])[2] in (shown, f"./{shown}")
    assert not shlex.split(fence[2])[2].startswith("-")


def test_escapes() -> None:
    assert plain("a_b*c.png") == r"a\_b\*c.png"
    assert plain("x|`y`\n<z>\\") == r"x\|\`y\` \<z\>\\"
    assert plain("\udcff") == "?"
    assert plain("\n") == "(no name)"


def test_markdown_shows_names_as_they_are(tiny_run: Path) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="needs markdown-it-py")
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    for name in (n for n in HOSTILE if n.isprintable()):
        (inline,) = [t for t in parser.parse(f"# {plain(name)}") if t.type == "inline"]
        children = inline.children
        assert {child.type for child in children} <= {"text", "text_special"}, name
        assert "".join(child.content for child in children) == name


def test_interrupted_between_records_and_extended(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record["event"] == "preview" and record["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    sincut.train(*pair, run, **{**TINY, "log_every": 2}, listener=heard(interrupt))
    assert read_run(run).step == 2
    card = (run / "README.md").read_text("utf-8")
    assert tables(card)["steps"] == ["3 of 6, interrupted"]  # of the model that lies there
    assert (
        "To go on with this one, in the folder that holds the images and the run:\n\n```sh\n"
        "sincut train content.png style.png -o run --resume\n```\n"
    ) in card
    assert "The same training again" in card
    sincut.train(*pair, run, resume=True, steps=7, report=False)
    card = (run / "README.md").read_text("utf-8")
    assert tables(card)["steps"] == ["7"]
    assert "--resume" not in card
    assert "same training again" not in card
    assert (
        "The same settings again, but not the same training. The run was extended or shortened on "
        "its way (6 steps, then 7 steps from step 3), and its learning rate followed each length's "
        "schedule (linear). The command trains 7 steps with one schedule, which gives another "
        "model.\n\n```sh\nsincut train "
    ) in card


def test_what_the_folder_shows_of_the_images_is_told(
    tiny_run: Path, pair: tuple[Path, Path]
) -> None:
    """The card against the files: which hold the names, digests, the folder's name, the images."""
    card = (tiny_run / "README.md").read_text("utf-8")
    told = card.split("## What this folder shows of the images\n\n")[1].split("\n\n## ")[0]
    images, previews, names, folder, _ = told.split("\n- ")
    files = {path.name: path.read_bytes() for path in tiny_run.iterdir() if path.is_file()}

    def holding(*values: str) -> set[str]:
        found = {n for n, data in files.items() if all(v.encode() in data for v in values)}
        return found

    def listed(sentence: str) -> set[str]:
        return set(re.findall(r"`([^`]+)`", sentence))

    identified, named = names.split(": whoever has")
    assert listed(identified) == holding(*map(file_digest, pair), "content.png", "style.png")
    assert listed(named) | listed(identified) == holding("content.png", "style.png")
    commands, computed = folder.split(", in the commands.")
    assert listed(commands) == holding(" -o tiny")
    assert listed(computed) == holding(read_run(tiny_run).environment["torch"])

    assert "`report.html`" in images
    assert "**both images themselves**" in images
    assert holding('id="content-picture"') == {"report.html"}
    assert f"at most {reporting._PICTURE_SIDE} pixels a side" in images
    assert f"would pass {reporting.LARGEST // 1_000_000} MB" in images
    assert f"squares of {reporting._CROP} pixels" in images
    assert listed(previews) == {"previews/", "tensorboard/"}
    assert "at most 64 pixels" in previews
    assert max(size_of(tiny_run / "previews/000006.png")) == 64


def test_in_the_warm_start(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    warm = dataclasses.replace(run, log=run.log[:1], previews=())
    card = model_card(warm)
    assert "![" not in card
    assert tables(card)["`warm`"][1] == "-1"
    assert "## Last losses" not in model_card(dataclasses.replace(run, log=()))


def test_a_card_changed_by_hand_stays(
    tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    card = run / "README.md"
    assert is_own(card)
    mine = card.read_text("utf-8").replace("tags:", "license: cc-by-4.0\ntags:")
    card.write_text(mine, "utf-8")
    assert not is_own(card)
    told: list[dict[str, Any]] = []
    sincut.train(*pair, run, resume=True, steps=7, report=False, listener=heard(told.append))
    assert card.read_text("utf-8") == mine
    assert [record for record in told if record["event"] == "notice"][-1] == {
        "event": "notice",
        "about": "README.md",
        "text": "it was changed by hand and stays; without it a new one is written",
    }
    sincut.train(*pair, run, force=True, report=False, **{**TINY, "steps": 1})
    assert card.read_text("utf-8") == mine
    card.unlink()
    assert write_card(read_run(run))
    assert tables(card.read_text("utf-8"))["steps"] == ["1"]
    card.write_bytes(b"\xff")
    assert not is_own(card)


def test_what_the_environment_was(tiny_run: Path) -> None:
    run: RunRecord = read_run(tiny_run)
    first = Session(-2, 6, {"PyTorch": "2.13|x", "sincut": "9", "processor": "a"})
    again = Session(2, 6, {"PyTorch": "2.13|x", "sincut": "9", "processor": "b", "triton": "3"})
    cells = tables(model_card(dataclasses.replace(run, sessions=(first, again))))
    assert cells["PyTorch"] == [r"2.13\|x"]
    assert cells["sincut"] == ["9"]
    assert cells["processor"] == ["a, then b"]
    assert cells["triton"] == ["none, then 3"]
    cells = tables(model_card(dataclasses.replace(run, sessions=())))
    assert cells["sincut"] == [run.version]
    assert "processor" not in cells


def test_a_damaged_model_file_leaves_the_step_of_the_log(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run/model.safetensors").write_bytes(json.dumps({}).encode())
    assert tables(model_card(read_run(tmp_path / "run")))["steps"] == ["6"]
