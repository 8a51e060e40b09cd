"""How good a preset is after how many seconds of training.

The clock runs from the first network that is made to the last step; what it takes to translate and
measure on the way does not count. The figures are those of ``sincut evaluate``, of the content
translated at its own size by the averaged generator.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.plot import plot_quality
from benchmarks.record import write_result
from sincut.compute.precision import resolved
from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.pair import Pair
from sincut.evaluation.figures import Comparison
from sincut.images.reading.source import Pixels
from sincut.images.writing.png import write_png
from sincut.runs.estimate import fitted, measure
from sincut.runs.final_colours import final_generator, translated
from sincut.training.loop import Record, train
from sincut.training.state import State, new_state

RESULT = "time-to-quality.json"
PLOT = "time-to-quality.png"


clock = time.monotonic


@dataclass(frozen=True)
class Moments:
    """When a run is measured: ``count`` times, closer together at first, or every so often.

    ``seconds`` are of training; they come first where they are given. The end of the warm start and
    the last step are always measured.
    """

    count: int = 8
    seconds: float | None = None

    def steps(self, config: PairConfig) -> set[int]:
        """The steps after which to measure, as far as they are known beforehand."""
        known = {config.steps} | ({0} if config.warm_steps else set())
        if self.seconds is None:
            shares = [(index / self.count) ** 2 for index in range(1, self.count + 1)]
            known |= {max(1, round(share * config.steps)) for share in shares}
        return known


def directions(pair: Pair, *, both: bool) -> dict[str, Pair]:
    """The pair by the name of a direction; ``swapped`` has the style as the content."""
    content, style = pair
    found = {"given": pair}
    return found | {"swapped": Pair(style, content)} if both else found


def write(
    presets: list[str],
    pair: Pair,
    device: str,
    output: Path,
    *,
    seeds: int = 1,
    minutes: dict[str, float] | None = None,
    moments: Moments | None = None,
    both_directions: bool = False,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Train every preset, direction and seed; write rows, plot and final pictures into ``output``.

    The files are written anew after every run, so that an interruption leaves the finished ones.

    Args:
        pair: content and style, (H, W, 3) uint8 sRGB.
        minutes: by preset, what its length is fitted to, as by ``sincut train --minutes``.
        tell: gets every row when it is there.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    comparisons = {
        name: Comparison(*images) for name, images in directions(pair, both=both_directions).items()
    }
    for preset in presets:
        for name, images in directions(pair, both=both_directions).items():
            for seed in range(seeds):
                config = resolved(train_config(preset, device=device, seed=seed))
                if minutes and preset in minutes:
                    pace = measure(images, config, None)
                    config = fitted(config, pace, 60 * minutes[preset])
                found, picture = of_run(config, images, comparisons[name], moments or Moments())
                of_this = [{"preset": preset, "direction": name, **row} for row in found]
                for row in of_this:
                    tell(row)
                rows += of_this
                write_png(output / f"{preset}-{name}-seed-{seed}.png", picture)
                write_result(output / RESULT, device, rows)
                plot_quality(output / RESULT, output / PLOT)
    return rows


def of_run(
    config: PairConfig, pair: Pair, comparison: Comparison, moments: Moments
) -> tuple[list[dict[str, Any]], Pixels]:
    """Rows of one run of a resolved configuration, in order, and the last translation."""
    run = _Run(config, pair, comparison, moments)
    state = new_state(pair, config)
    train(pair, config, run.on_step, state)
    return run.rows, run.picture


class _Run:
    """The callback of the loop: measures what is due and takes its time off the clock."""

    def __init__(
        self, config: PairConfig, pair: Pair, comparison: Comparison, moments: Moments
    ) -> None:
        self.config, self.pair, self.comparison = config, pair, comparison
        self.known, self.every = moments.steps(config), moments.seconds
        self.rows: list[dict[str, Any]] = []
        self.picture = pair.content
        self.peak_bytes = 0
        self.measuring = 0.0  # seconds
        self._reset_peak()
        self.started = clock()
        self.due = self.started + self.every if self.every else float("inf")

    def on_step(self, record: Record) -> None:
        if record.step not in self.known and clock() - self.measuring < self.due:
            return
        record.values()  # waits for the device
        now = clock()
        seconds = now - self.started - self.measuring
        if self.every:
            self.due = self.started + self.every * (seconds // self.every + 1)
        self.rows.append(self._row(record.step, seconds, record.state))
        self.measuring += clock() - now

    def _row(self, step: int, seconds: float, state: State) -> dict[str, Any]:
        on_cuda = self.config.device == "cuda"
        if on_cuda:
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated())
        self.picture = translated(self.pair.content, final_generator(state, *self.pair))
        figures = dataclasses.asdict(self.comparison.figures(self.picture))
        self._reset_peak()  # of training, not of translating
        return {
            "seed": self.config.seed,
            "precision": self.config.precision,
            "step": step,
            "steps": self.config.steps,
            "seconds": seconds,
            **figures,
            "peak_bytes": self.peak_bytes if on_cuda else None,
        }

    def _reset_peak(self) -> None:
        if self.config.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
