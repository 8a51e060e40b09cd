"""A training on two folders: what is written, interruption, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import sincut
from sincut.cli import main
from sincut.config.presets import folder_config
from sincut.errors import SincutError
from sincut.models.model_file import load_model
from sincut.models.resnet import ResnetGenerator
from sincut.runs.folder import RunFolder, read_run
from sincut.runs.train import RunResult
from tests.conftest import heard
from tests.data.test_folders import written
from tests.runs.test_run import content_of, interrupting

# The smallest networks that have every part.
TINY_FOLDERS: dict[str, Any] = {
    "preset": "cut-small",
    "device": "cpu",
    "precision": "fp32",
    "steps": 6,
    "warm_steps": 2,
    "batch": 2,
    "load": 36,
    "falling_load": 32,
    "crop": 32,
    "channels": 3,
    "blocks": 5,
    "discriminator_channels": 4,
    "projection_width": 8,
    "patches": 16,
    "log_every": 1,
    "preview_every": 3,
    "preview_width": 32,
    "checkpoint_every": 4,
}
SIZES = [(48, 40), (40, 56), (150, 90), (36, 36)]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("folders")
    return written(root / "horses", SIZES), written(root / "zebras", SIZES[:3], seed=1)


@pytest.fixture(scope="session")
def folder_run(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(folders, tmp_path_factory.mktemp("run") / "run").folder


def train(folders: tuple[Path, Path], folder: Path, **changes: Any) -> RunResult:
    return sincut.train(*folders, folder, **{**TINY_FOLDERS, **changes})


def test_files_of_a_run(folder_run: Path) -> None:
    assert sorted(p.name for p in folder_run.iterdir()) == [
        "README.md", "config.json", "index.html", "live.js", "log.jsonl", "model.safetensors",
        "previews", "report.html", "state.safetensors",
    ]  # fmt: skip
    run = read_run(folder_run)
    assert isinstance(run.content, RunFolder)
    assert (run.content.name, run.content.count, run.content.sizes) == (
        "horses",
        4,
        "36×36 to 150×90",
    )
    assert [step for step, _ in run.previews] == [0, 3, 6]
    model = load_model(folder_run)
    assert isinstance(model.generator, ResnetGenerator)
    assert model.projector is not None
    assert model.header["content"]["count"] == 4


def test_a_preview_is_a_sheet_of_images_above_their_translations(folder_run: Path) -> None:
    sheet = np.asarray(Image.open(folder_run / "previews" / "000006.png"))
    # Four images, each at most 32 pixels a side, with gaps of four.
    assert sheet.shape[0] <= 2 * 32 + 4
    assert sheet.shape[1] <= 4 * 32 + 3 * 4


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("method", "negatives", "step"),
    [("cut", "image", -1), ("cut", "external", 3), ("fastcut", "both", 3)],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    folders: tuple[Path, Path], tmp_path: Path, method: str, negatives: str, step: int
) -> None:
    settings = {"method": method, "negatives": negatives, "bank": 100, "ema_half_life": 2.0}
    whole = train(folders, tmp_path / "whole", **settings)
    assert whole.signal == 0
    stopped = train(folders, tmp_path / "parts", listener=heard(interrupting(step)), **settings)
    assert stopped.step == step
    sincut.train(*folders, tmp_path / "parts", resume=True)
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")


def test_a_run_whose_images_are_decoded_anew_is_the_same(
    folders: tuple[Path, Path], folder_run: Path, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    train(folders, tmp_path / "run", image_memory="1", workers=1, listener=heard(told.append))
    assert any("waited" in record.get("text", "") for record in told)
    one, other = content_of(folder_run), content_of(tmp_path / "run")
    assert {name for name in one if "model" in name and one[name] != other[name]} == set()


def test_an_extended_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    train(folders, tmp_path / "run", schedule="constant")
    result = sincut.train(*folders, tmp_path / "run", resume=True, steps=8)
    assert (result.step, result.steps) == (8, 8)


def test_epochs_give_the_length(folders: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {name: value for name, value in TINY_FOLDERS.items() if name != "steps"}
    told: list[dict[str, Any]] = []
    result = sincut.train(
        *folders, tmp_path / "run", epochs=2, falling_epochs=1, listener=heard(told.append),
        schedule="epochs", **settings,
    )  # fmt: skip
    assert result.steps == 3 * 4 // 2
    rates = [record["learning_rate"] for record in told if record["event"] == "step"]
    full = TINY_FOLDERS.get("learning_rate", folder_config("cut-small").learning_rate)
    assert rates == pytest.approx([*[full] * 6, full / 2, full / 2])


def test_minutes_fit_the_length(folders: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {name: value for name, value in TINY_FOLDERS.items() if name != "steps"}
    result = sincut.train(*folders, tmp_path / "run", minutes=0.2, report=False, **settings)
    assert result.step == result.steps >= 10


def test_held_out_images_are_shown_and_measured(folders: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    root = tmp_path / "set"
    for name, sizes in (
        ("trainA", SIZES),
        ("trainB", SIZES),
        ("testA", SIZES[:4]),
        ("testB", SIZES),
    ):
        written(root / name, sizes, seed=len(name))
    sincut.train(
        root, None, tmp_path / "run", listener=heard(told.append), evaluate_every=3, **TINY_FOLDERS
    )
    notices = {record["about"]: record["text"] for record in told if record["event"] == "notice"}
    assert f"the images in {root / 'testA'}" in notices
    assert "held-out images" not in notices
    figures = [record for record in told if record["event"] == "figures"]
    assert [record["step"] for record in figures] == [0, 3, 6]
    assert {"C1", "C2"} <= set(figures[0]["figures"])
    report = (tmp_path / "run" / "report.html").read_text()
    assert "The model that was kept is the last." in report


def test_the_report_and_the_card(folder_run: Path) -> None:
    report = (folder_run / "report.html").read_text()
    assert "<h1>horses translated into zebras</h1>" in report
    assert report.count("before and after</figcaption>") == 4
    assert len(report) < 10_000_000
    card = (folder_run / "README.md").read_text()
    assert "# horses translated into zebras" in card
    assert "sincut train horses zebras -o run --preset cut-small" in card
    assert "- image-folders" in card
    assert "single-image" not in card


def test_info_of_a_run(folder_run: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(folder_run), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["generator"]["architecture"] == "resnet"
    assert facts["config"]["preprocess"] == "shortside"


def test_a_model_is_loaded_as_a_module(folder_run: Path) -> None:
    generator = sincut.load_generator(folder_run)
    assert generator(torch.zeros(1, 3, 21, 34)).shape == (1, 3, 21, 34)


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(SincutError) as caught:
        sincut.train(*args, **kwargs)
    return str(caught.value)


def test_refusals(folders: tuple[Path, Path], folder_run: Path, tmp_path: Path) -> None:
    horses, zebras = folders
    image, output = horses / "0.png", tmp_path / "run"
    assert refusal(horses, image, output) == (
        f"{image} is not a folder; give two images, or two folders of images"
    )
    assert refusal(horses, zebras, output, preset="draft") == (
        "preset draft is for a pair of images, got two folders; try --preset cut"
    )
    assert refusal(image, image, output, preset="cut") == (
        "preset cut is for two folders of images, got two images; try --preset draft"
    )
    assert refusal(horses, zebras, output, method="sincut") == (
        "method must be one of cut, fastcut, got sincut; try --method cut"
    )
    assert refusal(horses, zebras, output, preset="fastcut", method="cut") == (
        "the preset fastcut is of the method fastcut, got --method cut; try --preset cut"
    )
    assert refusal(image, image, output, preset="draft", skip_bad=True) == (
        "--skip-bad is for two folders of images, got a pair; try without"
    )
    assert refusal(horses, zebras, output, layers="0,5") == (
        "layers must be among 0,4,8,12,13,14,15,16,17, got 0,5; try --set layers=0,4,8,12,16"
    )
    assert refusal(horses, zebras, output, load=64) == (
        "load must be at least crop (128), got 64; try --set load=128"
    )
    assert "there is no field zoom in the configuration" in refusal(
        horses, zebras, output, zoom="width"
    )
    other = written(tmp_path / "others", SIZES[:2], seed=5)
    assert refusal(other, zebras, folder_run, resume=True) == (
        f"{folder_run} was trained with another content folder, horses (4 images, 36×36 to "
        "150×90), got others; resume with the same files"
    )
    assert not output.exists()


def test_the_best_model_is_kept(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a run that is interrupted after it."""
    values = {0: 0.5, 2: 0.2, 4: 0.3, 6: 0.4}
    found = iter([0.9, *values.values()])  # the first is of the estimate

    def figures(self: Any, generator: Any) -> dict[str, float]:
        return {"KID_lite": next(found)}

    monkeypatch.setattr("sincut.runs.folder_subject.FolderSubject.figures", figures)
    monkeypatch.setattr(
        "sincut.runs.folder_subject.FolderSubject.prepare_figures", lambda self: None
    )
    settings = {"keep": "best", "evaluate_every": 2}
    train(folders, tmp_path / "run", listener=heard(interrupting(5)), **settings)
    found = iter([0.9, 0.4])
    sincut.train(*folders, tmp_path / "run", resume=True)
    assert load_model(tmp_path / "run").header["step"] == 2
    card = (tmp_path / "run" / "README.md").read_text()
    assert "6, of which step 2 was best and is kept" in card
    report = (tmp_path / "run" / "report.html").read_text()
    assert "The model that was kept is the best." in report
    assert "0.200 after 2 steps" in report
    assert refusal(*folders, tmp_path / "other", keep="best") == (
        "keep=best takes figures on the way, got none; try --evaluate-every 1000"
    )


def test_the_report_made_anew(folders: tuple[Path, Path], folder_run: Path, tmp_path: Path) -> None:
    made = sincut.report(
        folder_run, tmp_path / "page.html", content=folders[0], style=folders[1], device="cpu"
    )
    assert made.size == made.path.stat().st_size > 10_000
    with pytest.raises(SincutError) as caught:
        sincut.report(folder_run, tmp_path / "other.html")
    assert str(caught.value) == (
        f"the content of {folder_run}, horses with 4 images, is neither here nor beside the run; "
        "try --content FOLDER"
    )
    with pytest.raises(SincutError) as caught:
        sincut.report(folder_run, figures=True, content=folders[0], style=folders[1])
    assert str(caught.value) == ("--result and --figures are for runs of a pair; try without them")
