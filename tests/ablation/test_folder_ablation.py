"""Ablations of two folders: the paper's trials, what is measured and shown, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sincut
from sincut.ablation import work
from sincut.ablation.ablate import Ablation, ablate
from sincut.ablation.folder import read_plan
from sincut.ablation.kinds import FOLDERS
from sincut.ablation.page import averages, page, sheet
from sincut.ablation.trials import Outcome
from sincut.config.presets import folder_config
from sincut.errors import SincutError
from sincut.evaluation.judge import Judge
from sincut.images.reading.pillow import decode_picture
from sincut.runs.folder import RunFolder
from sincut.runs.folder_subject import FolderSubject
from tests.ablation.test_ablation import Killed, at, kill, make_quick, names, options, run
from tests.conftest import heard
from tests.data.test_folders import written
from tests.runs.test_folder_run import SIZES, TINY_FOLDERS

SMALL = {
    **TINY_FOLDERS,
    "steps": 2, "warm_steps": 0, "preview_every": 0, "checkpoint_every": 1,
}  # fmt: skip
GRID: dict[str, Any] = {"lambda_y": ["1", "0"]}
ALL = (
    "base", "identity off", "63 negatives", "15 negatives", "last layer", "external negatives",
    "internal and external negatives", "FastCUT",
)  # fmt: skip


def means(images: torch.Tensor) -> torch.Tensor:
    """Features that need no network."""
    return torch.cat([images.mean((2, 3)), images.std((2, 3))], dim=1) / 255


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick_folders(monkeypatch)


def make_quick_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)
    monkeypatch.setattr(
        "sincut.runs.folder_subject.lite_judge", lambda: Judge(means, 224, lite=True)
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds all four."""
    root = tmp_path_factory.mktemp("folders") / "horse2zebra"
    for seed, name in enumerate(("trainA", "trainB", "testA", "testB")):
        sizes = [*SIZES, (40, 40)][: 4 + seed % 2]
        written(root / name, sizes if name.startswith("train") else sizes[::-1], seed=seed)
    return root


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    """A finished ablation of two settings and two seeds. Tests read it and do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick_folders(patch)
        place = tmp_path_factory.mktemp("made") / "a"
        return sincut.ablate(root, None, place, over=GRID, seeds=2, **SMALL)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as caught:
        ablate(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("preset", "given", "steps"),
    [
        ("cut-small", {}, (1500, 1500)),
        ("cut", {}, (2000, 1000)),  # an epoch has five steps: the larger folder has five images
        ("cut", {"steps": 300}, (300, 300)),
    ],
)  # fmt: skip
def test_the_papers_trials(
    root: Path, tmp_path: Path, preset: str, given: dict[str, Any], steps: tuple[int, int]
) -> None:
    found = ablate(
        root, None, tmp_path / "a", paper=True, seeds=2, preset=preset, device="cpu", dry_run=True,
        **given,
    )  # fmt: skip
    cut, fastcut = (
        folder_config(
            preset, method, device="cpu", patches=256, negatives="image", steps=length,
            evaluate_every=length // 10,
        )
        for method, length in zip(("cut", "fastcut"), steps, strict=True)
    )  # fmt: skip
    assert (cut.lambda_x, cut.lambda_y, cut.layers) == (1, 1, (0, 4, 8, 12, 16))
    assert (fastcut.lambda_x, fastcut.lambda_y, fastcut.flip_equivariance) == (10, 0, True)
    expected = {
        "base": cut,
        "identity off": cut.replaced(lambda_y=0),
        "63 negatives": cut.replaced(patches=64),
        "15 negatives": cut.replaced(patches=16),
        "last layer": cut.replaced(layers=(16,)),
        "external negatives": cut.replaced(negatives="external"),
        "internal and external negatives": cut.replaced(negatives="both"),
        "FastCUT": fastcut,
    }
    assert [(it.trial.setting, it.trial.config) for it in found.outcomes] == [
        (setting, config.replaced(seed=seed))
        for setting, config in expected.items()
        for seed in (0, 1)
    ]
    assert not (tmp_path / "a").exists()


def test_the_papers_trials_with_settings(root: Path, tmp_path: Path) -> None:
    """The default preset, and the best model, which takes figures on the way."""
    found = ablate(root, None, tmp_path / "a", paper=True, keep="best", steps=5, dry_run=True)
    configs = [it.trial.config.to_dict() for it in found.outcomes]
    preset = "cut" if torch.cuda.is_available() else "cut-small"
    assert {(it["preset"], it["keep"], it["evaluate_every"]) for it in configs} == {
        (preset, "best", 1)
    }
    grouped = {setting for _, settings in FOLDERS.paper.groups for setting in settings}
    assert grouped == {it.trial.setting for it in found.outcomes} == set(ALL)


def test_trials_and_their_figures(made: Ablation, root: Path) -> None:
    assert names(made) == [f"lambda_y={y}, seed {s}" for y in (1, 0) for s in (0, 1)]
    subject = FolderSubject.read(root, None, None, lambda _: None, skip_bad=False)
    config = folder_config(**TINY_FOLDERS)
    subject.with_length(config)
    for it in made.outcomes:
        generator = sincut.load_generator(it.folder)
        assert it.figures == pytest.approx(subject.figures(generator), abs=1e-6)
        assert it.figures == json.loads((it.folder / "figures.json").read_text())
        assert list(it.figures) == ["C1", "C2", "KID_lite", "KID_lite_crops"]
        result = decode_picture(it.folder / "result.png").rgb
        np.testing.assert_array_equal(result, subject.preview(generator, config))
        assert not (it.folder / "state.safetensors").exists()
    plan = read_plan(made.folder)
    assert plan is not None
    assert [it.trial for it in made.outcomes] == list(plan.trials)
    counts = {"content": 4, "style": 5, "held-out content": 4, "held-out style": 5}
    assert {name: it.count for name, it in plan.images.items() if isinstance(it, RunFolder)} == (
        counts
    )


def test_tables(made: Ablation) -> None:
    with open(made.folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "row", "setting", "seed", "lambda_y", "C1", "C2", "KID_lite", "KID_lite_crops", "status",
        "folder", "message",
    ]  # fmt: skip
    values = [it.figures["KID_lite"] for it in made.outcomes if it.figures]
    assert [float(row["KID_lite"]) for row in rows[:4]] == values
    assert [row["row"] for row in rows[4:]] == ["mean", "spread"] * 2
    assert float(rows[4]["KID_lite"]) == fmean(values[:2])
    assert float(rows[5]["KID_lite"]) == stdev(values[:2]) > 0
    lines = (made.folder / "table.md").read_text().splitlines()
    assert lines[0] == "# Ablation: trainA translated into trainB"
    heads = [" ".join(line.split()) for line in lines if line.startswith("| setting")]
    assert heads == [
        "| setting | seeds | C1 ↑ | C2 ↑ | KID_lite ↓ | KID_lite_crops ↓ |",
        "| setting | seed | C1 ↑ | C2 ↑ | KID_lite ↓ | KID_lite_crops ↓ | status |",
    ]
    (about,) = (line for line in lines if line.startswith("- KID_lite ↓"))
    assert about == ("- KID_lite ↓: distance of the translations, as a set, to the style's images")
    text = (made.folder / "index.html").read_text()
    assert "<h1>Ablation: trainA translated into trainB</h1>" in text
    assert '<th scope="col">KID_lite ↓</th>' in text
    assert "images stand above their translations" in text


def test_figures_that_some_trials_have(made: Ablation) -> None:
    """Without the judge there is no distance; a setting of both kinds has no mean of it."""
    without, *others = made.outcomes
    assert without.figures is not None
    figures = {name: without.figures[name] for name in ("C1", "C2")}
    outcomes = [Outcome(without.trial, without.folder, figures), *others]
    first, second = averages(outcomes)
    assert first.mean is not None
    assert second.mean is not None
    assert list(first.mean) == ["C1", "C2"]
    assert len(second.mean) == 4
    plan = read_plan(made.folder)
    assert plan is not None
    assert "<td>–</td>" in page(plan, outcomes)


def test_the_sheet(made: Ablation, root: Path) -> None:
    """The style on its own, then a row for every setting."""
    plan = read_plan(made.folder)
    assert plan is not None
    style = np.zeros((160, 800, 3), np.uint8)
    again, corners = sheet([("style", style)], plan, made.outcomes)
    pixels = np.asarray(Image.open(made.folder / "sheet.png"))
    assert pixels.shape == again.shape
    assert len({top for _, top in corners}) == 3
    for (left, top), it in zip(corners[1:], made.outcomes, strict=True):
        result = decode_picture(it.folder / "result.png").rgb
        there = pixels[top : top + len(result), left : left + result.shape[1]]
        np.testing.assert_array_equal(there, result)
    left, top = corners[0]
    first = decode_picture(root / "testB" / "0.png").rgb
    np.testing.assert_array_equal(pixels[top : top + 40, left : left + 40], first)


def test_a_killed_ablation_goes_on(made: Ablation, root: Path, tmp_path: Path) -> None:
    place = tmp_path / "a"
    with pytest.raises(Killed):
        ablate(root, None, place, over=GRID, seeds=2, listener=heard(at("02", 2, kill)), **SMALL)
    assert len(list(place.glob("trials/*"))) == 2
    records: list[dict[str, Any]] = []
    found = ablate(root, None, place, resume=True, listener=heard(records.append))
    assert [(it["trial"][:2], it["step"]) for it in records if it["event"] == "step"] == [
        ("02", 2), ("03", 1), ("03", 2), ("04", 1), ("04", 2),
    ]  # fmt: skip
    assert [it.figures for it in found.outcomes] == [it.figures for it in made.outcomes]
    for name in ("table.csv", "table.md", "sheet.png"):
        assert (place / name).read_bytes() == (made.folder / name).read_bytes()
    again = ablate(root, None, place, over=GRID, seeds=2, resume=True, **SMALL)
    assert {it.status for it in again.outcomes} == {"finished"}


def test_processes_share_the_trials(
    made: Ablation, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for index in range(2):
        monkeypatch.setenv("RANK", str(index))
        found = ablate(root, None, tmp_path / "a", over=GRID, seeds=2, **SMALL)
        assert len(found.unfinished) == 2 * (1 - index)
    for name in ("table.csv", "sheet.png"):
        assert (tmp_path / "a" / name).read_bytes() == (made.folder / name).read_bytes()


def test_other_images_are_refused(made: Ablation, root: Path, tmp_path: Path) -> None:
    given = {"resume": True, "over": GRID, "seeds": 2, **SMALL}
    train, test = (root / "trainA", root / "trainB"), (root / "testA", root / "testB")
    place, same = made.folder, "resume with the same files"
    for paths, what in (
        (test, "content folder, trainA (4 images, 36×36 to 150×90), got testA"),
        ((train[0], test[1]), "style folder, trainB (5 images, 36×36 to 150×90), got testB"),
        (
            (train[0] / "0.png", train[0] / "1.png"),
            "content folder, trainA (4 images, 36×36 to 150×90), got 0.png",
        ),
    ):
        assert refusal(*paths, place, **given) == f"{place} was made with another {what}; {same}"
    assert refusal(root, None, place, held_out=train, resume=True) == (
        f"{place} was made with another held-out content folder, testA (4 images, 36×36 to "
        f"150×90), got trainA; {same}"
    )
    assert refusal(root, None, place, **{**given, "patches": 8}) == (
        f"{place} holds trials with patches=16, got patches=8; resume with the same settings, or "
        "give another -o"
    )
    shutil.copytree(place, tmp_path / "a")
    broken = tmp_path / "a" / "trials" / made.outcomes[0].trial.folder
    (broken / "figures.json").write_text('{"C1": 0.1}')
    assert refusal(root, None, tmp_path / "a", resume=True) == (
        f"figures.json or failed.json in {broken} is damaged; remove that folder, and its trial is "
        "done again"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"paper": True, "preset": "draft"},
         "preset draft is for a pair of images, got two folders; try --preset cut"),
        ({"paper": True, "preset": "fastcut"},
         "the preset fastcut is of the method fastcut, got --method cut; try --preset cut"),
        ({"paper": True, "method": "fastcut"},
         "--paper stands on the method cut, got --method fastcut; try without it"),
        ({"paper": True, "negatives": "both"},
         "--paper sets negatives itself, got negatives=both; try without it, or --over "
         "negatives=… instead of --paper"),
        ({"paper": True, "layers": "16"},
         "--paper compares all layers with the last one, got layers=16; try --set "
         "layers=0,4,8,12,16"),
        ({"paper": True, "preset": "cut-small", "crop": 32},
         "--paper compares up to 255 negatives, and a crop of 32 pixels has 64 positions in G's "
         "deeper layers; try --set crop=64"),
        ({"over": {"method": ["cut", "sincut"]}},
         "method must be one of cut, fastcut, got sincut; try --method cut"),
        ({"over": {"patches": []}},
         "patches must have a list of values to try, got []; try over={'patches': [256]}"),
        ({"over": GRID, "resume": True},
         "PLACE holds no ablation to resume: it has no ablation.json; start one without "
         "--resume"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_written(
    root: Path, tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    place = tmp_path / "a"
    assert refusal(root, None, place, **asked) == message.replace("PLACE", str(place))
    assert not place.exists()


def test_images_that_are_refused(root: Path, tmp_path: Path) -> None:
    place, image = tmp_path / "a", root / "trainA" / "0.png"
    assert refusal(root / "trainA", image, place, over=GRID) == (
        f"{image} is not a folder; give two images, or two folders of images"
    )
    assert refusal(root / "trainA", None, place, over=GRID) == (
        f"{root / 'trainA'} does not hold two folders of images; give two folders, or one with "
        "trainA and trainB"
    )
    for given, flag in (({"skip_bad": True}, "skip-bad"), ({"held_out": (root, root)}, "held-out")):
        assert refusal(image, image, place, over=GRID, **given) == (
            f"--{flag} is for two folders of images, got a pair; try without"
        )
    few = written(tmp_path / "few", SIZES[:3])
    assert refusal(few, root / "trainB", place, over=GRID, **SMALL) == (
        "distances of sets take at least 4 contents and styles, got 3 and 5; add images"
    )
    assert not place.exists()
    bad = tmp_path / "bad"
    shutil.copytree(root / "trainA", bad)
    (bad / "x.png").write_bytes(b"no image")
    assert "try --skip-bad to leave them out" in refusal(bad, root / "trainB", place, over=GRID)
    found = ablate(bad, root / "trainB", place, over=GRID, skip_bad=True, dry_run=True, **SMALL)
    assert len(found.outcomes) == 2


def test_failures_are_told_without_places(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(content: Path, style: Path | None, run: Path, **_: Any) -> None:
        raise SincutError(f"{content}/trainA/sub/1.png is damaged, as is {root / 'testB'}")

    monkeypatch.setattr(work, "train", broken)
    found = ablate(root, None, tmp_path / "a", over={"lambda_y": [1]}, **SMALL)
    assert found.outcomes[0].failure == "sub/1.png is damaged, as is testB"


def test_the_command(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a"
    result = run(root, "-o", place, "--paper", "--preset=cut-small", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["8 trials in all.", *(f"  {it}, seed 0" for it in ALL)]
    train = root / "trainA", root / "trainB"
    words = [*train, "-o", place, "--held-out", root / "testA", root / "testB", "--skip-bad"]
    with monkeypatch.context() as patch:
        patch.setattr("sincut.ablation.work.Work.run", lambda *_: 2)
        result = run(*words, "--over=lambda_y=1", *options(SMALL))
    assert result.exit_code == 130
    again = f"sincut ablate {train[0]} {train[1]} -o {place} --resume --held-out "
    assert result.stdout.splitlines()[-1].endswith(
        f"To go on: {again}{root / 'testA'} {root / 'testB'} --skip-bad"
    )
    result = run(*words, "--resume")
    assert result.exit_code == 0, result.output
    (told,) = (line for line in result.stdout.splitlines() if line.startswith("  C1 "))
    assert [word for word in told.split() if "." not in word] == ["C1", "KID_lite"]
    assert "| lambda_y=1" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Look at {place / 'index.html'}"
