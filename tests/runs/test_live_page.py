"""The live view: what the page is told, when, and that nothing said on it can harm it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import sincut
from sincut.errors import SincutError
from sincut.runs import live_page as live
from sincut.runs.estimate import Estimate
from sincut.runs.folder import RunImage, RunRecord, Session, read_run
from sincut.runs.live_page import LiveView, Thinned, live_page
from tests.conftest import TINY, heard

HOSTILE = '</script><img src=x onerror=alert(1)>"\u2028.png'


def told(run: Path) -> dict[str, Any]:
    """What ``live.js`` hands to the page."""
    match = re.fullmatch(
        r"sincutLive\((\{.*\})\);\n", (run / "live.js").read_bytes().decode("ascii")
    )
    assert match
    found: dict[str, Any] = json.loads(match[1])
    return found


def series(data: dict[str, Any]) -> dict[str, list[int]]:
    """The steps of every curve."""
    return {each["name"]: each["steps"] for chart in data["charts"] for each in chart["series"]}


def losses(step: int, seconds: float, speed: float = 2.0, **values: float) -> dict[str, Any]:
    return {
        "step": step, "steps": 6, "seconds": seconds, "steps_per_second": speed,
        "learning_rate": 0.002, "losses": values or {"G": 1.0},
    }  # fmt: skip


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now, self.costs = 1000.0, 0.0

    def monotonic(self) -> float:
        self.now += self.costs
        return self.now

    def time(self) -> float:
        return 5000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


@pytest.fixture
def fresh(tiny_run: Path, tmp_path: Path) -> RunRecord:
    """The run as it was before its first step, in a folder of its own."""
    return dataclasses.replace(read_run(tiny_run), folder=tmp_path, log=(), previews=())


def test_what_a_finished_run_says(tiny_run: Path) -> None:
    data = told(tiny_run)
    assert (data["state"], data["running"], data["patience"]) == ("finished", False, None)
    assert data["said"] == "Finished after 6 steps"
    assert (data["done"], data["of"]) == (8, 8)
    assert [name for name, _ in data["facts"]] == ["Step", "Time so far"]
    assert data["facts"][0] == ["Step", "6 of 6"]
    assert data["previews"] == [
        [0, "previews/000000.png"], [3, "previews/000003.png"], [6, "previews/000006.png"],
    ]  # fmt: skip
    assert all((tiny_run / path).is_file() for _, path in data["previews"])
    assert data["report"] == "report.html"
    assert (tiny_run / data["report"]).is_file()
    steps = series(data)
    assert steps["warm"] == [-1, 0]
    assert steps["G"] == steps["D_gan"] == steps["NCE_x"] == [1, 2, 3, 4, 5, 6]
    logged = read_run(tiny_run).series("losses")
    assert steps["R1"] == logged["R1"][0]
    (values,) = [
        each["values"]
        for chart in data["charts"]
        for each in chart["series"]
        if each["name"] == "G"
    ]
    assert values == pytest.approx(logged["G"][1], rel=1e-5)


def test_the_page_stands_by_itself_and_does_not_change(tiny_run: Path) -> None:
    page = (tiny_run / "index.html").read_text(encoding="utf-8")
    assert page == live_page(read_run(tiny_run))
    assert "content.png in the look of style.png</title>" in page
    assert "script-src 'unsafe-inline' 'self' file:" in page
    assert '<script type="application/json" id="source">"live.js"</script>' in page
    noscript = page.split("<noscript>")[1].split("</noscript>")[0]
    assert 'href="previews/"' in noscript
    assert 'href="log.jsonl"' in noscript
    for row in ("content.png, 160×128 pixels", "style.png, 144×120 pixels", "32", "fp32"):
        assert f"<td>{row}</td>" in page, row
    assert '<th scope="row">lambda_identity</th><td>1.0</td>' in page
    again = page.split("<h3>The same again</h3>")[1]
    assert again.startswith("<pre>sincut train content.png style.png -o tiny --preset draft")
    assert "<pre>sincut train content.png style.png -o tiny --resume</pre>" in page
    assert 'id="extended"' not in page


def test_the_page_of_an_extended_run_says_that_its_command_is_another(fresh: RunRecord) -> None:
    sessions = (Session(-2, 4, {}), Session(4, 6, {}))
    page = live_page(dataclasses.replace(fresh, sessions=sessions))
    again = page.split("<h3>The same settings again</h3>")[1]
    assert again.startswith(
        '<p class="soft" id="extended">The run was extended or shortened on its way (4 steps, then '
        "6 steps from step 4), and its learning rate followed each length&#x27;s schedule (linear)."
    )
    assert "which gives another model.</p><pre>sincut train " in again
    assert "The same again" not in page


def test_names_cannot_leave_their_place(fresh: RunRecord) -> None:
    image = RunImage(HOSTILE, 3, 4, "00")
    page = live_page(dataclasses.replace(fresh, content=image, style=image))
    assert "<img src=x" not in page
    assert page.count("</script>") == live_page(fresh).count("</script>")
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&quot;\u2028.png in the look" in page


def test_states_and_facts_on_the_way(fresh: RunRecord, clock: Clock) -> None:
    view = LiveView(fresh, -2, 125.0)
    data = told(fresh.folder)
    assert (data["state"], data["running"], data["done"], data["of"]) == ("warm start", True, 0, 8)
    assert data["said"] == "Warm start: learning the transfer of colours"
    assert data["facts"] == [
        ["Warm start", "0 of 2"], ["Step", "0 of 6"], ["Speed", "–"],
        ["Time left", "2 min 5 s"], ["Time so far", "0 s"],
    ]  # fmt: skip
    assert data["charts"] == data["previews"] == []

    view.record(losses(-1, 5.0, 0.2, warm=0.5))
    assert told(fresh.folder) == data  # less than two seconds ago
    clock.now += 2
    view.record(losses(0, 10.0, 0.2, warm=0.25))
    assert told(fresh.folder)["facts"][:1] == [["Warm start", "2 of 2"]]
    assert told(fresh.folder)["facts"][3:] == [["Time left", "1 min 55 s"], ["Time so far", "10 s"]]

    clock.now += 2
    view.record(losses(1, 40.0, 1 / 30, G=2.0))
    data = told(fresh.folder)
    assert (data["state"], data["said"]) == ("training", "Training")
    assert data["facts"] == [
        ["Step", "1 of 6"], ["Speed", "0.0333 steps/s"], ["Time left", "2 min 30 s"],
        ["Time so far", "40 s"],
    ]  # fmt: skip
    assert data["every"] == 30.0
    clock.now += 2
    view.record(losses(2, 60.0, 1 / 20, G=2.0))
    assert told(fresh.folder)["facts"][2] == ["Time left", "1 min 40 s"]  # 25 s a step by now

    view.preview(2, None)  # at once
    assert told(fresh.folder)["previews"] == [[2, "previews/000002.png"]]
    view.report = "report.html"
    view.close("interrupted", 3)  # saved between two records
    data = told(fresh.folder)
    assert (data["state"], data["running"]) == ("interrupted", False)
    assert data["said"] == "Interrupted after 3 of 6 steps and saved"
    assert data["facts"][0] == ["Step", "3 of 6"]
    assert (data["done"], data["of"]) == (5, 8)
    assert data["report"] == "report.html"
    view.close("stopped", 2)
    data = told(fresh.folder)
    assert data["said"] == "Stopped before the end; the terminal says why"
    assert data["facts"][0] == ["Step", "2 of 6"]


def test_what_is_closed_in_the_warm_start_stays_there(fresh: RunRecord) -> None:
    view = LiveView(fresh, -2)
    view.record(losses(-1, 5.0, warm=0.5))
    view.close("interrupted", 0)
    data = told(fresh.folder)
    assert data["said"] == "Interrupted after 0 of 6 steps and saved"
    assert (data["done"], data["of"]) == (1, 8)


def test_a_slow_run_is_not_taken_for_dead(fresh: RunRecord, clock: Clock) -> None:
    config = dataclasses.replace(fresh.config, log_every=10)
    run = dataclasses.replace(fresh, config=config)

    def patience(view: LiveView, seconds: float) -> float:
        """What is told after a record at that time, which must be more than a record takes."""
        clock.now += 1000
        view.record(losses(view.step + 10, seconds))
        found = told(fresh.folder)["patience"]
        assert found > 167
        return float(found)

    view = LiveView(run, 0, 10_000.0, seconds_per_step=16.7)
    assert told(fresh.folder)["every"] == 167.0
    assert told(fresh.folder)["patience"] == 1670.0
    assert patience(view, 167.0) == 1670.0
    assert patience(view, 334.0) == 1670.0
    assert patience(view, 834.0) == 3335.0  # slower than foreseen, on the average so far

    # Quick steps of the warm start say nothing about the slow ones to come.
    view = LiveView(dataclasses.replace(run, config=config.replaced(warm_steps=30)), -30, 1e4,
                    seconds_per_step=16.7)  # fmt: skip
    for index in range(3):
        clock.now += 1000
        view.record(losses(-20 + 10 * index, 10.0 * (index + 1), warm=0.5))
        assert told(fresh.folder)["patience"] == 1670.0
    assert told(fresh.folder)["every"] == 10.0


def test_a_quick_run_is_taken_for_dead_after_a_minute_but_never_in_its_report(
    fresh: RunRecord,
) -> None:
    view = LiveView(fresh, 0, 10.0, seconds_per_step=0.01)
    assert told(fresh.folder)["patience"] == 60.0
    view.close("reporting", 6)
    data = told(fresh.folder)
    assert (data["running"], data["patience"]) == (True, None)
    view.close("interrupted", 6)
    assert told(fresh.folder)["patience"] is None


def test_figures_are_waited_for(fresh: RunRecord) -> None:
    config = dataclasses.replace(fresh.config, evaluate_every=100)
    image = RunImage("large.png", 4000, 2000, "00")
    LiveView(dataclasses.replace(fresh, config=config, content=image, style=image), 0)
    assert told(fresh.folder)["patience"] == 60.0 + 16 * 60.0


def test_a_slow_disk_gets_a_hundredth_of_the_time(fresh: RunRecord, clock: Clock) -> None:
    view = LiveView(fresh, 0)
    clock.costs = 0.5  # each time that the clock is asked
    clock.now += 10
    view.record(losses(1, 1.0))
    assert told(fresh.folder)["facts"][0] == ["Step", "1 of 6"]
    clock.costs = 0.0
    clock.now += 49
    view.record(losses(2, 2.0))
    assert told(fresh.folder)["facts"][0] == ["Step", "1 of 6"]
    clock.now += 2
    view.record(losses(3, 3.0))
    assert told(fresh.folder)["facts"][0] == ["Step", "3 of 6"]


def test_a_long_log_is_thinned_out_by_kind() -> None:
    thinned = Thinned()
    count = 10_000
    for step in range(count):
        penalty = {"R1": 1.0} if step % 8 == 7 else {}  # at odd places only
        thinned.add(losses(step, 1.0, G=1.0, **penalty))
        if step % 1000 == 0:
            thinned.add({"step": step, "seconds": 1.0, "figures": {"S1": 0.5}})
    records = thinned.records()
    assert len(records) <= 3 * 512
    steps = [record["step"] for record in records]
    assert steps == sorted(steps)
    penalties = [each["step"] for each in records if "R1" in each.get("losses", {})]
    assert penalties[0] == 7
    assert penalties[-1] == 9999
    assert len(penalties) > 256
    assert max(b - a for a, b in pairwise(penalties)) <= 8 * 8
    plain = [s["step"] for s in records if "R1" not in s.get("losses", {"R1": 0})]
    assert (plain[0], plain[-1]) == (0, 9998)
    assert max(b - a for a, b in pairwise(plain)) <= 64
    assert [each["step"] for each in records if "figures" in each] == list(range(0, count, 1000))


def test_a_short_log_is_shown_whole(fresh: RunRecord) -> None:
    log = tuple(losses(step, step, G=step) for step in range(1, 500))
    view = LiveView(dataclasses.replace(fresh, log=log), 499)
    assert series(view.data("training"))["G"] == list(range(1, 500))


def test_figures_without_a_value_are_no_harm(fresh: RunRecord) -> None:
    view = LiveView(fresh, 0)
    view.record({"step": 1, "seconds": 1.0, "figures": {"S1": float("nan"), "S3": 0.5}})
    view.close("finished", 1)
    assert series(told(fresh.folder)) == {"S3": [1]}


@pytest.fixture
def estimate(monkeypatch: pytest.MonkeyPatch) -> Estimate:
    """What every run is told of this machine, instead of measuring it: 20 seconds a step."""
    estimate = Estimate(1.0, 1.0, 20.0, 20.0, 0.5, 0.1, 0.0, 1000)
    monkeypatch.setattr("sincut.runs.train.measure", lambda *_: estimate)
    return estimate


class Killed(BaseException):
    pass


def at(step: int, action: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["step"] == step:
            action()

    return listen


def killed() -> None:
    raise Killed


def test_after_an_error_and_a_kill_it_goes_on_with_the_whole_history(
    tiny_run: Path,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    estimate: Estimate,
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        sincut.train(*pair, run, report=False, **TINY, listener=heard(at(5, killed)))
    data = told(run)
    assert (data["state"], data["running"]) == ("stopped", False)
    assert data["facts"][0] == ["Step", "4 of 6"]  # as it is saved
    assert series(data)["G"] == [1, 2, 3, 4, 5]

    # As a kill leaves it: a record and a preview beyond the saved step 4, and no last word.
    shutil.copy(run / "previews/000003.png", run / "previews/000005.png")
    states = []
    write = LiveView._write

    def noted(view: LiveView, state: str) -> None:
        write(view, state)
        states.append((state, told(view.run.folder)))

    monkeypatch.setattr(LiveView, "_write", noted)
    sincut.train(*pair, run, resume=True, report=False)
    state, first = states[0]
    assert state == "training"
    assert series(first)["G"] == [1, 2, 3, 4]
    assert [step for step, _ in first["previews"]] == [0, 3]
    assert first["facts"][0] == ["Step", "4 of 6"]
    assert first["facts"][2] == ["Time left", f"{estimate.seconds(read_run(run).config, 4):.0f} s"]
    assert first["patience"] == 10 * 20.0
    done = told(run)
    assert series(done) == series(told(tiny_run))
    assert [step for step, _ in done["previews"]] == [0, 3, 6]
    assert done["state"] == "finished"


def test_interrupted_and_extended(
    pair: tuple[Path, Path], tmp_path: Path, estimate: Estimate
) -> None:
    run = tmp_path / "run"

    def interrupt(record: dict[str, Any]) -> None:
        if record["event"] == "preview" and record["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    sincut.train(*pair, run, **{**TINY, "log_every": 4}, listener=heard(interrupt))
    data = told(run)
    assert data["said"] == "Interrupted after 3 of 6 steps and saved"  # by its preview, not a log
    assert data["facts"][0] == ["Step", "3 of 6"]
    sincut.train(*pair, run, resume=True, steps=7, report=False)
    assert told(run)["said"] == "Finished after 7 steps"
    page = (run / "index.html").read_text("utf-8")
    assert '<th scope="row">steps</th><td>7</td>' in page
    assert "(6 steps, then 7 steps from step 3)" in page


def test_divergence_is_told(pair: tuple[Path, Path], tmp_path: Path, estimate: Estimate) -> None:
    changes = {"warm_steps": 0, "learning_rate": 1.0, "lambda_identity": 1e39, "steps": 50}
    with pytest.raises(SincutError, match="training diverged"):
        sincut.train(*pair, tmp_path / "run", **{**TINY, **changes})
    assert told(tmp_path / "run")["state"] == "stopped"


def test_what_cannot_be_written_is_said(fresh: RunRecord) -> None:
    view = LiveView(fresh, 0)
    (fresh.folder / "live.js").unlink()
    (fresh.folder / "live.js").mkdir()
    with pytest.raises(SincutError) as caught:
        view.preview(0, None)
    assert str(caught.value) == (
        f"cannot write {fresh.folder / 'live.js'} (Is a directory); check the place and its free "
        "space"
    )
