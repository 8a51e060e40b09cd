"""Where a training step's time goes: eager and recorded, kernel by kernel, beside a floor.

The floor is what convolutions and matrix products need at the least: their operations at the rate
of the GPU's matrix units in bf16, or their inputs and outputs, moved once, at its memory's rate,
whichever is longer. Everything else could in principle be done on the way.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.patch_nce import peaks
from benchmarks.train_step import ENDLESS, example_pair, synchronise
from sincut.compute.cuda_graph import EAGER_CALLS
from sincut.compute.precision import resolved
from sincut.config.presets import train_config
from sincut.config.training import PairConfig
from sincut.data.pair import Pair
from sincut.training.loop import Record, train
from sincut.training.state import new_state

STEPS = {"cuda": 96, "cpu": 2}


def measure(preset: str, device: str, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Milliseconds a step, memory, the floor, and the kernels of a step by time.

    Averages over whole periods of R1. ``tell`` gets the figures before the kernels are there.
    """
    pair = example_pair()
    config = resolved(
        train_config(preset, device=device, warm_steps=0, steps=ENDLESS, log_every=ENDLESS)
    )
    found: dict[str, Any] = {"preset": preset, "precision": config.precision}
    for name, recorded in (("recorded", True), ("eager", False)):
        if device == "cpu" and recorded:
            continue
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        course = _Course(config.replaced(record_steps=recorded), pair)
        found[f"{name}_ms"] = course.milliseconds(STEPS[device])
        found[f"{name}_seconds_to_the_first_timed_step"] = course.seconds_before
        if device == "cuda":
            found[f"{name}_peak_bytes"] = torch.cuda.max_memory_allocated()
    found |= _floor(config.replaced(record_steps=False), pair)
    fastest = found.get("recorded_ms", found["eager_ms"])
    found["times_the_floor"] = fastest / found["floor_ms"]
    tell(found)
    found["kernels"] = _kernels(config, pair)
    return found


class _Course:
    """A training that stops after what was asked for."""

    def __init__(self, config: PairConfig, pair: Pair) -> None:
        self.config, self.pair = config, pair
        self.seconds_before = 0.0
        # After every kind of step has been recorded.
        self.before = (EAGER_CALLS + 2) * config.r1_every if config.device == "cuda" else 1

    def milliseconds(self, steps: int) -> float:
        """A step's mean over whole periods of R1, at least ``steps`` steps."""
        every = self.config.r1_every
        steps = -(-steps // every) * every
        marks = [time.perf_counter()]

        def on_step(record: Record) -> bool:
            if record.step in (self.before, self.before + steps):
                synchronise(self.config.device)
                marks.append(time.perf_counter())
            return record.step == self.before + steps

        self._train(on_step)
        self.seconds_before = marks[1] - marks[0]
        return 1e3 * (marks[2] - marks[1]) / steps

    def within(self, context: Any) -> int:
        """Run one period of R1 within a context; the number of its steps."""
        every = self.config.r1_every
        with contextlib.ExitStack() as stack:

            def on_step(record: Record) -> bool:
                synchronise(self.config.device)
                if record.step == self.before:
                    stack.enter_context(context)
                if record.step == self.before + every:
                    stack.close()
                return record.step == self.before + every

            self._train(on_step)
        return every

    def _train(self, on_step: Callable[[Record], bool]) -> None:
        train(self.pair, self.config, on_step, new_state(self.pair, self.config))


class _Counted(TorchDispatchMode):
    """Counts what products compute, and what they read and write, each tensor once."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
            made = result if isinstance(result, Sequence) else [result]
            self.bytes += sum(
                each.nbytes for each in (*args, *made) if isinstance(each, torch.Tensor)
            )
        return result


def _floor(config: PairConfig, pair: Pair) -> dict[str, float]:
    counted = _Counted()
    steps = _Course(config, pair).within(counted)
    flops, moved = counted.flops / steps, counted.bytes / steps
    most_flops, most_bytes = peaks()
    floor = 1e3 * max(flops / most_flops, moved / most_bytes)
    return {"gigaflops": flops / 1e9, "gigabytes": moved / 1e9, "floor_ms": floor}


def _kernels(config: PairConfig, pair: Pair) -> list[dict[str, Any]]:
    """Kernels (on a CPU operators) of one period of R1, the longest first."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if config.device == "cuda":
        kinds = [torch.profiler.ProfilerActivity.CUDA]
    profile = torch.profiler.profile(activities=kinds)
    steps = _Course(config, pair).within(profile)
    of = "self_device_time_total" if config.device == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, of))
    whole = sum(getattr(event, of) for event in events)
    return [
        {
            "kernel": event.key[:100],
            "calls_a_step": event.count / steps,
            "us_a_step": getattr(event, of) / steps,
            "share": getattr(event, of) / whole,
        }
        for event in events
        if getattr(event, of) > 0
    ]
