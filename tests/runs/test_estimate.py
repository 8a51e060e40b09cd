"""The estimate and the fitted length, with a clock that only counted work moves on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sincut
from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.pair import Pair
from sincut.errors import SincutError
from sincut.images.reading.pillow import decode_picture
from sincut.runs.estimate import Estimate, fitted, measure, of_length
from sincut.runs.pair_subject import PairSubject
from sincut.runs.report import expected_seconds
from sincut.training.step import Kind
from tests.conftest import TINY, heard
from tests.runs.test_run import interrupting

PACE = Estimate(
    setup=0.0,
    warm=1.0,
    plain=2.0,
    with_r1=6.0,
    preview=5.0,
    save=3.0,
    figures=20.0,
    peak_bytes=10**9,
)


def config(**changes: Any) -> PairConfig:
    values = {k: v for k, v in TINY.items() if k != "preset"}
    return train_config("draft", **{**values, **changes})


class Machine:
    """A steady machine: work takes the seconds of PACE, give or take a tenth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spread: float = 0.1) -> None:
        self.now, self.random = 0.0, np.random.default_rng(0)
        self.spread = spread
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        term = {"G": torch.zeros(())}

        def warm_step(*_: Any) -> dict[str, torch.Tensor]:
            self.work(PACE.warm)
            return {"warm": torch.zeros(())}

        def sincut_step(*args: Any) -> dict[str, torch.Tensor]:
            kind: Kind = args[4]
            self.work(PACE.with_r1 if kind.with_r1 else PACE.plain)
            return term

        monkeypatch.setattr("sincut.training.loop.warm_step", warm_step)
        monkeypatch.setattr("sincut.training.loop.sincut_step", sincut_step)

        def translate(generator: Any, pixels: np.ndarray, config: Any) -> np.ndarray:
            self.work(PACE.preview)
            return pixels

        monkeypatch.setattr("sincut.runs.final_colours.translate_pixels", translate)
        for module in ("estimate", "recorder"):
            monkeypatch.setattr(
                f"sincut.runs.{module}.save_state", lambda *_: self.work(PACE.save / 1.2)
            )
        monkeypatch.setattr("sincut.runs.recorder.save_model", lambda *_: self.work(PACE.save / 6))

    def work(self, seconds: float) -> None:
        self.now += seconds * self.random.uniform(1 - self.spread, 1 + self.spread)


LENGTHS = [
    {},
    {"steps": 43, "warm_steps": 30},
    {"steps": 60, "r1_every": 16, "preview_every": 0, "checkpoint_every": 1000},
    {"steps": 50, "r1_every": 1, "preview_every": 7, "checkpoint_every": 3},
    {"steps": 30, "warm_steps": 0, "lambda_r1": 0.0},
    {"steps": 20, "correction": True, "preview_every": 5, "checkpoint_every": 5},
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("spread", "within"), [(0.0, 1e-6), (0.1, 0.2)])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_the_estimate_is_right_on_a_steady_machine(
    monkeypatch: pytest.MonkeyPatch,
    pair: tuple[Path, Path],
    tmp_path: Path,
    lengths: dict[str, Any],
    spread: float,
    within: float,
) -> None:
    machine = Machine(monkeypatch, spread)
    told: list[tuple[float, dict[str, Any]]] = []
    settings = {**TINY, "correction": False, **lengths}
    settings = {**settings, "report": False}
    sincut.train(
        *pair, tmp_path / "run", listener=heard(lambda r: told.append((machine.now, r))), **settings
    )
    ((at, estimate),) = [(at, r) for at, r in told if r["event"] == "estimate"]
    assert estimate["seconds"] == pytest.approx(machine.now - at, rel=within)


def test_the_estimate_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = {**TINY, "correction": False, "steps": 23, "preview_every": 7, "checkpoint_every": 5}
    sincut.train(*pair, tmp_path / "run", listener=heard(interrupting(11)), **settings)
    machine = Machine(monkeypatch, spread=0.0)
    told: list[tuple[float, dict[str, Any]]] = []
    sincut.train(
        *pair,
        tmp_path / "run",
        resume=True,
        report=False,
        listener=heard(lambda r: told.append((machine.now, r))),
    )
    ((at, estimate),) = [(at, r) for at, r in told if r["event"] == "estimate"]
    assert estimate["seconds"] == pytest.approx(machine.now - at, rel=1e-6)


def test_both_halves_of_flip_equivariance_are_timed(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Path, Path]
) -> None:
    machine = Machine(monkeypatch, spread=0.0)
    seen: dict[Kind, int] = {}

    def sincut_step(*args: Any) -> dict[str, torch.Tensor]:
        kind: Kind = args[4]
        seen[kind] = seen.get(kind, 0) + 1
        # The first call of every kind is slow: it must not count as a step.
        machine.work(50 if seen[kind] == 1 else 2 + 4 * kind.with_r1 + 2 * kind.mirrored)
        return {"G": torch.zeros(())}

    monkeypatch.setattr("sincut.training.loop.sincut_step", sincut_step)
    images = [decode_picture(path).rgb for path in pair]
    estimate = measure(PairSubject(Pair(*images), {}), config(flip_equivariance=True, warm_steps=0))
    assert len(seen) == 4
    assert (estimate.plain, estimate.with_r1) == pytest.approx((3, 7))
    assert estimate.setup == pytest.approx(4 * 50 - (2 + 4 + 6 + 8))


def test_the_report_counts_too(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """In the estimate, and in the time that --minutes leaves for steps."""
    settings = {name: value for name, value in TINY.items() if name != "steps"}
    monkeypatch.setattr("sincut.runs.pair_subject.expected_seconds", lambda *_: 100.0)
    steps, seconds = {}, {}
    for report in (True, False):
        Machine(monkeypatch)
        told: list[dict[str, Any]] = []
        folder = tmp_path / f"run-{report}"
        result = sincut.train(
            *pair, folder, minutes=5, report=report, listener=heard(told.append), **settings
        )
        steps[report] = result.steps
        (estimate,) = (record for record in told if record["event"] == "estimate")
        seconds[report] = estimate["seconds"], estimate["seconds_per_step"]
        assert (folder / "report.html").exists() == report
    assert steps[True] < steps[False]
    # Both fill the same five minutes.
    assert seconds[True][0] == pytest.approx(seconds[False][0], abs=2 * seconds[False][1])


def test_how_long_a_report_takes_follows_the_images() -> None:
    def image(height: int, width: int) -> np.ndarray:
        return np.zeros((height, width, 3), np.uint8)

    cfg = config(preview_width=500)  # a preview of 500 × 500 pixels takes two seconds

    def seconds(*pair: np.ndarray) -> float:
        return expected_seconds(*pair, 2.0, cfg)

    assert seconds(image(1000, 1000), image(500, 1000)) == pytest.approx(3 + 8 + 11 * 1.5)
    # Too small a style, then a content too large, to be measured; above 24 megapixels it is
    # translated reduced to 2048 pixels.
    assert seconds(image(1000, 1000), image(50, 50)) == pytest.approx(3 + 8)
    assert seconds(image(2000, 2000), image(200, 200)) == pytest.approx(3 + 32)
    assert seconds(image(6000, 6000), image(200, 200)) == pytest.approx(3 + 2 * (2048 / 500) ** 2)
    # What is smaller than a preview is not enlarged for one.
    assert seconds(image(200, 200), image(50, 50)) == pytest.approx(3 + 2)


@pytest.mark.parametrize("minutes", [5, 20])
def test_minutes_are_kept(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Path, Path], tmp_path: Path, minutes: float
) -> None:
    machine = Machine(monkeypatch)
    settings = {name: value for name, value in TINY.items() if name != "steps"}
    told: list[dict[str, Any]] = []
    result = sincut.train(
        *pair, tmp_path / "run", minutes=minutes, listener=heard(told.append), **settings
    )
    assert machine.now == pytest.approx(60 * minutes, rel=0.2)
    start = next(record for record in told if record["event"] == "start")
    assert start["config"]["steps"] == result.steps == result.step
    assert f'"steps": {result.steps}' in (tmp_path / "run/config.json").read_text()


def test_seconds_count_everything_that_is_left() -> None:
    cfg = config(steps=10, warm_steps=4, r1_every=2, preview_every=4, checkpoint_every=3,
                 evaluate_every=5)  # fmt: skip
    # 10 steps, half of them with R1, 4 warm ones, previews at 0, 4, 8, 10, saves at −4, −3, 0, 3,
    # 6, 9, 10, figures at 0, 5, 10.
    assert PACE.seconds(cfg, -4) == 10 * 4 + 4 * 1 + 4 * 5 + 7 * 3 + 3 * 20
    # Resumed, it saves at once.
    assert PACE.seconds(cfg, 6) == 4 * 4 + 2 * 5 + 3 * 3 + 1 * 20


def test_the_longest_length_that_fits() -> None:
    cfg = config(steps=100, warm_steps=20, r1_every=2, preview_every=50, checkpoint_every=50)
    for seconds in (100.0, 333.0, 5000.0):
        found = fitted(cfg, PACE, seconds)
        longer = of_length(cfg, found.steps + 1)
        assert PACE.seconds(found, -found.warm_steps) <= seconds
        assert PACE.seconds(longer, -longer.warm_steps) > seconds


def test_a_shorter_run_keeps_the_share_of_its_warm_start() -> None:
    cfg = config(steps=1000, warm_steps=200)
    lengths = [of_length(cfg, steps) for steps in (100, 500, 1000, 4000)]
    assert [each.warm_steps for each in lengths] == [20, 100, 200, 200]
    assert of_length(cfg, 100, keep_warm=True).warm_steps == 200


def test_no_time_for_anything() -> None:
    with pytest.raises(SincutError) as caught:
        fitted(config(lambda_r1=0.0), PACE, -3.0)
    assert str(caught.value) == (
        "--minutes must leave time for at least 10 steps after the start, of which one takes 2 s "
        "here; got 0 s left; try a larger --minutes or --preset draft"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minutes": "soon"}, "--minutes must be a number above 0, got soon; try --minutes 5"),
        ({"minutes": "-1"}, "--minutes must be a number above 0, got -1; try --minutes 5"),
        ({"minutes": "inf"}, "--minutes must be a number above 0, got inf; try --minutes 5"),
        (
            {"minutes": 5, "steps": 7},
            "--minutes and --steps both set the length, got 5 and 7; give one of them",
        ),
        (
            {"minutes": 5, "resume": True},
            "--minutes fits the length of a new run, and --resume keeps that of the old one; "
            "try --resume without it, with --steps to extend the run",
        ),
    ],
)
def test_minutes_that_cannot_be(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SincutError) as caught:
        sincut.train("content.png", "style.png", tmp_path / "run", **given)
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()
