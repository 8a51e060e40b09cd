"""The benchmarks of training: complete rows, a gate that closes, a clock without evaluation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import literal, time_to_quality, train_step
from benchmarks.__main__ import main
from benchmarks.literal import Parts, literal_state, literal_step, pillow_crops
from benchmarks.time_to_quality import Moments
from sincut.compute.precision import Precision
from sincut.config.presets import PRESETS, train_config
from sincut.data.pair import Pair
from sincut.data.random_numbers import RandomNumbers
from sincut.demo import render_content, render_style
from sincut.evaluation.figures import Figures
from sincut.training import losses
from sincut.training.state import State, new_state
from sincut.training.step import cut_tiles
from tests.conftest import TINY

ROW = {
    "preset", "method", "shapes", "precision", "r1_every", "ms_per_step", "p20_ms", "p80_ms",
    "steps_per_second", "peak_bytes", "timed_steps", "hours_for_all_steps", "hours_are",
    "faster_than_literal", "faster_than_prepared",
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of the smallest networks; ``auto`` is bf16, as on a machine where that is faster."""
    unnamed = {k: v for k, v in TINY.items() if k not in ("preset", "device", "precision")}
    monkeypatch.setitem(PRESETS, "tiny", ("the smallest networks", unnamed))
    monkeypatch.setattr(
        "sincut.compute.precision.faster_precision", lambda device: Precision("bf16", "a test")
    )


@pytest.fixture(scope="module")
def images() -> Pair:
    return Pair(render_content(160, 128), render_style(144, 128))


def eager_parts(mode: str | None) -> Parts:
    return Parts(
        literal.translate,
        literal.discriminator_terms,
        literal.generator_terms,
        literal.functional_logits_and_slope,
    )


def test_rows_are_complete(monkeypatch: pytest.MonkeyPatch, images: train_step.Pair) -> None:
    """As shipped, tiny has R1 in every second step. What is compiled stays eager here: seconds."""
    monkeypatch.setattr(train_step, "compiled_parts", eager_parts)
    rows = train_step.measure("tiny", "cpu", images)
    assert [row["method"] for row in rows] == [
        "literal, Pillow crops",
        "literal, prepared crops",
        "literal, torch.compile",
        "ours, fp32",
        "ours, bf16",
        "ours, as shipped",
    ]
    assert all(set(row) == ROW for row in rows)
    assert [row["r1_every"] for row in rows] == [1, 1, 1, 1, 1, 2]
    assert [row["timed_steps"] for row in rows] == [3, 3, 3, 3, 3, 6]
    for row in rows:
        assert 0 < row["p20_ms"] <= row["ms_per_step"] <= row["p80_ms"]
        assert row["steps_per_second"] == pytest.approx(1e3 / row["ms_per_step"])
        assert row["hours_for_all_steps"] == pytest.approx(6 * row["ms_per_step"] / 3.6e6)
        assert row["hours_are"] == "extrapolated"
    assert rows[0]["faster_than_literal"] == rows[1]["faster_than_prepared"] == 1
    json.dumps(rows)


def test_what_cannot_be_compiled_is_a_row(
    monkeypatch: pytest.MonkeyPatch, images: train_step.Pair
) -> None:
    def broken(*_: Any) -> None:
        raise NotImplementedError("no compiler here\nand many lines")

    monkeypatch.setattr(train_step, "compiled_parts", lambda mode: Parts(*[broken] * 4))
    row = train_step.measure("tiny", "cpu", images)[2]
    assert row["error"] == "NotImplementedError: no compiler here"
    assert row["ms_per_step"] is row["faster_than_literal"] is row["hours_for_all_steps"] is None


@pytest.mark.sampled(3)
@pytest.mark.parametrize("term", ["G_gan", "R1", "NCE_y", "identity"])
def test_a_wrong_step_is_refused(
    monkeypatch: pytest.MonkeyPatch, images: train_step.Pair, term: str
) -> None:
    name = {
        "G_gan": "adversarial_generator",
        "R1": "r1_penalty",
        "NCE_y": "contrastive",
        "identity": "pixel_identity",
    }[term]
    right = getattr(losses, name)
    monkeypatch.setattr(losses, name, lambda *args, **kw: 1.01 * right(*args, **kw))
    with pytest.raises(RuntimeError, match=r"ours, fp32: .* of step 1 is .*, of the literal step"):
        train_step.measure("tiny", "cpu", images, compiled=False)


def test_a_wrong_gradient_is_refused(
    monkeypatch: pytest.MonkeyPatch, images: train_step.Pair
) -> None:
    right = losses.pixel_identity

    def wrong(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value = right(output, target)
        return value.detach() + 3 * (value - value.detach())

    monkeypatch.setattr(losses, "pixel_identity", wrong)
    with pytest.raises(RuntimeError, match="ours, fp32: the gradient of the generator is off by"):
        train_step.measure("tiny", "cpu", images, compiled=False)


def test_wrong_pillow_crops_are_refused(
    monkeypatch: pytest.MonkeyPatch, images: train_step.Pair
) -> None:
    right = train_step.compare_crops
    content, style = images
    shifted = train_step.Pair(content, np.roll(style, 3, axis=1))
    monkeypatch.setattr(train_step, "compare_crops", lambda _, feed: right(shifted, feed))
    with pytest.raises(RuntimeError, match="crops differ by"):
        train_step.measure("tiny", "cpu", images, compiled=False)


def test_one_change_is_taken_away_at_a_time(images: train_step.Pair) -> None:
    rows = train_step.changes("tiny", "cpu", images)
    assert [(row["method"], row["precision"], row["r1_every"]) for row in rows] == [
        ("ours", "bf16", 2),
        ("ours, R1 in every step", "bf16", 1),
        ("ours, fp32", "fp32", 2),
        ("ours, no channels last", "bf16", 2),
    ]
    assert rows[0]["times_ours"] == 1


def test_without_channels_last_nothing_is_channels_last(images: train_step.Pair) -> None:
    config = train_step.configuration("tiny", "cpu")
    for around, expected in ((train_step.rows_of_pixels, True), (None, False)):
        options = {} if around is None else {"around": around}
        method = train_step.Ours("ours", config, images, **options)
        found = []
        for network in (method.state.generator.encoder[2], method.state.discriminator.blocks[0]):
            network.register_forward_hook(lambda _, __, out, f=found: f.append(out.is_contiguous()))
        method.run(1, 1)
        assert found
        assert set(found) == {expected}


def test_the_literal_step_is_for_all_terms(images: train_step.Pair) -> None:
    config = train_config("tiny", "fastcut", device="cpu", precision="fp32", warm_steps=0)
    x = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match="the literal step has all terms of SinCUT"):
        literal_step(literal_state(config), x, x, config, RandomNumbers(0, torch.tensor(0)))


def test_crops_are_those_of_the_steps(images: train_step.Pair) -> None:
    config = train_step.configuration("tiny", "cpu")
    later = list(pillow_crops(*images, config, 2, 1))
    x, y = list(pillow_crops(*images, config, 0, 3))[2]
    assert torch.equal(later[0][0], x)
    assert torch.equal(later[0][1], y)
    assert x.shape == y.shape == (2, 3, 32, 32)
    assert torch.equal(literal.tiles(x, 16), cut_tiles(x, 16))


class Brightness:
    """Stands for a comparison: what measures quality in earnest takes seconds."""

    def __init__(self, content: np.ndarray, style: np.ndarray) -> None:
        self.shape = content.shape

    def figures(self, output: np.ndarray) -> Figures:
        assert output.shape == self.shape
        return Figures(*[float(output.mean())] * 7)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A clock on which a step takes a second and an evaluation a thousand."""
    time = {"now": 50.0}
    monkeypatch.setattr(time_to_quality, "clock", lambda: time["now"])
    right_step, right_translation = time_to_quality._Run.on_step, time_to_quality.translated

    def on_step(run: Any, record: Any) -> None:
        time["now"] += 1
        right_step(run, record)

    def slowly_translated(*arguments: Any) -> Any:
        time["now"] += 1000
        return right_translation(*arguments)

    monkeypatch.setattr(time_to_quality._Run, "on_step", on_step)
    monkeypatch.setattr(time_to_quality, "translated", slowly_translated)
    monkeypatch.setattr(time_to_quality, "Comparison", Brightness)
    return time


@pytest.mark.long
def test_time_to_quality_writes_what_it_says(
    clock: dict[str, float], images: train_step.Pair, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    rows = time_to_quality.write(
        ["tiny"], images, "cpu", tmp_path, seeds=2, moments=Moments(2), both_directions=True,
        tell=told.append,
    )  # fmt: skip
    runs = [(d, s) for d in ("given", "swapped") for s in (0, 1)]
    assert [(row["direction"], row["seed"], row["step"]) for row in rows] == [
        (direction, seed, step) for direction, seed in runs for step in (0, 2, 6)
    ]
    # Two steps of the warm start, then six; none of the thousands of seconds of evaluation.
    assert [row["seconds"] for row in rows] == [2, 4, 8] * 4
    assert len({row["S1"] for row in rows}) == len(rows)  # another picture each time
    assert told == rows

    written = json.loads((tmp_path / "time-to-quality.json").read_text())
    assert {"date", "commit", "device", "torch", "rows"} <= set(written)
    assert written["rows"] == rows
    for direction, seed in runs:
        with Image.open(tmp_path / f"tiny-{direction}-seed-{seed}.png") as picture:
            assert picture.size == ((160, 128) if direction == "given" else (144, 128))
    with Image.open(tmp_path / "time-to-quality.png") as picture:
        assert picture.width > 500


def test_moments_by_the_clock(clock: dict[str, float], images: train_step.Pair) -> None:
    config = train_step.resolved(train_config("tiny", device="cpu", warm_steps=1, steps=8))
    rows, _ = time_to_quality.of_run(config, images, Brightness(*images), Moments(seconds=3.0))
    assert [(row["step"], row["seconds"]) for row in rows] == [(0, 1), (2, 3), (5, 6), (8, 9)]


def test_moments_are_closer_together_at_first() -> None:
    config = train_config("tiny", steps=1000, warm_steps=0)
    assert sorted(Moments(4).steps(config)) == [62, 250, 562, 1000]
    assert Moments(4).steps(config.replaced(warm_steps=3)) == {0, 62, 250, 562, 1000}
    assert Moments(seconds=5.0).steps(config) == {1000}


def test_minutes_fit_the_length(
    monkeypatch: pytest.MonkeyPatch, images: train_step.Pair, tmp_path: Path
) -> None:
    budgets: list[float] = []

    def fitted(config: Any, pace: Any, seconds: float) -> Any:
        budgets.append(seconds)
        return config.replaced(steps=2, warm_steps=0)

    monkeypatch.setattr(time_to_quality, "measure", lambda *_: None)
    monkeypatch.setattr(time_to_quality, "fitted", fitted)
    rows = time_to_quality.write(
        ["tiny"], images, "cpu", tmp_path, minutes={"tiny": 0.5, "other": 9.0}, moments=Moments(1)
    )
    assert budgets == [30]
    assert [row["step"] for row in rows] == [2]
    assert all(np.isfinite(rows[0][figure.name]) for figure in dataclasses.fields(Figures))


def test_commands_of_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []

    def rows(preset: str, device: str, pair: Any, **options: Any) -> list[dict[str, Any]]:
        calls.append((preset, device, options))
        return [{"preset": preset, "shapes": "small", "ms_per_step": 1.0}]

    monkeypatch.setattr(train_step, "measure", rows)
    monkeypatch.setattr(train_step, "example_pair", lambda: None)
    monkeypatch.setattr(train_step, "changes", rows)
    monkeypatch.setattr(time_to_quality, "write", lambda *args, **options: calls.append(options))
    run = CliRunner().invoke
    target = tmp_path / "rows.json"
    arguments = ["--preset", "paper", "--preset", "draft", "--no-compile", "--json", str(target)]
    assert run(main, ["train-step", *arguments]).exit_code == 0
    assert [row["preset"] for row in json.loads(target.read_text())["rows"]] == ["paper", "draft"]
    assert run(main, ["train-step", "--changes", "--steps", "9"]).exit_code == 0
    arguments = ["--minutes", "2", "--every", "30", "--output", str(tmp_path)]
    assert run(main, ["time-to-quality", *arguments]).exit_code == 0
    assert calls[0] == ("paper", "cpu", {"steps": None, "compiled": False})
    assert calls[2] == ("published", "cpu", {"steps": 9})
    assert calls[3]["minutes"] == {"draft": 2.0}
    assert calls[3]["moments"] == Moments(8, 30.0)
    result = run(main, ["time-to-quality", "--content", str(target), "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "give both --content and --style, or neither" in result.output


def test_a_measured_run_starts_as_a_shipped_one(
    monkeypatch: pytest.MonkeyPatch, images: train_step.Pair
) -> None:
    """Networks that correct start from the pair's transfer of colours, not from the identity."""
    started: list[State] = []
    monkeypatch.setattr(time_to_quality, "train", lambda *args: started.append(args[-1]))
    config = train_step.resolved(train_config("tiny", device="cpu", correction=True))
    time_to_quality.of_run(config, images, Brightness(*images), Moments())
    expected = new_state(images, config)
    assert torch.equal(started[0].generator.colours, expected.generator.colours)
    assert not torch.allclose(started[0].generator.colours[:, :, 0, 0], torch.eye(3), atol=0.05)
