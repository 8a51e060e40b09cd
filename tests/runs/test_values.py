"""Ranges and bands in training and in what looks at runs: what is learned, recorded, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

import sincut
from sincut.cli import main
from sincut.demo import render_style
from sincut.errors import SincutError
from sincut.evaluation.folders import evaluate_folders
from sincut.models.model_file import load_model
from sincut.runs.events import Event
from tests.conftest import TINY
from tests.runs.test_folder_run import TINY_FOLDERS

FEW: dict[str, Any] = {**TINY, "steps": 2, "report": False}


def as_12_bits(pixels: np.ndarray) -> np.ndarray:
    """8 bits as 12 in 16; what 8 bits show of them is the same again."""
    return (pixels.astype(np.float64) * (4095 / 255)).round().astype(np.uint16)


def deep(image: Path, target: Path) -> Path:
    """An image as a TIFF of 12 bits in 16."""
    with Image.open(image) as opened:
        tifffile.imwrite(target, as_12_bits(np.asarray(opened)), photometric="rgb")
    return target


def weights(run: Path) -> dict[str, Any]:
    return load_model(run).generator.state_dict()


@pytest.fixture(scope="module")
def deep_pair(
    pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("deep")
    return deep(pair[0], folder / "content.tif"), deep(pair[1], folder / "style.tif")


@pytest.fixture(scope="module")
def deep_run(deep_pair: tuple[Path, Path]) -> tuple[Path, list[Event]]:
    told: list[Event] = []
    folder = deep_pair[0].parent / "run"
    ranges = {"range": "0,4095", "style_range": "0,4095"}
    sincut.train(*deep_pair, folder, listener=told.append, **ranges, **FEW)
    return folder, told


def test_a_training_sees_the_range(
    deep_run: tuple[Path, list[Event]], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """It learns what it learns of the same images in 8 bits."""
    sincut.train(*pair, tmp_path / "run", **FEW)
    expected = weights(tmp_path / "run")
    for name, value in weights(deep_run[0]).items():
        assert value.equal(expected[name]), name


def test_the_range_is_recorded_and_told(deep_run: tuple[Path, list[Event]]) -> None:
    run, told = deep_run
    records = [event.record() for event in told]
    notices = [(it["about"], it["text"]) for it in records if it["event"] == "notice"]
    for name in ("content", "style"):
        assert (f"the {name} image", "its values 0 to 4095 become black to white") in notices
    header = load_model(run).header
    assert header["content"]["range"] == [0, 4095]
    assert header["style"]["values"] == "uint16"
    shown = CliRunner().invoke(main, ["info", str(run)]).output
    assert "  range: 0,4095\n  values: uint16\n" in shown
    assert json.loads((run / "config.json").read_text())["content"]["range"] == [0, 4095]


def test_a_resumed_run_keeps_its_range(
    deep_run: tuple[Path, list[Event]], deep_pair: tuple[Path, Path]
) -> None:
    with pytest.raises(SincutError) as caught:
        sincut.train(*deep_pair, deep_run[0], resume=True, range="0,4000")
    assert str(caught.value).startswith("--resume goes on with the run's own range, 0,4095, got ")


def test_reports_and_inspections_see_the_range(
    deep_run: tuple[Path, list[Event]],
    deep_pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, content = deep_run[0], deep_pair[0]
    sincut.translate(run, content, tmp_path / "result.tif")
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        "sincut.runs.reporting.write_report",
        lambda record, target, generator, *pixels, result, **_: seen.extend((*pixels, result)),
    )
    sincut.report(run, result=tmp_path / "result.tif", content=content, style=deep_pair[1])
    assert all(pixels.max() > 200 for pixels in seen)
    found = sincut.inspect(run, content, [(40, 60)], tmp_path / "page", device="cpu")
    assert "its values 0 to 4095 become black to white, as the model learned" in found.notices


def test_a_range_that_is_found_is_recorded(deep_pair: tuple[Path, Path], tmp_path: Path) -> None:
    options = {"range": "auto", "style_range": "auto", **FEW, "steps": 1, "warm_steps": 0}
    sincut.train(*deep_pair, tmp_path / "run", **options)
    header = load_model(tmp_path / "run").header
    low, high = header["content"]["range"]
    assert 0 <= low < high <= 4095
    assert header["config"]["range"] == "auto"
    sincut.train(*deep_pair, tmp_path / "run", resume=True, steps=2)


def test_bands_of_a_content(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Trained on bands 6,4,2 of a raster of seven it learns what it learns of these alone."""
    with Image.open(pair[0]) as image:
        pixels = as_12_bits(np.asarray(image))
    bands = np.random.default_rng(0).integers(0, 4096, (7, *pixels.shape[:2]), np.uint16)
    bands[[5, 3, 1]] = pixels.transpose(2, 0, 1)
    raster = tmp_path / "raster.tif"
    tifffile.imwrite(raster, bands, photometric="minisblack", planarconfig="separate")
    sincut.train(raster, pair[1], tmp_path / "run", bands="6,4,2", range="0,4095", **FEW)
    sincut.train(*pair, tmp_path / "same", **FEW)
    expected = weights(tmp_path / "same")
    assert all(value.equal(expected[name]) for name, value in weights(tmp_path / "run").items())
    found = sincut.inspect(tmp_path / "run", raster, [(40, 60)], tmp_path / "page", device="cpu")
    assert "its bands 1, 3, 5, 7 are not kept" in found.notices


# ------------------------------------------------------------------------------- evaluation


def test_an_evaluation_takes_the_range(
    deep_pair: tuple[Path, Path], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also of outputs of the content's type; others are taken as they are."""
    (plain, _), (content, _) = pair, deep_pair
    Image.fromarray(render_style(160, 130)).save(tmp_path / "style.png")
    style = deep(tmp_path / "style.png", tmp_path / "style.tif")
    ranges = {"range": "0,4095", "style_range": "0,4095"}
    found = sincut.evaluate(content, style, [content, plain], **ranges)
    expected = sincut.evaluate(plain, tmp_path / "style.png", [plain])
    for output in (content, plain):
        assert found.outputs[str(output)] == expected.outputs[str(plain)]
    told = "its values 0 to 4095 become black to white"
    assert (str(content), told) in found.notices
    assert str(plain) not in dict(found.notices)


def test_an_evaluation_of_folders_takes_the_range(
    deep_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("content", "style", "output"):
        (tmp_path / name).mkdir()
    for source, name in (
        *zip(deep_pair, ("content", "style"), strict=True),
        (deep_pair[0], "output"),
    ):
        (tmp_path / name / "a.tif").write_bytes(source.read_bytes())
    folders = [tmp_path / name for name in ("content", "style", "output")]
    found = evaluate_folders(*folders, range="0,4095", style_range="0,4095")
    (structure,) = found.images.values()
    assert structure.C1 > 0.9999
    told = [text for _, text in found.notices]
    assert any(text.startswith("its values 0 to 4095 become black to white") for text in told)


# ---------------------------------------------------------------------------------- folders


def test_folders_share_a_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    for name in ("plain", "deep"):
        (tmp_path / name).mkdir()
    for index in range(3):
        pixels = rng.integers(0, 256, (40, 44, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "plain" / f"{index}.png")
        tifffile.imwrite(tmp_path / "deep" / f"{index}.tif", as_12_bits(pixels), photometric="rgb")
    options = {**TINY_FOLDERS, "steps": 1, "report": False}
    sincut.train(tmp_path / "plain", tmp_path / "plain", tmp_path / "one", **options)
    ranges = {"range": "0,4095"}
    sincut.train(tmp_path / "deep", tmp_path / "plain", tmp_path / "two", **ranges, **options)
    expected = weights(tmp_path / "one")
    assert all(value.equal(expected[name]) for name, value in weights(tmp_path / "two").items())
    header = load_model(tmp_path / "two").header
    assert (header["content"]["range"], header["content"]["values"]) == ([0, 4095], "uint16")
    with pytest.raises(SincutError) as caught:
        sincut.train(
            tmp_path / "deep", tmp_path / "plain", tmp_path / "auto", range="auto", **options
        )
    assert str(caught.value) == (
        f"a range is found of one image, got range=auto for the folder {tmp_path / 'deep'}; try "
        "the range that all its images share, such as --range 0,4095"
    )


def test_an_ablation_takes_images_as_they_are(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SincutError) as caught:
        sincut.ablate(*pair, tmp_path / "out", over={"look": [0.1, 0.2]}, range="0,200")
    assert str(caught.value) == (
        "ablate takes images as they are stored, got range=0,200; try copies scaled to all values "
        "of their type"
    )


def test_the_command_line_has_them(pair: tuple[Path, Path], tmp_path: Path) -> None:
    words = [*map(str, pair), str(pair[0])]
    result = CliRunner().invoke(main, ["evaluate", *words, "--range", "0,4095"])
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {pair[0]} has values from 0 to 255, got the range 0,4095; try --range 0,255\n"
    )
    result = CliRunner().invoke(main, ["train", *words[:2], "-o", "run", "--bands", "1,2"])
    assert result.stderr == (
        "Error: bands must be three whole numbers from 1 such as 4,3,2, got 1,2; try --bands "
        "4,3,2\n"
    )
