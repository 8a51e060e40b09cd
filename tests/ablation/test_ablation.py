"""Ablations: which trials, how they are resumed and shared out, what is written of them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, astuple, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import sincut
from sincut.ablation import ablate as ablation
from sincut.ablation import page as ablation_page
from sincut.ablation import work
from sincut.ablation.ablate import Ablation, ablate
from sincut.ablation.folder import outcomes_of, read_plan
from sincut.ablation.kinds import PAIR
from sincut.ablation.page import (
    _groups,
    averages,
    csv_table,
    curves,
    markdown_tables,
    page,
    sheet,
    thumbnail,
)
from sincut.ablation.trials import AblationPlan, Outcome, Trial, parse_over
from sincut.cli import main
from sincut.compute.processes import Processes
from sincut.config.presets import PRESETS, train_config
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation import figures as quality
from sincut.evaluation.figures import Figures
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Pixels
from sincut.pages.markdown import plain
from sincut.runs.estimate import Estimate
from sincut.runs.folder import RunImage
from sincut.runs.report_page import FIGURES
from sincut.signals import signals, stoppable
from tests.browser.chromium import Browser
from tests.conftest import TINY, heard

# Without what takes a second a trial: a table of colours and their correction.
SMALL: dict[str, Any] = {
    **{name: value for name, value in TINY.items() if name != "patches"},
    "steps": 2, "warm_steps": 0, "correction": False, "tile": 16, "crop": 16,
    "checkpoint_every": 1, "preview_every": 0,
}  # fmt: skip
FIGURE_NAMES = ("S1", "S2", "S2/floor", "S3", "S4", "C1", "C2")
CELL = 320
GRID: dict[str, Any] = {"patches": ["16", "8"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures from fewer patches, an estimate without a measurement: those take seconds."""
    make_quick(monkeypatch)


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_FLOOR_SPLITS", 1)
    monkeypatch.setattr(quality, "_PATCHES", 512)
    monkeypatch.setattr(
        "sincut.runs.train.measure", lambda *_: Estimate(1, 0, 1, 1, 0, 0, 0, 10**9)
    )
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def made(images: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    """A finished ablation of two settings and two seeds. Tests read it and do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return ablate(*images, tmp_path_factory.mktemp("made") / "a", over=GRID, seeds=2, **SMALL)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as caught:
        ablate(*arguments, **options)
    return str(caught.value)


def leading(content: Pixels, style: Pixels) -> list[tuple[str, Pixels]]:
    return [("content", content), ("style", style)]


def names(found: Ablation) -> list[str]:
    return [it.trial.name for it in found.outcomes]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["ablate", *(str(each) for each in arguments)])


def options(settings: dict[str, Any] = SMALL) -> list[str]:
    own = ("preset", "device", "precision", "steps")
    flags = [f"--{name}={settings[name]}" for name in own]
    values = {name: str(value).lower() for name, value in settings.items() if name not in own}
    return flags + [f"--set={name}={value}" for name, value in values.items()]


def test_the_grid_in_order(images: tuple[Path, Path], tmp_path: Path) -> None:
    found = ablate(
        *images,
        tmp_path / "a",
        over={"layers": ["0+2+4", (4,)], "method": ["cut", "fastcut"]},
        seeds="2",
        preset="draft",
        seed=5,
        dry_run=True,
    )
    settings = [f"layers={la}, method={m}" for la in ("0+2+4", "4") for m in ("cut", "fastcut")]
    assert names(found) == [f"{each}, seed {seed}" for each in settings for seed in (5, 6)]
    assert [it.trial.folder for it in found.outcomes][:3] == [
        "01_layers=0+2+4_method=cut_seed-5",
        "02_layers=0+2+4_method=cut_seed-6",
        "03_layers=0+2+4_method=fastcut_seed-5",
    ]
    assert found.outcomes[7].trial.config == train_config("draft", "fastcut", layers=(4,), seed=6)
    assert not (tmp_path / "a").exists()


def test_presets_are_a_grid_too(images: tuple[Path, Path], tmp_path: Path) -> None:
    found = ablate(
        *images, tmp_path / "a", over={"preset": ["draft", "fast"]}, steps=7, dry_run=True
    )
    assert [it.trial.config for it in found.outcomes] == [
        train_config("draft", steps=7), train_config("fast", steps=7),
    ]  # fmt: skip


def test_values_are_parsed() -> None:
    assert parse_over(("layers=0+2+4,4", "patches=8")) == {
        "layers": ["0+2+4", "4"],
        "patches": ["8"],
    }
    for text in ("patches", "patches=", "patches=8,"):
        with pytest.raises(SincutError) as caught:
            parse_over((text,))
        assert str(caught.value) == (
            f"--over must be name=value,value, got {text}; try --over patches=16,64,256"
        )
    with pytest.raises(SincutError) as caught:
        parse_over(("patches=8", "patches=16"))
    assert str(caught.value) == (
        "--over patches is given twice; give all its values at once, as in --over patches=8,16"
    )


PAPER: dict[str, dict[str, Any]] = {
    "base": {},
    "identity off": {"lambda_y": 0.0},
    "63 negatives": {"patches": 64},
    "15 negatives": {"patches": 16},
    "last layer": {"layers": (4,)},
    "external negatives": {"negatives": "minibatch"},
}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_papers_trials(images: tuple[Path, Path], tmp_path: Path, preset: str) -> None:
    """One change each in a base that is CUT whatever the preset has."""
    found = ablate(
        *images, tmp_path / "a", paper=True, seeds=2, preset=preset, steps=300, dry_run=True
    )
    base = train_config(
        preset, "cut", lambda_x=1.0, lambda_y=1.0, lambda_identity=0.0, patches=256,
        negatives="crop", steps=300, evaluate_every=30, lambda_painting=0.0, lambda_strokes=0.0,
        brushwork=False, lambda_gan=1.0, lambda_r1=1.0,
    )  # fmt: skip
    assert [(it.trial.setting, it.trial.config) for it in found.outcomes] == [
        (setting, base.replaced(**change, seed=seed))
        for setting, change in (PAPER | {"last layer": {"layers": base.layers[-1:]}}).items()
        for seed in (0, 1)
    ]


def test_the_papers_small_run(images: tuple[Path, Path], tmp_path: Path) -> None:
    found = ablate(
        *images, tmp_path / "a", paper=True, preset="draft", method="cut", steps=5, channels=8,
        layers=(0, 2, 3), evaluate_every=0, dry_run=True,
    )  # fmt: skip
    assert {it.trial.config.channels for it in found.outcomes} == {8}
    assert {it.trial.config.evaluate_every for it in found.outcomes} == {0}
    assert [it.trial.config.layers for it in found.outcomes] == [
        (0, 2, 3), (0, 2, 3), (0, 2, 3), (0, 2, 3), (3,), (0, 2, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "nothing is varied; try --over patches=16,64,256, or --paper for the paper's "
             "ablations"),
        ({"over": GRID, "paper": True},
         "--paper and --over both say what is varied, got both; give one of them"),
        ({"over": GRID, "seeds": "0"},
         "--seeds must be a whole number from 1, got 0; try --seeds 2"),
        ({"over": GRID, "seeds": "two"},
         "--seeds must be a whole number from 1, got two; try --seeds 2"),
        ({"over": {"seed": ["1"]}},
         "the seed is varied with --seeds, got --over seed; try --seeds 3"),
        ({"over": {"device": ["cpu"]}},
         "the device is no setting to compare, got --over device; try --device"),
        ({"over": GRID, "patches": 8},
         "patches is set for all trials and varied with --over, got both; give one of them"),
        ({"over": {"preset": ["draft"]}, "preset": "fast"},
         "preset is set for all trials and varied with --over, got both; give one of them"),
        ({"over": {"lambda_x": ["1", "1.0"]}},
         "lambda_x=1 is asked for twice; give every value once"),
        ({"over": {"patches": []}},
         "patches must have a list of values to try, got []; try over={'patches': [256]}"),
        ({"over": {"tile": ["48"]}},
         "tile must be a power of two from 8 to 1024, got 48; try --set tile=64"),
        ({"paper": True, "method": "fastcut"},
         "--paper stands on the method cut, got --method fastcut; try without it"),
        ({"paper": True, "patches": "64"},
         "--paper sets patches itself, got patches=64; try without it, or --over patches=… "
         "instead of --paper"),
        ({"paper": True, "layers": (4,)},
         "--paper compares all layers with the last one, got layers=4; try --set layers=0,2,4"),
        ({"paper": True, "preset": "draft", "crop": 16, "tile": 16},
         "--paper compares up to 255 negatives, and a crop of 16 pixels has 16 positions in G's "
         "deeper layers; try --set crop=64"),
        ({"over": GRID, "resume": True, "force": True},
         "--resume goes on and --force starts anew, got both; give one of them"),
        ({"over": GRID, "resume": True},
         "PLACE holds no ablation to resume: it has no ablation.json; start one without "
         "--resume"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_written(
    images: tuple[Path, Path], tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    place = tmp_path / "a"
    assert refusal(*images, place, **asked) == message.replace("PLACE", str(place))
    assert not place.exists()


def test_folders_and_images_that_are_refused(images: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "a"
    small = tmp_path / "small.png"
    Image.fromarray(render_style(127, 128)).save(small)
    assert refusal(images[0], small, place, over=GRID, **SMALL) == (
        "the style image must have sides of at least 128 pixels to be measured, got 127×128; "
        "try a larger image"
    )
    assert not place.exists()
    assert refusal(*images, tmp_path, over=GRID, **SMALL) == (
        f"{tmp_path} is not empty and holds no ablation; give another -o"
    )
    assert refusal(*images, small, over=GRID, **SMALL) == (
        f"{small} is a file, not a folder; give another -o"
    )
    assert refusal(*images, small / "a", over=GRID, **SMALL) == (
        f"{small} is a file, so {small / 'a'} cannot be made; give another -o"
    )


def test_figures_are_those_of_evaluate(made: Ablation, images: tuple[Path, Path]) -> None:
    assert names(made) == [f"patches={p}, seed {s}" for p in (16, 8) for s in (0, 1)]
    results = [it.folder / "result.png" for it in made.outcomes]
    measured = sincut.evaluate(*images, results).outputs
    assert [it.figures for it in made.outcomes] == [asdict(measured[str(path)]) for path in results]
    assert len({path.read_bytes() for path in results}) == 4

    with open(made.folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["trial"] * 4 + ["mean", "spread"] * 2
    for row, path in zip(rows, results, strict=False):
        assert tuple(float(row[name]) for name in FIGURE_NAMES) == astuple(measured[str(path)])
    assert [(row["patches"], row["seed"], row["status"]) for row in rows[:4]] == [
        ("16", "0", "finished"), ("16", "1", "finished"),
        ("8", "0", "finished"), ("8", "1", "finished"),
    ]  # fmt: skip
    of_setting = [measured[str(path)].S1 for path in results[2:]]
    assert float(rows[6]["S1"]) == fmean(of_setting)
    assert float(rows[7]["S1"]) == stdev(of_setting) > 0
    assert (rows[6]["setting"], rows[6]["status"]) == ("patches=8", "2 of 2 finished")


def test_the_result_is_the_translation_of_the_model(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path
) -> None:
    sincut.translate(made.outcomes[0].folder, images[0], tmp_path / "again.png")
    again = decode_picture(tmp_path / "again.png").rgb
    np.testing.assert_array_equal(decode_picture(made.outcomes[0].folder / "result.png").rgb, again)


def test_what_is_kept_of_a_trial(made: Ablation) -> None:
    for it in made.outcomes:
        kept = {path.name for path in it.folder.iterdir()}
        assert kept >= {"model.safetensors", "log.jsonl", "previews", "result.png", "figures.json"}
        small = decode_picture(it.folder / "thumbnail.png").rgb
        np.testing.assert_array_equal(
            small, thumbnail(decode_picture(it.folder / "result.png").rgb, CELL)
        )
        assert "state.safetensors" not in kept
        config = json.loads((it.folder / "config.json").read_text())["config"]
        assert (config["patches"], config["seed"]) == (it.trial.config.patches, it.trial.seed)
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "ablation.json", "index.html", "sheet.png", "table.csv", "table.md", "trials",
    ]  # fmt: skip


def test_the_sheet(made: Ablation, images: tuple[Path, Path]) -> None:
    pixels = decode_picture(made.folder / "sheet.png").rgb
    content, style = (decode_picture(path).rgb for path in images)
    plan = read_plan(made.folder)
    assert plan is not None
    again, corners = sheet(leading(content, style), plan, made.outcomes)
    np.testing.assert_array_equal(pixels, again)
    pictures = [content, style]
    pictures += [decode_picture(it.folder / "result.png").rgb for it in made.outcomes]
    for (left, top), picture in zip(corners, pictures, strict=True):
        height, width = picture.shape[:2]
        np.testing.assert_array_equal(pixels[top : top + height, left : left + width], picture)
        label = pixels[top - 24 : top, left : left + width]
        assert (label.max(axis=2) < 100).sum() > 50  # ink
    lefts, tops = zip(*corners, strict=True)
    assert lefts == (lefts[0], lefts[1]) * 3  # content and style, then a row per setting
    assert list(tops) == sorted(tops)
    assert len(set(tops)) == 3


def a_plan(
    tmp_path: Path, settings: list[str], seeds: int = 1, paper: bool = False
) -> AblationPlan:
    image = RunImage("a.png", 1, 1, "0")
    trials = tuple(
        Trial(f"{setting}-{seed}", setting, seed, train_config("draft", patches=16))
        for setting in settings
        for seed in range(seeds)
    )
    images = {"content": image, "style": RunImage("b|<i>.png", 1, 1, "1")}
    return AblationPlan("1", images, paper, ("patches",), trials)


def test_a_sheet_of_large_pictures_and_of_what_is_missing(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, ["one", "two", "three"])
    (tmp_path / "one").mkdir()
    random = np.random.default_rng(0)
    content, result = (random.integers(0, 256, (400, 800, 3), dtype=np.uint8) for _ in range(2))
    small = Image.fromarray(result)
    small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(thumbnail(result, CELL), np.asarray(small))
    small.save(tmp_path / "one" / "thumbnail.png")
    figures = asdict(Figures(0, 0, 0, 0, 0, 0, 0))
    outcomes = [
        Outcome(plan.trials[0], tmp_path / "one", figures),
        Outcome(plan.trials[1], tmp_path / "two", failure="diverged"),
        Outcome(plan.trials[2], tmp_path / "three"),
    ]
    pixels, corners = sheet(leading(content, content[:50, :50]), plan, outcomes)
    assert len({top for _, top in corners}) == 2  # four in a row: a single seed needs no columns
    left, top = corners[2]
    np.testing.assert_array_equal(pixels[top : top + 160, left : left + 320], np.asarray(small))
    left, top = corners[1]
    np.testing.assert_array_equal(pixels[top : top + 50, left : left + 50], content[:50, :50])
    for left, top in corners[3:]:
        assert (pixels[top : top + 160, left : left + 320] == 225).all()


def test_pictures_that_somebody_removed(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the folder of an earlier version, which kept no thumbnails."""
    place = tmp_path / "a"
    shutil.copytree(made.folder, place)
    trials = [place / "trials" / it.trial.folder for it in made.outcomes]
    for name in ("result.png", "thumbnail.png"):
        (trials[0] / name).unlink()
    (trials[1] / "result.png").unlink()
    (trials[2] / "thumbnail.png").unlink()
    (trials[3] / "thumbnail.png").write_bytes(b"damaged")
    decoded: list[Path] = []

    def read(path: Path) -> Any:
        decoded.append(path)
        return decode_picture(path)

    monkeypatch.setattr(ablation_page, "decode_picture", read)
    found = ablate(*images, place, resume=True)
    assert {it.status for it in found.outcomes} == {"finished"}
    assert decoded == [trial / "thumbnail.png" for trial in trials]
    assert (trials[2] / "thumbnail.png").read_bytes() == (
        made.outcomes[2].folder / "thumbnail.png"
    ).read_bytes()
    plan = read_plan(place)
    assert plan is not None
    content, style = (decode_picture(path).rgb for path in images)
    pixels, corners = sheet(leading(content, style), plan, found.outcomes)
    before, places = sheet(leading(content, style), plan, made.outcomes)
    np.testing.assert_array_equal(decode_picture(place / "sheet.png").rgb, pixels)

    def cell(picture: Pixels, corner: tuple[int, int]) -> Pixels:
        left, top = corner
        return picture[top : top + content.shape[0], left : left + content.shape[1]]

    for number, there in enumerate((False, True, True, False)):
        here = cell(pixels, corners[2 + number])
        if there:
            np.testing.assert_array_equal(here, cell(before, places[2 + number]))
        else:
            assert (here == 225).all()


def test_names_of_figures_in_their_order() -> None:
    assert PAIR.figures == tuple(FIGURES) == tuple(field.name for field in fields(Figures))


HOSTILE = "a`b`\n# <img src=x>|*c*\\[d](e)\udcff.png"


def test_hostile_file_names(made: Ablation, images: tuple[Path, Path], tmp_path: Path) -> None:
    """They show as they are, and end nothing. Bytes that are no text are question marks."""
    place = tmp_path / "a"
    shutil.copytree(made.folder, place)
    plan = json.loads((place / "ablation.json").read_text())
    plan["content"]["name"] = HOSTILE
    (place / "ablation.json").write_text(json.dumps(plan))
    (place / "trials" / made.outcomes[3].trial.folder / "figures.json").unlink()
    record = {"message": f"cannot read {HOSTILE}"}
    (place / "trials" / made.outcomes[3].trial.folder / "failed.json").write_text(
        json.dumps(record)
    )
    read = read_plan(place)
    assert read is not None
    outcomes = outcomes_of(place, read)
    lines = markdown_tables(read, outcomes).encode().decode().splitlines()
    escaped = "a\\`b\\` \\# \\<img src=x\\>\\|\\*c\\*\\\\\\[d\\]\\(e\\)?.png"
    assert lines[0] == f"# Ablation: {escaped} in the look of style.png"
    (row,) = (line for line in lines if "cannot read" in line)
    assert row.endswith(f"| failed: cannot read {escaped} |")
    assert "<img" not in "".join(lines).replace("\\<img", "")
    rows = list(csv.DictReader(csv_table(read, outcomes).splitlines(keepends=True)))
    assert rows[3]["message"] == f"cannot read {HOSTILE}"

    text = page(read, outcomes).encode().decode()
    shown = "a`b`\n# &lt;img src=x&gt;|*c*\\[d](e)?.png"
    assert f"<h1>Ablation: {shown} in the look of style.png</h1>" in text
    assert f"<td>failed: cannot read {shown}</td>" in text
    assert text.count("<img ") == 1  # the sheet

    # All that is written can be: three of four trials, and no training for the process of a fifth.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "4")
        patch.setenv("WORLD_SIZE", "5")
        ablate(*images, place, resume=True)
    assert (place / "table.md").read_text(encoding="utf-8").splitlines() == lines
    assert "cannot read a`b`" in (place / "table.csv").read_text(encoding="utf-8")


def test_averages_and_tables_of_what_there_is(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, ["one", "two"], seeds=3)
    values = [asdict(Figures(*(float(k + n) for k in range(7)))) for n in (0, 1, 5)]
    outcomes = [
        Outcome(trial, tmp_path, figures)
        for trial, figures in zip(plan.trials[:3], values, strict=True)
    ]
    outcomes += [
        Outcome(plan.trials[3], tmp_path, values[0]),
        Outcome(plan.trials[4], tmp_path, failure="it\nbroke | off"),
        Outcome(plan.trials[5], tmp_path),
    ]
    first, second = averages(outcomes)
    assert (first.setting, first.seeds, first.finished) == ("one", 3, 3)
    assert first.mean == asdict(Figures(2, 3, 4, 5, 6, 7, 8))
    assert first.spread is not None
    assert tuple(first.spread.values()) == pytest.approx((7**0.5,) * 7)
    assert (second.seeds, second.finished, second.mean, second.spread) == (3, 1, values[0], None)
    lines = markdown_tables(plan, outcomes).splitlines()
    assert lines[0] == "# Ablation: a.png in the look of b\\|\\<i\\>.png"
    assert lines[7] == "- S1 ↓: colour: distance of the pixels to the style's"
    assert [line for line in lines if line.startswith("- ")] == [
        f"- {head}: {meaning}" for head, meaning in FIGURES.values()
    ]
    assert [
        " ".join(line.split())
        for line in lines
        if line.startswith("| ") and not line.startswith("| ---")
    ] == [
        "| setting | seeds | S1 ↓ | S2 ↓ | S2/floor ↓ | S3 ↓ | S4 ↓ | C1 ↑ | C2 ↑ |",
        "| one | 3 of 3 | 2.000 ± 2.646 | 3.000 ± 2.646 | 4.000 ± 2.646 | 5.000 ± 2.646 "
        "| 6.000 ± 2.646 | 7.000 ± 2.646 | 8.000 ± 2.646 |",
        "| two | 1 of 3 | 0.000 | 1.000 | 2.000 | 3.000 | 4.000 | 5.000 | 6.000 |",
        "| setting | seed | S1 ↓ | S2 ↓ | S2/floor ↓ | S3 ↓ | S4 ↓ | C1 ↑ | C2 ↑ | status |",
        "| one | 0 | 0.000 | 1.000 | 2.000 | 3.000 | 4.000 | 5.000 | 6.000 | finished |",
        "| one | 1 | 1.000 | 2.000 | 3.000 | 4.000 | 5.000 | 6.000 | 7.000 | finished |",
        "| one | 2 | 5.000 | 6.000 | 7.000 | 8.000 | 9.000 | 10.000 | 11.000 | finished |",
        "| two | 0 | 0.000 | 1.000 | 2.000 | 3.000 | 4.000 | 5.000 | 6.000 | finished |",
        "| two | 1 | – | – | – | – | – | – | – | failed: it broke \\| off |",
        "| two | 2 | – | – | – | – | – | – | – | unfinished |",
    ]


def test_curves_of_two_settings_in_one_chart(tmp_path: Path, made: Ablation) -> None:
    plan = a_plan(tmp_path, ["base", "identity off", "last layer"], seeds=2, paper=True)
    outcomes = []
    for number, trial in enumerate(plan.trials[:5]):  # the sixth has not begun
        folder = tmp_path / str(number)
        shutil.copytree(made.outcomes[0].folder, folder)
        log = [
            {"step": 1, "seconds": 1, "losses": {"G_gan": number, "D_gan": 1.5, "NCE_x": 2}},
            {"step": 2, "seconds": 1, "figures": {"S1": 0.25, "C1": 0.5 + number}},
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        outcomes.append(Outcome(trial, folder))
    outcomes.append(Outcome(plan.trials[5], tmp_path / "none"))
    found = {chart["title"]: chart["series"] for chart in curves(plan, outcomes)}
    both = [each for each in found if each.startswith("With and without the identity loss: ")]
    S1 = "With and without the identity loss: S1 ↓, colour: distance of the pixels to the style's"
    assert S1 in both
    assert [re.split("[:,] ", title)[1] for title in both] == [
        "G_gan", "D_gan", "NCE_x", "S1 ↓", "C1 ↑",
    ]  # fmt: skip
    series = ["base, seed 0", "base, seed 1", "identity off, seed 0", "identity off, seed 1"]
    assert found[both[0]] == [
        {"name": name, "steps": [1], "values": [k], "colour": k // 2, "dash": k % 2}
        for k, name in enumerate(series)
    ]
    assert [each["values"] for each in found[both[4]]] == [[0.5], [1.5], [2.5], [3.5]]
    layers = found["All layers and the last: C1 ↑, the content's edges, kept in place"]
    assert [(each["name"], each["colour"], each["dash"]) for each in layers] == [
        ("base, seed 0", 0, 0), ("base, seed 1", 0, 1), ("last layer, seed 0", 1, 0),
    ]  # fmt: skip

    text = page(plan, outcomes)
    assert "<h1>Ablation: a.png in the look of b|&lt;i&gt;.png</h1>" in text
    assert PAIR.paper.notes.replace("'", "&#x27;") in text
    assert '<img src="sheet.png"' in text
    data = re.search(r'id="charts">(.*?)</script>', text)
    assert data is not None
    assert {each["title"] for each in json.loads(data[1])} == set(found)


def test_a_setting_has_one_colour_and_a_seed_one_dash(
    tmp_path: Path, made: Ablation, browser: Browser
) -> None:
    """Two settings of four seeds, drawn as flat lines one above the other."""
    plan = a_plan(tmp_path, ["one", "two"], seeds=4)
    outcomes = []
    for number, trial in enumerate(plan.trials):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(made.outcomes[0].folder / "config.json", folder)
        log = [
            {"step": k, "seconds": k, "losses": {"G_gan": number}} for k in range(0, 500, 10)
        ]  # so many that uPlot draws no points
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        outcomes.append(Outcome(trial, folder))
    (tmp_path / "index.html").write_text(page(plan, outcomes), encoding="utf-8")
    shutil.copy(made.folder / "sheet.png", tmp_path)
    for dark, colours in (
        (False, ((0x0A, 0x58, 0xCA), (0xC2, 0x41, 0x0C))),
        (True, ((0x8A, 0xB4, 0xF8), (0xFB, 0x92, 0x3C))),
    ):
        browser.open(tmp_path / "index.html", dark=dark)
        browser.until("document.querySelectorAll('.plot canvas').length")
        browser.script("document.querySelector('.plot').scrollIntoView()")
        browser.frames(3)
        pixels = browser.pixels(".plot canvas").astype(int)
        pieces, rows = [], []
        for colour in colours:
            ink = np.abs(pixels - colour).max(2) < 60
            lines = np.flatnonzero(ink.sum(1) > 0.2 * ink.shape[1])
            # Anti-aliased, a line takes up to three rows of pixels: the fullest of each is taken.
            for group in np.split(lines, np.flatnonzero(np.diff(lines) > 3) + 1):
                row = max(group, key=lambda y: ink[y].sum())
                rows.append(row)
                pieces.append(int((np.diff(ink[row].astype(int)) == 1).sum()))
        assert len(rows) == 8
        assert rows[:4] == sorted(rows[:4])
        for of_setting in (pieces[:4][::-1], pieces[4:][::-1]):  # the highest value comes first
            assert of_setting[0] <= 1
            assert len(set(of_setting)) == 4
    browser.assert_clean()


def test_series_of_a_single_seed_differ_without_colours_too(tmp_path: Path, made: Ablation) -> None:
    plan = a_plan(tmp_path, ["one", "two", "three"])
    outcomes = [Outcome(trial, made.outcomes[0].folder) for trial in plan.trials]
    chart = curves(plan, outcomes)[0]
    assert [(each["colour"], each["dash"]) for each in chart["series"]] == [(0, 0), (1, 1), (2, 0)]


def test_many_settings_are_drawn_in_several_charts(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, [f"patches={k}" for k in range(7)], seeds=2)
    assert [title for title, _ in _groups(plan)] == [
        "patches=0 to patches=2", "patches=3 to patches=5", "patches=6",
    ]  # fmt: skip
    assert _groups(a_plan(tmp_path, ["a", "b"]))[0] == ("All settings", ("a", "b"))


class Killed(BaseException):
    """What no code catches."""


def at(trial: str, step: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A listener that acts when a trial reports a step."""

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["trial"][:2] == trial and record["step"] == step:
            act()

    return listen


def kill() -> None:
    raise Killed


def test_a_killed_ablation_goes_on(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path
) -> None:
    """Half-trained trials from their state, finished ones not at all; to the same results."""
    place = tmp_path / "a"
    with pytest.raises(Killed):
        ablate(*images, place, over=GRID, seeds=2, listener=heard(at("02", 2, kill)), **SMALL)
    first = place / "trials" / made.outcomes[0].trial.folder
    (first / "state.safetensors").write_bytes(b"a kill came before it was deleted")
    half = place / "trials" / made.outcomes[1].trial.folder
    assert (half / "state.safetensors").exists()
    (place / "trials" / made.outcomes[2].trial.folder).mkdir()  # before its first save
    (place / "trials" / made.outcomes[2].trial.folder / ".config.json.7.part").touch()
    before = (first / "model.safetensors").stat().st_mtime_ns

    records: list[dict[str, Any]] = []
    found = ablate(
        *images, place, over=GRID, seeds=2, resume=True, listener=heard(records.append), **SMALL
    )
    trained = [
        (record["trial"][:2], record["step"]) for record in records if record["event"] == "step"
    ]
    assert trained == [("02", 2), ("03", 1), ("03", 2), ("04", 1), ("04", 2)]
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    assert not list(place.glob("trials/*/state.safetensors"))
    for ours, theirs in zip(found.outcomes, made.outcomes, strict=True):
        assert ours.figures == theirs.figures
    for name in ("table.csv", "table.md", "sheet.png"):
        assert (place / name).read_bytes() == (made.folder / name).read_bytes()


def test_interrupted_by_hand(images: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "a"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    # In the first step and in the last, after which training has nothing to interrupt.
    for step in (1, 2):
        records: list[dict[str, Any]] = []
        stop = at("01", step, terminate)

        def listen(record: dict[str, Any], stop: Any = stop, records: Any = records) -> None:
            records.append(record)
            stop(record)

        given: dict[str, Any] = {"resume": True} if step == 2 else {"over": GRID, **SMALL}
        found = ablate(*images, place, listener=heard(listen), **given)
        assert (found.signal, len(found.unfinished)) == (signal.SIGTERM, 2)
        assert {record.get("trial", "01")[:2] for record in records} == {"01"}
        assert [record["step"] for record in records if record["event"] == "step"] == [step]
        assert "measured" not in [record["event"] for record in records]
        assert (found.outcomes[0].folder / "state.safetensors").exists()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    # Between steps, while a result is measured.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality.Comparison, "figures", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        result = run(*images, "-o", place, "--resume", "--device=cpu")
    assert result.exit_code == 130, result.output
    assert result.stdout.splitlines()[-1] == (
        "Interrupted; 0 of 2 trials are finished, and what was trained is saved. To go on: "
        f"sincut ablate {images[0]} {images[1]} -o {place} --resume"
    )
    result = run(*images, "-o", place, "--resume")
    assert result.exit_code == 0, result.output
    assert "Trial 1 of 2: patches=16, seed 0" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Look at {place / 'index.html'}"


def test_a_signal_counts_whatever_the_trial_came_to(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a last save that found no space: the failure is recorded, no other trial begins."""

    def broken(*_: Any, **__: Any) -> None:
        with signals():
            os.kill(os.getpid(), signal.SIGINT)
            raise SincutError("no space")

    monkeypatch.setattr(work, "train", broken)
    found = ablate(*images, tmp_path / "a", over=GRID, **SMALL)
    assert found.signal == signal.SIGINT
    assert [it.status for it in found.outcomes] == ["failed", "unfinished"]


def test_signals_inside_each_other() -> None:
    """What the inner one collects the outer one has too; the second is the outer one's."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable() as outer:
        with signals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (inner, outer) == ([signal.SIGTERM], [signal.SIGTERM])
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert (inner, outer) == ([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT])
        with signals() as inner:
            pass
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert (inner, len(outer)) == ([], 3)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_signals_in_another_thread() -> None:
    found: list[list[int]] = []

    def work() -> None:
        with stoppable() as outer, signals() as inner:
            found.extend((outer, inner))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[], []]
    assert signal.getsignal(signal.SIGINT) is before


def test_another_ablation_is_refused(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path
) -> None:
    place, advice = made.folder, "resume with the same settings, or give another -o"
    before = (place / "ablation.json").read_bytes()
    again = {"resume": True, **SMALL}
    assert refusal(*images, place, over=GRID, seeds=2, **SMALL) == (
        f"{place} holds an ablation already; try --resume to go on with it, --force to start "
        "anew, or another -o"
    )
    assert refusal(*images, place, over={"patches": [16, 4]}, seeds=2, **again) == (
        f"{place} holds other trials: 03_patches=8_seed-0 is patches=8, seed 0 there, got "
        f"patches=4, seed 0; {advice}"
    )
    assert refusal(*images, place, over={"patches": [16, 8, 4]}, seeds=2, **again) == (
        f"{place} holds 4 trials, got 6; {advice}"
    )
    assert refusal(*images, place, over=GRID, seeds=2, **{**again, "channels": 8}) == (
        f"{place} holds trials with channels=4, got channels=8; {advice}"
    )
    assert refusal(*images, place, over=GRID, seeds=2, **{**again, "precision": "bf16"}) == (
        f"{place} holds trials with precision=fp32, got precision=bf16; {advice}"
    )
    assert refusal(*images, place, **again, seeds=2).startswith(
        f"--resume takes its settings from {place / 'ablation.json'}, unless --over or --paper is "
        "given again; got preset, seeds, "
    )
    other = tmp_path / "other.png"
    Image.fromarray(render_content(160, 128)).save(other)
    for given in ({}, {"over": GRID, "seeds": 2, **SMALL}):
        assert refusal(other, images[1], place, resume=True, **given) == (
            f"{place} was made with another content image, content.png (144×128), got other.png; "
            "resume with the same files"
        )
    assert (place / "ablation.json").read_bytes() == before
    shutil.copytree(place, tmp_path / "b")
    broken = tmp_path / "b" / "trials" / made.outcomes[0].trial.folder
    for name, text in (("figures.json", '{"S1": 0.1}'), ("failed.json", "{}")):
        (broken / "figures.json").unlink(missing_ok=True)
        (broken / name).write_text(text)
        assert refusal(*images, tmp_path / "b", resume=True) == (
            f"figures.json or failed.json in {broken} is damaged; remove that folder, and its "
            "trial is done again"
        )
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "ablation.json").write_text('{"version": "1", "trials": []}')
    assert refusal(*images, damaged, resume=True) == (
        f"{damaged / 'ablation.json'} is damaged or not of sincut; give another -o, or remove the "
        "folder"
    )


def test_what_may_differ_when_resumed(
    made: Ablation, images: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The default preset of another machine, a precision that is to be measured, the version."""
    shutil.copytree(made.folder, tmp_path / "a")
    for module in ("trials", "folder"):
        monkeypatch.setattr(
            f"sincut.ablation.{module}.chosen_device",
            lambda name: "cpu" if name == "cpu" else "cuda",
        )
    monkeypatch.setattr(ablation, "__version__", "9")
    given = {name: value for name, value in SMALL.items() if name not in ("preset", "precision")}
    records: list[dict[str, Any]] = []
    found = ablate(
        *images,
        tmp_path / "a",
        over=GRID,
        seeds=2,
        resume=True,
        listener=heard(records.append),
        **given,
    )
    assert found.outcomes[3].figures == made.outcomes[3].figures
    assert [record for record in records if record["event"] == "notice"] == [
        {
            "event": "notice",
            "about": f"the ablation in {tmp_path / 'a'}",
            "text": f"it was begun with sincut {sincut.__version__}, and this is 9",
        }
    ]


def test_recording_steps_is_up_to_the_machine(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given when resumed it holds for the trials that are left, with a grid and without."""
    place = tmp_path / "a"
    shutil.copytree(made.folder, place)
    shutil.rmtree(place / "trials" / made.outcomes[3].trial.folder)
    taken: list[tuple[Any, Any]] = []

    def training(*_: Any, **config: Any) -> None:
        taken.append((config["record_steps"], config["device"]))
        raise SincutError("enough is known")

    monkeypatch.setattr(work, "train", training)
    ablate(*images, place, resume=True)
    ablate(*images, place, resume=True, record_steps="false", device="cpu")
    ablate(*images, place, over=GRID, seeds=2, resume=True, **SMALL, record_steps=False)
    assert taken == [(True, "cpu"), (False, "cpu"), (False, "cpu")]
    assert refusal(*images, place, resume=True, record_steps="maybe").startswith(
        "record_steps must be "
    )
    over = {"record_steps": [True, False]}
    ablate(*images, tmp_path / "b", over=over, listener=heard(at("01", 1, kill)), **SMALL)
    assert taken[3:] == [(True, "cpu"), (False, "cpu")]
    assert refusal(*images, tmp_path / "b", resume=True, record_steps=False) == (
        "record_steps is set for all trials and varied with --over, got both; give one of them"
    )


def test_failures_are_told_without_places(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are shown to others. A folder's name may hold spaces and what patterns are made of."""
    place = tmp_path / "my (own) c++ folder"

    def broken(content: Path, style: Path, run: Path, **_: Any) -> None:
        raise SincutError(
            f"cannot write {run}/previews/000002.png, {run.resolve()} is full; {content} and "
            f"{style.absolute()}, /home/somebody/x/y.bin or ~/x/y.bin; S2/floor 1/2, "
            "https://example.org/a/b; try --set tile=16"
        )

    monkeypatch.setattr(work, "train", broken)
    monkeypatch.chdir(tmp_path)
    near = Path(os.path.relpath(images[0])), images[1]
    found = ablate(*near, place.name, over={"patches": [16]}, **SMALL)
    message = (
        "cannot write previews/000002.png, 01_patches=16_seed-0 is full; content.png and "
        "style.png, y.bin or y.bin; S2/floor 1/2, https://example.org/a/b; try --set tile=16"
    )
    assert found.outcomes[0].failure == message
    for path in (place / "table.csv", place / "table.md", place / "index.html"):
        text = path.read_text(encoding="utf-8")
        assert "y.bin" in text
        assert "somebody" not in text
        assert str(tmp_path) not in text
    assert str(tmp_path) not in (place / "ablation.json").read_text()


def test_force_starts_anew(made: Ablation, images: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "a"
    shutil.copytree(made.folder, place)
    (place / "mine.txt").write_text("kept")
    over = {"patches": [4]}
    planned = ablate(*images, place, over=GRID, seeds=2, force=True, dry_run=True, **SMALL)
    assert {it.status for it in planned.outcomes} == {"unfinished"}
    assert len(list(place.glob("trials/*"))) == 4
    stop = at("01", 1, kill)
    with pytest.raises(Killed):
        ablate(*images, place, over=over, force=True, listener=heard(stop), **SMALL)
    assert sorted(path.name for path in place.iterdir()) == ["ablation.json", "mine.txt", "trials"]
    assert [path.name for path in place.glob("trials/*")] == ["01_patches=4_seed-0"]


def test_a_failed_trial_is_listed_and_the_others_go_on(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a"
    settings = {**SMALL, "learning_rate": 1.0, "patches": 16, "log_every": 1}
    del settings["lambda_identity"]
    arguments = [*images, "-o", place, "--over=lambda_identity=1e39,1", *options(settings)]
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    message = (
        "training diverged at step 1: a loss is not finite; the last saved state is kept; try "
        "--set learning_rate=0.25"
    )
    told = f"1 of 2 trials failed: lambda_identity=1e+39, seed 0: {message}"
    assert result.stderr == f"Error: {told}\n"
    assert f"  Failed: {message}" in result.stdout
    found = ablate(*images, place, resume=True, dry_run=True)
    assert [it.status for it in found.outcomes] == ["failed", "finished"]
    assert found.failures[0].failure == message
    assert f"failed: {plain(message)}" in (place / "table.md").read_text()
    with open(place / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["status"], row["message"], row["S1"] == "") for row in rows] == [
        ("trial", "failed", message, True),
        ("trial", "finished", "", False),
        ("mean", "1 of 1 finished", "", False),
    ]

    # Tried again when resumed, and alone.
    def ended(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(work, "train", ended)
    records: list[dict[str, Any]] = []
    found = ablate(*images, place, resume=True, listener=heard(records.append))
    assert [record["event"] for record in records] == ["ablation", "trial", "failed"]
    assert records[0]["trials"][0]["status"] == "failed"
    assert found.failures[0].failure == (
        "memory ended; try smaller values of batch, crop, patches or channels"
    )

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(work, "train", broken)
    found = ablate(*images, place, resume=True)
    assert found.failures[0].failure == (
        "RuntimeError, a fault of sincut's own (a mistake of ours); its traceback.txt says where"
    )
    (trace,) = place.glob("*/*/traceback.txt")
    assert "a mistake of ours" in trace.read_text()


def test_two_processes_share_the_trials(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a"
    code = (
        "import sys; from sincut.evaluation import figures; from sincut.runs import train\n"
        "figures._FLOOR_SPLITS, figures._PATCHES, figures._STROKES = 1, 512, 512\n"
        "from sincut.runs.estimate import Estimate\n"
        "train.measure = lambda *_: Estimate(1, 0, 1, 1, 0, 0, 0, 10**9)\n"
        "from sincut.cli import main; main(sys.argv[1:])"
    )
    words = ["ablate", *images, "-o", place, "--over=patches=16,8", *options()]
    share = {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    other = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, **share, "RANK": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for name, value in {**share, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    mine = run(*words[1:])
    told = other.communicate(timeout=120)
    assert (other.returncode, mine.exit_code) == (0, 0), (told, mine.output)
    outputs = mine.stdout, told[0]
    for output, patches in zip(outputs, (16, 8), strict=True):
        trials = [line for line in output.splitlines() if line.startswith("Trial ")]
        assert trials == [f"Trial 1 of 1: patches={patches}, seed 0"]
    assert any(f"Look at {place / 'index.html'}" in output for output in outputs)
    monkeypatch.setenv("WORLD_SIZE", "1")
    found = ablate(*images, place, resume=True, dry_run=True)
    for ours, theirs in zip(found.outcomes, made.outcomes[::2], strict=True):
        assert ours.figures is not None
        assert theirs.figures is not None
        assert ours.figures == pytest.approx(theirs.figures, rel=1e-3)
    with open(place / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished"] * 2 + ["1 of 1 finished"] * 2
    assert not [path for path in place.iterdir() if path.name.startswith((".", "ablation.json."))]


def test_the_last_tables_are_complete(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process ends a trial, and writes all tables, while ours are being written."""
    place = tmp_path / "a"
    shutil.copytree(made.folder, place)
    last = place / "trials" / made.outcomes[3].trial.folder / "figures.json"
    text = last.read_text()
    last.unlink()
    original = page

    def meanwhile(*arguments: Any) -> str:
        last.write_text(text)
        return original(*arguments)

    monkeypatch.setattr(work, "page", meanwhile)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    ablate(*images, place, resume=True)
    for name in ("table.csv", "table.md", "sheet.png"):
        assert (place / name).read_bytes() == (made.folder / name).read_bytes()
    assert "4 of 4 trials are finished." in (place / "index.html").read_text()


def test_what_a_process_is_told(
    made: Ablation, images: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made.folder

    def with_environment(**values: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in values.items():
                patch.setenv(name, value)
            return refusal(*images, place, over=GRID, seeds=2, force=True, **SMALL)

    assert with_environment(RANK="first", WORLD_SIZE="2") == (
        "RANK in the environment must be a whole number, got 'first'; start with torchrun, or "
        "without it"
    )
    assert with_environment(RANK="2", WORLD_SIZE="2") == (
        "RANK in the environment must be below WORLD_SIZE, got 2 and 2; start with torchrun, or "
        "without it"
    )
    assert with_environment(WORLD_SIZE="2") == (
        "RANK in the environment must be below WORLD_SIZE, got none and 2; start with torchrun, "
        "or without it"
    )
    assert with_environment(RANK="0", WORLD_SIZE="2") == (
        f"several processes cannot start anew in one folder, got --force; remove {place} first, "
        "or give another -o"
    )

    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for gpu in (0, 1, None):
        Processes(0, 3, gpu).choose_gpu("cuda")
    Processes(0, 3, 1).choose_gpu("cpu")
    assert chosen == [0, 1]
    with pytest.raises(SincutError) as caught:
        Processes(2, 3, 2).choose_gpu("cuda")
    assert str(caught.value) == (
        "LOCAL_RANK in the environment must be below the number of GPUs, 2, got 2; try torchrun "
        "--nproc-per-node 2"
    )


def test_the_command_lists_the_trials(images: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "a"
    result = run(*images, "-o", place, "--paper", "--preset=draft", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["6 trials in all.", *(f"  {it}, seed 0" for it in PAPER)]
    result = run(*images, "-o", place, "--paper", "--preset=draft", "--dry-run", "--json")
    record = json.loads(result.stdout)
    assert [it["setting"] for it in record["trials"]] == list(PAPER)
    assert not place.exists()
    result = run(*images, "-o", place, "--preset=draft")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: nothing is varied; ")


def test_json_records_name_their_trial(
    made: Ablation, images: tuple[Path, Path], tmp_path: Path
) -> None:
    words = [*images, "-o", tmp_path / "a", "--over=patches=16", *options(), "--json"]
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert records[0]["event"] == "ablation"
    assert {record["trial"] for record in records[1:]} == {"01_patches=16_seed-0"}
    assert {"trial", "start", "estimate", "step", "preview", "done", "measured"} <= {
        record["event"] for record in records
    }
    assert made.outcomes[0].figures is not None
    assert records[-1]["figures"] == made.outcomes[0].figures
