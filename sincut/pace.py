"""How long a run takes: measured on networks that are thrown away, before it starts."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sincut.checkpoint import STATE_FILE, State, save_state
from sincut.config import TrainConfig, TranslateConfig
from sincut.devices import peak_memory
from sincut.errors import SincutError
from sincut.quality import Comparison
from sincut.replay import EAGER_CALLS
from sincut.training import Kind, Record, kind_of, train
from sincut.translation import translate_pixels

Pixels = npt.NDArray[np.uint8]

# Timed steps of each kind, after those in which kernels are compiled and memory is found.
_TIMED = 3


@dataclass(frozen=True)
class Pace:
    """Seconds of each thing that a run spends its time on, and bytes of memory at the peak."""

    warm: float
    plain: float
    with_r1: float
    preview: float
    save: float
    figures: float
    peak_bytes: int

    def step(self, config: TrainConfig) -> float:
        """Seconds of a SinCUT step, averaged over those with and without R1."""
        if config.lambda_r1 == 0:
            return self.plain
        return self.plain + (self.with_r1 - self.plain) / config.r1_every

    def seconds(self, config: TrainConfig, done: int) -> float:
        """Seconds from ``done`` steps (negative in the warm start) to the end of the run."""

        def due(every: int) -> int:
            return config.steps // every - max(done, 0) // every if every else 0

        steps, warm = config.steps - max(done, 0), done < 0
        return (
            steps * self.step(config)
            + max(-done, 0) * self.warm
            + (due(config.preview_every) + 1) * self.preview
            + (due(config.checkpoint_every) + 1) * self.save
            + (due(config.evaluate_every) + (warm if config.evaluate_every else 0)) * self.figures
        )


def measure(
    content: Pixels, style: Pixels, config: TrainConfig, comparison: Comparison | None
) -> Pace:
    """Time some steps of every kind that the configuration has, and what is written on the way.

    Args:
        content, style: (H, W, 3) uint8 sRGB.
        config: resolved.
        comparison: of the pair, where figures will be asked for.
    """
    first = EAGER_CALLS + 1 if config.device == "cuda" and config.record_steps else 1
    calls = first + _TIMED
    # Rare penalties are met soon, and again: only their time is wanted, not their rhythm.
    every = min(config.r1_every, 3)
    trial = config.replaced(
        steps=every * calls, warm_steps=min(config.warm_steps, calls), r1_every=every
    )
    times: dict[Kind, list[float]] = defaultdict(list)
    before = time.monotonic()

    def on_step(record: Record) -> None:
        nonlocal before
        record.values()  # waits for the device
        now = time.monotonic()
        kind = kind_of(record.step - 1, trial)._replace(mirrored=False)
        times[kind].append(now - before)
        before = now

    state = train(content, style, trial, on_step)
    of_kind = {kind: statistics.median(found[first:] or found) for kind, found in times.items()}
    plain = of_kind.get(Kind(), of_kind.get(Kind(with_r1=True), 0.0))
    return Pace(
        warm=of_kind.get(Kind(warm=True), 0.0),
        plain=plain,
        with_r1=of_kind.get(Kind(with_r1=True), plain),
        preview=_preview_seconds(content, state, config),
        save=_save_seconds(state),
        figures=_figures_seconds(content, state, comparison) if comparison else 0.0,
        peak_bytes=peak_memory(config.device),
    )


def of_length(config: TrainConfig, steps: int) -> TrainConfig:
    """The configuration with another length; in a shorter run the warm start keeps its share."""
    share = min(1.0, steps / config.steps)
    return config.replaced(steps=steps, warm_steps=round(config.warm_steps * share))


def fitted(config: TrainConfig, pace: Pace, seconds: float) -> TrainConfig:
    """The longest configuration that ends within ``seconds``.

    Raises:
        SincutError: there is no time for even ten steps.
    """
    shortest = 10

    def needed(steps: int) -> float:
        changed = of_length(config, steps)
        return pace.seconds(changed, -changed.warm_steps)

    if needed(shortest) > seconds:
        raise SincutError(
            f"--minutes must leave time for at least {shortest} steps after the start, of which "
            f"one takes {pace.step(config):.2g} s here; got {max(seconds, 0):.0f} s left; try a "
            "larger --minutes or --preset draft"
        )
    low, high = shortest, 2 * shortest
    while needed(high) <= seconds and high < 1 << 40:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= seconds else (low, middle)
    return of_length(config, low)


def preview_of(content: Pixels, state: State, config: TrainConfig) -> Pixels:
    """The content at most ``preview_width`` wide, translated by the averaged generator."""
    small = Image.fromarray(content)
    small.thumbnail((config.preview_width,) * 2, Image.Resampling.BILINEAR)
    return translated(np.asarray(small), state)


def translated(content: Pixels, state: State) -> Pixels:
    """The content at its own size, translated by the averaged generator in float32."""
    return translate_pixels(state.averaged_generator, content, TranslateConfig(precision="fp32"))


def _preview_seconds(content: Pixels, state: State, config: TrainConfig) -> float:
    started = time.monotonic()
    preview_of(content, state, config)
    return time.monotonic() - started


def _save_seconds(state: State) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        save_state(Path(folder) / STATE_FILE, state, {})
        # The model that is saved beside it is about a fifth of the state.
        return 1.2 * (time.monotonic() - started)


def _figures_seconds(content: Pixels, state: State, comparison: Comparison) -> float:
    started = time.monotonic()
    comparison.figures(translated(content, state))
    return time.monotonic() - started
