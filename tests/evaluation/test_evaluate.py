"""Files to figures: what is measured, what is refused, what is drawn."""

from __future__ import annotations

import builtins
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import sincut
from sincut.config.translating import TranslateConfig
from sincut.demo import render_content, render_style
from sincut.errors import SincutError
from sincut.evaluation import evaluate as evaluation
from sincut.evaluation import figures as quality
from sincut.evaluation import plot
from sincut.evaluation.anchors import COPY, IDT, IDT_16, IDT_64, PATCHES, REINHARD
from sincut.evaluation.evaluate import Evaluation, Identity, beyond_the_line, evaluate
from sincut.evaluation.figures import Comparison, Figures
from sincut.evaluation.plot import check_plot, draw_plane
from sincut.models.model_file import load_generator
from sincut.translation.tiles import translate_pixels

CONTENT = render_content(160, 128)
STYLE = render_style(151, 130)


@pytest.fixture(autouse=True)
def one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor from one half-split instead of seven, which take seconds."""
    monkeypatch.setattr(quality, "_FLOOR_SPLITS", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("evaluation")
    blurred = np.asarray(Image.fromarray(CONTENT).filter(ImageFilter.GaussianBlur(2)))
    images = {"content": CONTENT, "style": STYLE, "copy": CONTENT, "blurred": blurred}
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    alpha = Image.fromarray(CONTENT).convert("RGBA")
    alpha.putalpha(7)
    alpha.save(folder / "alpha.png")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def found(files: dict[str, Path], tiny_run: Path) -> tuple[Evaluation, list[tuple[str, int, int]]]:
    """Everything measured once, and the progress on the way."""
    steps: list[tuple[str, int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "_FLOOR_SPLITS", 1)
        result = evaluate(
            files["content"],
            files["style"],
            [files["alpha"], str(files["blurred"])],
            model=tiny_run,
            anchors=True,
            on_progress=lambda *step: steps.append(step),
        )
    return result, steps


def message(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(SincutError) as error:
        call(*arguments, **options)
    return str(error.value)


def test_figures_of_files(
    found: tuple[Evaluation, Any], files: dict[str, Path], tiny_run: Path
) -> None:
    result = found[0]
    assert list(result.outputs) == [str(files["alpha"]), str(files["blurred"])]
    assert list(result.anchors) == [COPY, REINHARD, IDT, IDT_16, IDT_64, PATCHES]
    comparison = Comparison(CONTENT, STYLE)
    assert result.outputs[str(files["alpha"])] == comparison.figures(CONTENT)
    assert result.outputs[str(files["alpha"])] == result.anchors[COPY]
    assert result.outputs[str(files["blurred"])] == comparison.figures(
        np.asarray(Image.open(files["blurred"]))
    )
    assert result.notices == ((str(files["alpha"]), "its alpha channel is not measured"),)

    translated = translate_pixels(load_generator(tiny_run), STYLE, TranslateConfig())
    difference = (translated.astype(float) - STYLE) / 255
    assert result.identity is not None
    assert dataclasses.astuple(result.identity) == pytest.approx(
        (
            np.abs(difference).mean(),
            10 * np.log10(1 / np.square(difference).mean()),
            Comparison(STYLE, STYLE).figures(translated).C1,
            comparison.texture_distance(translated),
        ),
        rel=1e-4,
    )
    assert 0.3 < result.identity.C1 < 1


def test_progress_counts_up_to_the_end(found: tuple[Any, list[tuple[str, int, int]]]) -> None:
    assert [done for _, done, _ in found[1]] == list(range(11))
    assert {total for *_, total in found[1]} == {10}
    assert [text for text, *_ in found[1]][-2:] == ["identity", "done"]


def test_json(found: tuple[Evaluation, Any], files: dict[str, Path]) -> None:
    values = json.loads(json.dumps(found[0].to_dict(), allow_nan=False))
    path = str(files["blurred"])
    assert list(values) == [str(files["alpha"]), path, "anchors", "identity"]
    assert list(values[path]) == ["S1", "S2", "S2_ratio", "S3", "S4", "C1", "C2", "beyond"]
    assert values[path]["S1"] == round(found[0].outputs[path].S1, 6)
    assert values[path]["beyond"] is False
    assert list(values["anchors"]) == list(found[0].anchors)
    assert list(values["identity"]) == ["L1", "PSNR", "C1", "S2"]


def test_only_what_was_asked_for(files: dict[str, Path]) -> None:
    result = sincut.evaluate(files["content"], files["style"], files["blurred"])
    assert (result.anchors, result.identity, result.notices) == ({}, None, ())
    assert list(result.to_dict()) == [str(files["blurred"])]
    assert "beyond" not in result.to_dict()[str(files["blurred"])]


def test_what_is_not_finite_is_null() -> None:
    result = Evaluation({}, identity=Identity(L1=0.0, PSNR=float("inf"), C1=1.0, S2=0.0123456789))
    assert result.to_dict() == {"identity": {"L1": 0.0, "PSNR": None, "C1": 1.0, "S2": 0.012346}}


def test_perfect_identity() -> None:
    found = evaluation._identity(STYLE, STYLE, Comparison(CONTENT, STYLE))
    assert dataclasses.astuple(found)[:2] == (0, float("inf"))
    assert abs(found.C1 - 1) < 1e-9


def at(c1: float, s3: float) -> Figures:
    return Figures(S1=0, S2=0, S2_ratio=0, S3=s3, S4=0, C1=c1, C2=0)


LINE = {
    COPY: at(1.0, 0.92), REINHARD: at(0.97, 0.96), IDT: at(0.74, 0.94),
    IDT_16: at(0.69, 0.89), IDT_64: at(0.27, 0.62),
}  # fmt: skip


@pytest.mark.parametrize(
    ("c1", "s3", "expected"),
    [
        (0.48, 0.75, True),  # the middle of 16 and 64 is (0.48, 0.755)
        (0.48, 0.76, False),
        (0.69, 0.8899, True),
        (0.70, 0.899, True),  # between 16 and IDT: 0.90
        (0.70, 0.901, False),
        (0.90, 0.91, True),
        (0.90, 0.926, False),  # under the way to the copy, which is better in both
        (0.72, 0.919, True),
        (0.72, 0.92, False),  # only the copy is as good
        (0.27, 0.61, True),
        (0.26, 0.5, False),  # less structure than the blocks of 64
        (0.10, 0.4, False),
        (1.0, 0.919, True),
        (1.0, 0.92, False),
        *[(each.C1, each.S3, False) for each in LINE.values()],
    ],
)
def test_beyond_the_line(c1: float, s3: float, expected: bool) -> None:
    assert beyond_the_line(at(c1, s3), LINE) is expected


def test_beyond_a_line_that_turns_back() -> None:
    """Blocks of 16 pixels that keep less structure than those of 64 are a corner all the same."""
    turned = {**LINE, IDT_16: at(0.2, 0.7)}
    assert not beyond_the_line(at(0.21, 0.65), turned)  # the 64s are better in both
    assert beyond_the_line(at(0.21, 0.61), turned)
    assert not beyond_the_line(at(0.19, 0.5), turned)


def test_the_plane_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "plane.png"
    outputs = {"a/result.png": at(0.5, 0.6), "b/result.png": at(0.6, 0.7), "$^$.png": at(0.7, 1)}
    draw_plane(Evaluation(outputs, LINE), path)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (960, 720))
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    red = (pixels[:, 0] - pixels[:, 1:].max(axis=1) > 80).sum()
    assert red > 3 * 30  # three points and their names
    assert (pixels.max(axis=1) < 120).sum() > 2000  # axes, the line, anchors
    assert [each.name for each in tmp_path.iterdir()] == ["plane.png"]

    draw_plane(Evaluation({"a/result.png": at(0.5, 0.6)}, LINE), tmp_path / "fewer.png")
    with Image.open(tmp_path / "fewer.png") as image:
        fewer = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert 0 < (fewer[:, 0] - fewer[:, 1:].max(axis=1) > 80).sum() < red


def test_what_stands_in_the_plane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = []
    of_matplotlib = plot._figure_class()

    def recording(**options: Any) -> Any:
        figures.append(of_matplotlib(**options))
        return figures[-1]

    monkeypatch.setattr(plot, "_figure_class", lambda: recording)
    outputs = {"a/it.png": at(0.5, 0.6), "b/it.png": at(0.6, 0.7), "c/$x$.png": at(0.7, 1)}
    draw_plane(Evaluation(outputs, LINE), tmp_path / "plane.png")
    axes = figures[0].axes[0]
    # Files of one name are told apart by their folders.
    assert [each.get_text() for each in axes.texts] == [
        *LINE, "a/it.png", "b/it.png", "$x$.png",
    ]  # fmt: skip
    assert [each.xy for each in axes.texts][-1] == (0.7, 1)
    assert "higher is better" in axes.get_xlabel()
    assert "lower is better" in axes.get_ylabel()
    line = axes.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [0.74, 0.69, 0.27])
    np.testing.assert_array_equal(line.get_ydata(), [0.94, 0.89, 0.62])


def test_a_plot_that_cannot_be_written(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = list(files.values())
    taken = tmp_path / "plane.png"
    taken.write_bytes(b"old")
    assert message(check_plot, taken, inputs, force=False) == (
        f"{taken} exists already; try --force or another --plot"
    )
    check_plot(taken, inputs, force=True)
    assert message(check_plot, files["copy"], inputs, force=True) == (
        f"{files['copy']} is an input; give another --plot"
    )
    assert message(check_plot, tmp_path / "plane.jpg", inputs, force=False) == (
        f"the plot must be a PNG file, got {tmp_path / 'plane.jpg'}; try plane.png"
    )
    assert message(check_plot, tmp_path / "no" / "plane.png", inputs, force=False) == (
        f"the folder {tmp_path / 'no'} does not exist; create it first"
    )
    assert taken.read_bytes() == b"old"

    original = builtins.__import__

    def without_matplotlib(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    for call, arguments in (
        (check_plot, (tmp_path / "new.png", inputs)),
        (draw_plane, (Evaluation({}, LINE), tmp_path / "new.png")),
    ):
        options = {"force": False} if call is check_plot else {}
        assert message(call, *arguments, **options) == (
            "a plot needs matplotlib, which is not installed; try pip install matplotlib"
        )


def test_what_is_refused_before_the_work(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "Comparison", None)  # no work may begin
    pair = files["content"], files["style"]
    copy, blurred = files["copy"], files["blurred"]
    missing, broken, wrong = (tmp_path / name for name in ("none.png", "bad.png", "wrong.png"))
    broken.write_bytes(copy.read_bytes()[:4000])
    Image.fromarray(CONTENT[:-1]).save(wrong)
    small = tmp_path / "small.png"
    Image.fromarray(STYLE[:127]).save(small)
    link = tmp_path / "link.png"
    link.symlink_to(copy)

    assert message(evaluate, *pair, [copy, blurred, copy]) == (
        f"{copy} is given twice; give every output once"
    )
    assert message(evaluate, *pair, [copy, link]) == (
        f"{link} and {copy} are the same file; give every output once"
    )
    assert (
        message(evaluate, *pair, [copy, missing]) == f"{missing} does not exist; give an image file"
    )
    assert message(evaluate, *pair, [copy, broken]).startswith(f"{broken} is broken or cut short (")
    assert message(evaluate, *pair, [copy, wrong]) == (
        f"{wrong} must have the content's size, 160×128, got 160×127; try a translation of this "
        "content"
    )
    assert message(evaluate, small, pair[1], [copy]) == (
        f"{small} must have sides of at least 128 pixels to be measured, got 151×127; "
        "try a larger image"
    )
    assert message(evaluate, pair[0], small, [copy]) == (
        f"{small} must have sides of at least 128 pixels to be measured, got 151×127; "
        "try a larger image"
    )
    for name in ("anchors", "identity"):
        assert message(evaluate, *pair, [copy, name]) == (
            f"an output must not be given as {name}, which is a key of the result itself; "
            f"try ./{name}"
        )
    assert message(evaluate, *pair, []) == "there is nothing to measure; give at least one output"
    assert message(evaluate, *pair, [copy], model=missing) == (
        f"{missing} does not exist or is not a file; give a model.safetensors that sincut wrote; "
        "for a latest_net_G.pth try sincut import"
    )
