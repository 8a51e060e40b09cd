"""A training step: ours, as the training loop runs it, against the literal one.

Correctness comes first: from the same networks, crops and random numbers every method must find the
same terms, and in float32 the same gradients, or nothing is reported. Then the methods take turns,
so that whatever else a shared machine does hits all of them alike.

A step of ours is all that training does for it, crops and averaging included. The
literal one keeps no average. On CUDA nothing waits for the device but the ends of the timed blocks.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.crops import compare as compare_crops
from benchmarks.literal import (
    EAGER,
    OrdinaryDraws,
    Parts,
    compiled_parts,
    literal_state,
    literal_step,
    pillow_crops,
)
from sincut.compute.cuda_graph import EAGER_CALLS
from sincut.compute.devices import convolutions
from sincut.compute.precision import resolved
from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.crops import ResidentImage
from sincut.data.pair import Pair
from sincut.data.random_numbers import RandomNumbers
from sincut.demo import render_content, render_style
from sincut.kernels.patch_nce import patch_nce_reference
from sincut.training import losses
from sincut.training import step as training
from sincut.training.loop import Record, train
from sincut.training.state import State, initial_state, new_state

ROUNDS = {"cpu": 3, "cuda": 5}
STEPS = {"cpu": 3, "cuda": 1000}
SHORTER = {"cpu": 1, "cuda": 10}  # the literal steps' blocks: they are slow enough to time
ENDLESS = 10**9
PREPARED = 4  # steps whose crops are kept on the device and taken in turn

# Largest relative difference of a term in the first step, by what convolutions compute in.
ALLOWED = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 5e-2}
LATER = 5  # times as much in the steps that follow, in which differences grow
# The objective of the comparison; presets may leave terms out, and add some of ours.
ALL_TERMS: dict[str, Any] = {
    "r1_every": 1,
    "lambda_r1": 1.0,
    "lambda_painting": 0.0,
    "lambda_strokes": 0.0,
    "lambda_x": 4.0,
    "lambda_y": 4.0,
    "lambda_identity": 1.0,
}
ALLOWED_GRADIENT = 1e-2  # of its length, in fp32: D's first step of Adam turns rounding into signs


@dataclass(frozen=True)
class Course:
    """The terms of some first steps, and the gradients that the very first one left, by network."""

    terms: list[dict[str, float]]
    gradients: dict[str, Tensor]


class Literal:
    """The literal step, on crops made by Pillow or prepared beforehand."""

    def __init__(
        self,
        name: str,
        config: PairConfig,
        pair: Pair,
        *,
        precision: str = "fp32",
        parts: Parts = EAGER,
        pillow: bool = False,
    ) -> None:
        self.name, self.config, self.pair, self.precision = name, config, pair, precision
        self.parts, self.pillow = parts, pillow
        self.state = literal_state(config)
        self.prepared = [
            (x.contiguous(), y.contiguous())
            for x, y, _ in _drawn(pair, config, steps=range(PREPARED))
        ]

    def course(self, count: int) -> Course:
        """The first steps, on the crops and random numbers of ours."""
        _turn_noise_on(self.state)
        terms, gradients = [], {}
        with convolutions(self.precision):
            for x, y, draws in _drawn(self.pair, self.config, steps=range(count)):
                found = self._step(x.contiguous(), y.contiguous(), draws)
                terms.append({name: value.item() for name, value in found.items()})
                gradients = gradients or _gradients(self.state)
        return Course(terms, gradients)

    def run(self, before: int, timed: int) -> float:
        """Milliseconds a step over ``timed`` steps, after some that are not timed."""
        device = self.config.device
        draws = OrdinaryDraws(device)
        with convolutions(self.precision, search=True):
            for x, y in self._crops(before):
                self._step(x, y, draws)
            synchronise(device)
            started = time.perf_counter()
            for x, y in self._crops(timed):
                self._step(x, y, draws)
            synchronise(device)
            return 1e3 * (time.perf_counter() - started) / timed

    def _crops(self, count: int) -> Iterable[tuple[Tensor, Tensor]]:
        if self.pillow:
            return pillow_crops(*self.pair, self.config, self.state.step, count)
        return (self.prepared[step % PREPARED] for step in range(count))

    def _step(self, x: Tensor, y: Tensor, draws: Any) -> dict[str, Tensor]:
        if self.parts is not EAGER and self.config.device == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        device = self.config.device
        return literal_step(self.state, x.to(device), y.to(device), self.config, draws, self.parts)


@dataclass
class Ours:
    """Our step under a resolved configuration, within a context that may change the program."""

    name: str
    config: PairConfig
    pair: Pair
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = self._laid_out(new_state(self.pair, self.config))

    @property
    def precision(self) -> str:
        """What convolutions compute in."""
        return self.config.precision

    def course(self, count: int) -> Course:
        """The first steps, with all terms in all of them."""
        config = self.config.replaced(**ALL_TERMS)
        state = self._laid_out(initial_state(config))
        _turn_noise_on(state)
        terms: list[dict[str, float]] = []
        gradients: dict[str, Tensor] = {}

        def on_step(record: Record) -> bool:
            terms.append(record.values())
            if record.step == 1:
                gradients.update(_gradients(record.state))
            return record.step == count

        with self.around():
            train(self.pair, config, on_step, state)
        return Course(terms, gradients)

    def run(self, before: int, timed: int) -> float:
        """Milliseconds a step over ``timed`` steps, after at least one that is not timed."""
        device, first = self.config.device, self.state.step
        marks = []

        def on_step(record: Record) -> bool:
            done = record.step - first
            if done in (before, before + timed):
                synchronise(device)
                marks.append(time.perf_counter())
            return done == before + timed

        with self.around():
            train(self.pair, self.config, on_step, self.state)
        return 1e3 * (marks[1] - marks[0]) / timed

    def _laid_out(self, state: State) -> State:
        """The state, its networks in the memory order that is asked for."""
        if self.around is rows_of_pixels:
            for network in state.networks().values():
                network.to(memory_format=torch.contiguous_format)
        return state


Method = Literal | Ours


@dataclass
class Trial:
    """A method with what has been found of it so far."""

    method: Method
    error: str | None = None
    peak_bytes: int | None = None
    times: list[float] = field(default_factory=list)  # milliseconds a step, one for every round
    timed_steps: int = 0


def example_pair() -> Pair:
    """The project's own pair at 1024×768."""
    return Pair(render_content(1024, 768), render_style(1024, 768))


def measure(
    preset: str, device: str, pair: Pair, *, steps: int | None = None, compiled: bool = True
) -> list[dict[str, Any]]:
    """Rows for one preset: the literal step in its forms, then ours.

    Args:
        pair: content and style, (H, W, 3) uint8.
        steps: timed steps of ours in all rounds together; the literal ones do fewer on CUDA.
        compiled: time torch.compile, too.
    """
    torch._dynamo.reset()  # what was compiled for another preset counts as a recompilation
    shipped = configuration(preset, device)
    fp32 = shipped.replaced(precision="fp32", **ALL_TERMS)
    check_crops(pair, fp32)
    fastest = resolved(fp32.replaced(precision="auto"))
    literal = partial(Literal, config=fp32, pair=pair)
    # PyTorch's default, which whoever runs the literal step gets; without CUDA it means nothing.
    default = "tf32" if device == "cuda" else "fp32"

    builders: list[Callable[[], Method]] = [
        lambda: literal("literal, Pillow crops", precision=default, pillow=True),
        lambda: literal("literal, prepared crops", precision=default),
    ]
    if device == "cuda":
        builders.append(lambda: literal("literal, prepared crops, no TF32"))
    if compiled:
        modes = [None, "reduce-overhead"] if device == "cuda" else [None]
        builders += [partial(_compiled, literal, mode, default) for mode in modes]
    ours = {"ours, fp32": fp32, f"ours, {fastest.precision}": fastest}
    if shipped not in ours.values():
        ours["ours, as shipped"] = shipped
    builders += [partial(Ours, name, config, pair) for name, config in ours.items()]

    trials = timed(builders, fp32, pair, steps or STEPS[device])
    rows = [_row(trial, preset) for trial in trials]
    pillow, prepared = (row["ms_per_step"] for row in rows[:2])
    for row in rows:
        own = row["ms_per_step"]
        row["faster_than_literal"] = pillow / own if own else None
        row["faster_than_prepared"] = prepared / own if own else None
    return rows


def changes(
    preset: str, device: str, pair: Pair, *, steps: int | None = None
) -> list[dict[str, Any]]:
    """Rows for one preset as shipped, in the fastest precision, and with one change taken away."""
    base = resolved(configuration(preset, device).replaced(precision="auto"))
    variants = {
        "R1 in every step": base.replaced(r1_every=1),
        "fp32": base.replaced(precision="fp32"),
    }
    if device == "cuda":
        variants["no recorded steps"] = base.replaced(record_steps=False)
    builders = [partial(Ours, "ours", base, pair)]
    builders += [
        partial(Ours, f"ours, {name}", config, pair)
        for name, config in variants.items()
        if config != base
    ]
    builders.append(partial(Ours, "ours, no channels last", base, pair, rows_of_pixels))
    if device == "cuda":
        builders.append(partial(Ours, "ours, eager PatchNCE", base, pair, eager_patch_nce))
    reference = base.replaced(precision="fp32", **ALL_TERMS)
    rows = [
        _row(trial, preset) for trial in timed(builders, reference, pair, steps or STEPS[device])
    ]
    for row in rows:
        row["times_ours"] = row["ms_per_step"] / rows[0]["ms_per_step"]
    return rows


def timed(
    builders: Iterable[Callable[[], Method]], config: PairConfig, pair: Pair, steps: int
) -> list[Trial]:
    """Compare every method with the literal step under ``config``, then time them in turns.

    Raises:
        RuntimeError: a method's terms or gradients are off.
    """
    device = config.device
    # On CUDA far enough that recorded steps are compared, too.
    count = EAGER_CALLS + 2 if device == "cuda" else 1
    expected = Literal("literal", config, pair).course(count)
    trials = [_checked(build, expected, device) for build in builders]
    for _ in range(ROUNDS[device]):
        for trial in trials:
            if trial.error is None:
                before, block = _lengths(trial.method, steps)
                trial.times.append(trial.method.run(before, block))
                trial.timed_steps += block
                _let_go(device)
    return trials


def check_crops(pair: Pair, config: PairConfig) -> None:
    """Raise where Pillow's crops and ours differ."""
    compare_crops(pair, pair.feed(config, warm=False))


def check(found: Course, expected: Course, name: str, precision: str) -> None:
    """Raise where terms, or in float32 the gradients of the first step, are off."""
    pairs = zip(found.terms, expected.terms, strict=True)
    for step, (ours, literal) in enumerate(pairs, start=1):
        allowed = ALLOWED[precision] * (LATER if step > 1 else 1)
        for term in sorted(ours.keys() & literal.keys()):
            off = abs(ours[term] - literal[term])
            if not off <= allowed * abs(literal[term]) + 1e-6:
                raise RuntimeError(
                    f"{name}: {term} of step {step} is {ours[term]:.6g}, "
                    f"of the literal step {literal[term]:.6g}"
                )
    if precision == "fp32":
        for network, gradient in expected.gradients.items():
            off = ((found.gradients[network] - gradient).norm() / gradient.norm()).item()
            if not off <= ALLOWED_GRADIENT:
                raise RuntimeError(f"{name}: the gradient of the {network} is off by {off:.2g}")


@contextlib.contextmanager
def rows_of_pixels() -> Iterator[None]:
    """Within it crops and tiles are not channels last; :class:`Ours` sees to the networks."""

    def contiguous(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **options: function(*args, **options).contiguous()

    with (
        patch.object(ResidentImage, "crops", contiguous(ResidentImage.crops)),
        patch.object(training, "cut_tiles", contiguous(training.cut_tiles)),
    ):
        yield


@contextlib.contextmanager
def eager_patch_nce() -> Iterator[None]:
    """Within it training uses the reference of PatchNCE instead of the kernels."""

    def reference(queries: Any, keys: Any, **options: Any) -> list[Tensor]:
        return [patch_nce_reference(q, k, **options) for q, k in zip(queries, keys, strict=True)]

    with patch.object(losses, "multilayer_patch_nce", reference):
        yield


def configuration(preset: str, device: str) -> PairConfig:
    """The preset as shipped, resolved, without a warm start or an end."""
    return resolved(train_config(preset, device=device, warm_steps=0, steps=ENDLESS))


def shapes(config: PairConfig) -> str:
    """Crops, patches, networks."""
    return (
        f"{config.batch} of {config.crop}², {config.patches} patches, c = {config.channels}, "
        f"D {config.discriminator_channels} on {config.tile}²"
    )


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def _compiled(literal: Callable[..., Literal], mode: str | None, precision: str) -> Literal:
    name = "literal, torch.compile" + (f" {mode}" if mode else "")
    return literal(name, precision=precision, parts=compiled_parts(mode))


def _checked(build: Callable[[], Method], expected: Course, device: str) -> Trial:
    """The method, compared with what is expected, warm, and with its peak of memory."""
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    method = build()
    trial = Trial(method)
    try:
        found = method.course(len(expected.terms))
        if device == "cuda":
            warm, _ = _lengths(method, 1)
            method.run(warm, 1)  # in which cuDNN tries algorithms that take more memory
            _let_go(device)
            torch.cuda.reset_peak_memory_stats()
            method.run(warm, 1)
            trial.peak_bytes = torch.cuda.max_memory_allocated() - before
    except Exception as error:
        if not isinstance(method, Literal) or method.parts is EAGER:
            raise
        # What the compiler cannot do is a result, not a failure of the measurement.
        trial.error = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return trial
    finally:
        _let_go(device)
    check(found, expected, method.name, method.precision)
    return trial


def _lengths(method: Method, steps: int) -> tuple[int, int]:
    """Steps of a round before the clock runs, and timed."""
    device = method.config.device
    block = math.ceil(steps / ROUNDS[device])
    if isinstance(method, Literal):
        return (2 if device == "cuda" else 0), math.ceil(block / SHORTER[device])
    # Whole periods of R1, after every kind of step has been recorded.
    every = method.config.r1_every
    before = (EAGER_CALLS + 2) * every if device == "cuda" else 1
    return before, math.ceil(block / every) * every


def _row(trial: Trial, preset: str) -> dict[str, Any]:
    config, method = trial.method.config, trial.method
    low = median = high = None
    if trial.times:
        quantiles = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        low, median, high = torch.tensor(trial.times).double().quantile(quantiles).tolist()
    all_steps = train_config(preset).steps
    row = {
        "preset": preset,
        "method": method.name,
        "shapes": shapes(config),
        "precision": method.precision,
        "r1_every": config.r1_every,
        "ms_per_step": median,
        "p20_ms": low,
        "p80_ms": high,
        "steps_per_second": 1e3 / median if median else None,
        "peak_bytes": trial.peak_bytes,
        "timed_steps": trial.timed_steps,
        "hours_for_all_steps": median * all_steps / 3.6e6 if median else None,
        "hours_are": "extrapolated",
    }
    return {**row, "error": trial.error} if trial.error else row


def _drawn(
    pair: Pair, config: PairConfig, steps: Iterable[int]
) -> Iterator[tuple[Tensor, Tensor, RandomNumbers]]:
    """Crops of content and style and the random numbers of these steps, as training draws them."""
    feed = pair.feed(config, warm=False)
    for step in steps:
        feed.prepare(step)
        draws = RandomNumbers(config.seed, torch.tensor(step, device=config.device))
        x, y, _ = feed.draw(draws)
        yield x, y, draws


def _turn_noise_on(state: State) -> None:
    """Noise has weight 0 at first, so that nobody would see a wrong one."""
    for layer in state.generator.upsampling:
        torch.nn.init.constant_(layer.noise_weight, 0.2)


def _gradients(state: State) -> dict[str, Tensor]:
    return {
        name: torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).cpu()
        for name, network in state.networks().items()
        if not name.startswith("averaged")
    }


def _let_go(device: str) -> None:
    """Every training has a stream of its own, whose memory no other one can use."""
    if device == "cuda":
        torch.cuda.empty_cache()
