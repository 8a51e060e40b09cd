"""How long a run takes: measured on networks that are thrown away, before it starts."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sincut.compute.cuda_graph import EAGER_CALLS
from sincut.compute.memory import peak_memory
from sincut.compute.processes import ALONE, Processes
from sincut.config.training import TrainConfig
from sincut.errors import SincutError
from sincut.runs.subject import Subject
from sincut.training.loop import Record, train
from sincut.training.state import STATE_FILE, State, save_state
from sincut.training.step import Kind, kind_of

# Timed steps of each kind, after those in which kernels are compiled and memory is found.
_TIMED = 3


@dataclass(frozen=True)
class Estimate:
    """Seconds of each thing that a run spends its time on, and bytes of memory at the peak.

    ``setup`` is what the loop needs beside its steps: tables, compiling, recording. ``save`` has
    the finish of the generator in it, which a preview at the same step shares.
    """

    setup: float
    warm: float
    plain: float
    with_r1: float
    preview: float
    save: float
    figures: float
    peak_bytes: int

    def step(self, config: TrainConfig) -> float:
        """Seconds of a SinCUT step, averaged over those with and without R1."""
        if not config.penalised:
            return self.plain
        return self.plain + (self.with_r1 - self.plain) / config.r1_every

    def seconds(self, config: TrainConfig, done: int) -> float:
        """Seconds from ``done`` steps (negative in the warm start) to the end of the run."""

        def due(every: int, first: int) -> int:
            """Multiples of ``every`` after ``first``, up to the last step."""
            return config.steps // every - first // every if every else 0

        def last(every: int) -> bool:
            """Whether something comes after the last step by itself."""
            return every == 0 or config.steps % every > 0

        started = max(done, 0)
        penalties = -(-config.steps // config.r1_every) + (-started // config.r1_every)
        penalties = penalties if config.penalised else 0
        # The first preview is that of the networks before their first SinCUT step, the first save
        # that of the networks as they are when the run begins.
        previews = due(config.preview_every, started) + last(config.preview_every) + (done <= 0)
        saves = due(config.checkpoint_every, done) + last(config.checkpoint_every) + 1
        return (
            self.setup
            + (config.steps - started) * self.plain
            + penalties * (self.with_r1 - self.plain)
            + (started - done) * self.warm
            + previews * self.preview
            + saves * self.save
            + due(config.evaluate_every, max(done, -1)) * self.figures
        )


def measure(subject: Subject, config: TrainConfig, processes: Processes = ALONE) -> Estimate:
    """Time some steps of every kind that the configuration has, and what is written on the way.

    Args:
        subject: what the run will be trained on; its figures are prepared where they will be asked
            for.
        config: resolved.
        processes: those that share the steps; the first times them, and what it writes.
    """
    first = EAGER_CALLS + 1 if config.device == "cuda" and config.record_steps else 1
    calls = first + _TIMED
    # Rare penalties are met soon, and again: only their time is wanted, not their rhythm.
    every = min(config.r1_every, 3)
    trial = config.replaced(
        steps=20 * every * calls, warm_steps=min(config.warm_steps, calls), r1_every=every
    )
    times: dict[Kind, list[float]] = {kind: [] for kind in _kinds(trial)}
    started = before = time.monotonic()

    def on_step(record: Record) -> bool:
        nonlocal before
        record.values()  # waits for the device
        now = time.monotonic()
        times[kind_of(record.step - 1, trial)].append(now - before)
        before = now
        return all(len(found) >= calls or kind.warm for kind, found in times.items())

    state = train(
        subject.data, trial, on_step, on_notice=lambda _: None, processes=processes
    )  # the run itself will tell
    trained = time.monotonic() - started
    return processes.by_first(lambda: _estimate(subject, config, state, times, first, trained))


def _estimate(
    subject: Subject,
    config: TrainConfig,
    state: State,
    times: dict[Kind, list[float]],
    first: int,
    trained: float,
) -> Estimate:
    """From the seconds of steps of each kind, those before ``first`` slow, ``trained`` in all."""
    of_kind = {
        kind: statistics.median(found[first:] or found) for kind, found in times.items() if found
    }
    steps = sum(len(found) * of_kind[kind] for kind, found in times.items() if found)

    def typical(**chosen: bool) -> float | None:
        found = [
            seconds
            for kind, seconds in of_kind.items()
            if all(getattr(kind, name) == value for name, value in chosen.items())
        ]
        return statistics.mean(found) if found else None

    with_r1 = typical(warm=False, with_r1=True)
    plain = typical(warm=False, with_r1=False) or with_r1 or 0.0
    before_finish = time.monotonic()
    generator = subject.final(state)
    finish = time.monotonic() - before_finish
    figures = 0.0
    if config.evaluate_every:
        figures = _seconds(lambda: subject.figures(generator))
    return Estimate(
        setup=max(trained - steps, 0.0),
        warm=typical(warm=True) or 0.0,
        plain=plain,
        with_r1=with_r1 or plain,
        preview=_seconds(lambda: subject.preview(generator, config)),
        # The model that is saved beside the state is about a fifth of it.
        save=finish + 1.2 * _seconds(lambda: _save(state)),
        figures=figures,
        peak_bytes=peak_memory(config.device),
    )


def _kinds(config: TrainConfig) -> list[Kind]:
    """The kinds of steps that a run of this configuration has."""
    penalties = {config.penalised, config.penalised and config.r1_every == 1}
    mirrors = {False, config.flip_equivariance}
    kinds = [Kind(with_r1=r1, mirrored=mirrored) for r1 in penalties for mirrored in mirrors]
    return [*kinds, Kind(warm=True)] if config.warm_steps else kinds


def of_length(config: TrainConfig, steps: int, *, keep_warm: bool = False) -> TrainConfig:
    """The configuration with another length; in a shorter run the warm start keeps its share.

    ``keep_warm`` leaves the warm start as it is.
    """
    share = 1.0 if keep_warm else min(1.0, steps / config.steps)
    return config.replaced(steps=steps, warm_steps=round(config.warm_steps * share))


def fitted(
    config: TrainConfig,
    estimate: Estimate,
    seconds: float,
    *,
    keep_warm: bool = False,
    reserved: float = 0.0,
) -> TrainConfig:
    """The longest configuration that ends within ``seconds``; ``keep_warm`` as above.

    ``reserved`` of them are for the report after it.

    Raises:
        SincutError: there is no time for even ten steps.
    """
    shortest = 10

    def needed(steps: int) -> float:
        changed = of_length(config, steps, keep_warm=keep_warm)
        return estimate.seconds(changed, -changed.warm_steps)

    seconds -= reserved
    if needed(shortest) > seconds:
        taken = f" beside {reserved:.0f} s for the report" if reserved else ""
        less = ", --no-report" if reserved else ""
        raise SincutError(
            f"--minutes must leave time for at least {shortest} steps after the start, of which "
            f"one takes {estimate.step(config):.2g} s here; got {max(seconds, 0):.0f} s "
            f"left{taken}; try a larger --minutes{less} or --preset draft"
        )
    low, high = shortest, 2 * shortest
    while needed(high) <= seconds and high < 1 << 40:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= seconds else (low, middle)
    return of_length(config, low, keep_warm=keep_warm)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _save(state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder) / STATE_FILE, state, {})
