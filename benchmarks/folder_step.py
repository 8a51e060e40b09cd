"""A step on two folders: ours, as the training loop runs it, against CUT, FastCUT and CycleGAN
written out literally.

Correctness comes first: from the same weights, images and positions our step must find the terms of
the literal one, and in float32 its gradients, or nothing is reported. Then all take turns, one step
each on a CPU, so that whatever else a shared machine does hits all of them alike. Peaks of memory
are those of processes of their own.

Crops are prepared beforehand for all. Half of FastCUT's steps are mirrored, and these cost us more:
its time is the mean of both kinds. On CUDA the literal steps use TF32 in convolutions, PyTorch's
default.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.literal import OrdinaryDraws
from benchmarks.literal_folders import LiteralCut, LiteralCycleGan, discriminator_loss
from benchmarks.record import ROOT
from benchmarks.train_step import ALLOWED_GRADIENT, ENDLESS, synchronise
from sincut.compute.cuda_graph import EAGER_CALLS
from sincut.compute.devices import convolutions
from sincut.compute.memory import memory_in_use, peak_memory
from sincut.compute.precision import resolved
from sincut.compute.processes import ALONE, Processes
from sincut.config.presets import folder_config
from sincut.config.training import FolderConfig, TrainConfig
from sincut.data.random_numbers import RandomNumbers
from sincut.data.training_data import Crops
from sincut.demo import render_content, render_style
from sincut.training.loop import Record, train
from sincut.training.state import State, initial_state
from sincut.training.step import kind_of

ROUNDS = {"cpu": 4, "cuda": 3}
STEPS = {"cpu": 1, "cuda": 40}  # timed in a round
# Not timed, at the start of a round: on CUDA both kinds are recorded.
BEFORE = {"cpu": 0, "cuda": 6 * EAGER_CALLS}
ALLOWED = {"fp32": 1e-4, "bf16": 5e-2}  # relative difference of a term
# Adam's first step takes signs of whatever is far above its ε, of rounding, too, and G's terms come
# after D's step: for the comparison D's ε is above what rounding does to a gradient.
_EPSILON = 1e-4
# Networks start so weak that all logits are 0 and all rows alike; they are compared as strong as
# trained ones: Xavier's gain is 0.7 then, not 0.02.
_STRONGER = 35.0
_SHIFT = 1e-6  # of the weights, for a finite difference


@dataclass(frozen=True)
class Job:
    """What takes steps on what.

    Args:
        method: ``cut``, ``fastcut`` or ``cyclegan``.
        precision: of ours, ``fp32`` or ``bf16``; nothing for the literal step.
        size: side of the crops in pixels.
        channels: width of G and of D at full resolution.
    """

    method: str
    precision: str
    device: str
    size: int
    channels: int

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.method}, " + (f"ours, {self.precision}" if self.precision else "literal")

    @property
    def config(self) -> FolderConfig:
        """The published configuration on these sizes, resolved and without an end."""
        return resolved(
            folder_config(
                "fastcut" if self.method == "fastcut" else "cut",
                device=self.device,
                precision=self.precision or "fp32",
                steps=ENDLESS,
                crop=self.size,
                channels=self.channels,
                discriminator_channels=self.channels,
            )
        )

    def images(self) -> tuple[Tensor, Tensor]:
        """Content and style, (1, 3, size, size) in [-1, 1]."""
        x, y = (
            torch.from_numpy(np.ascontiguousarray(render(self.size, self.size).transpose(2, 0, 1)))
            for render in (render_content, render_style)
        )
        return tuple((each[None].float() / 127.5 - 1).to(self.device) for each in (x, y))


Times = list[tuple[bool, float]]  # of some steps: whether mirrored, and milliseconds


class Literal:
    """The literal step of CUT, FastCUT or CycleGAN."""

    def __init__(self, job: Job) -> None:
        self.config, self.images, self.done = job.config, job.images(), 0
        self.precision = "tf32" if job.device == "cuda" else "fp32"
        self.step: Callable[[bool], Any]
        if job.method == "cyclegan":
            cycle_gan = LiteralCycleGan(self.config)
            self.step = lambda mirrored: cycle_gan.step(*self.images)
        else:
            cut, draws = LiteralCut(self.config), OrdinaryDraws(job.device)
            self.step = lambda mirrored: cut.step(*self.images, draws, mirrored=mirrored)

    def run(self, before: int, timed: int) -> Times:
        """Take steps; the last ``timed`` are told."""
        found = []
        with convolutions(self.precision, search=True):
            for _ in range(before + timed):
                mirrored = kind_of(self.done, self.config).mirrored
                started = time.perf_counter()
                self.step(mirrored)
                synchronise(self.config.device)
                found.append((mirrored, 1e3 * (time.perf_counter() - started)))
                self.done += 1
        return found[before:]


class Ours:
    """Our step, as the training loop takes it."""

    def __init__(self, job: Job) -> None:
        self.config, self.data = job.config, Prepared(*job.images())
        self.state = initial_state(self.config)

    def run(self, before: int, timed: int) -> Times:
        """As :meth:`Literal.run`."""
        found: Times = []
        started = 0.0

        def on_step(record: Record) -> bool:
            nonlocal started
            synchronise(self.config.device)
            mirrored = kind_of(record.step - 1, self.config).mirrored
            found.append((mirrored, 1e3 * (time.perf_counter() - started)))
            started = time.perf_counter()
            return len(found) == before + timed

        started = time.perf_counter()
        train(self.data, self.config, on_step, self.state)
        return found[before:]


@dataclass
class Prepared:
    """Training data, and its feed, that has the same crops for every step."""

    x: Tensor
    y: Tensor
    waited: float = 0.0

    def feed(self, config: TrainConfig, *, warm: bool, processes: Processes = ALONE) -> Prepared:
        """As :meth:`TrainingData.feed`."""
        return self

    def prepare(self, step: int) -> None:
        """As :meth:`Feed.prepare`."""

    def draw(self, draws: RandomNumbers) -> Crops:
        """As :meth:`Feed.draw`."""
        layout = torch.channels_last
        return Crops(self.x.clone(memory_format=layout), self.y.clone(memory_format=layout))

    def recoloured(self, x: Tensor) -> Tensor:
        """As :meth:`Feed.recoloured`."""
        raise NotImplementedError("a step that is measured is not of the warm start")


def measure(
    device: str, *, size: int = 256, channels: int = 64, rounds: int | None = None
) -> list[dict[str, Any]]:
    """Rows for the literal steps and ours.

    Args:
        size: side of the crops in pixels.
        channels: width of G and of D at full resolution.
        rounds: turns that each has.

    Raises:
        RuntimeError: our terms or gradients are off, or a process failed.
    """
    jobs = [
        Job(method, precision, device, size, channels)
        for method in ("cut", "fastcut", "cyclegan")
        for precision in ("", "fp32", "bf16")
        if method != "cyclegan" or not precision
    ]
    # First of all: Linux counts the peak of the process that starts another one for that one, too.
    memory = {job: _in_a_process(job) for job in jobs}
    check_cycle_gan()
    for method in ("cut", "fastcut"):
        check([job for job in jobs if job.method == method])

    methods = {job: (Ours if job.precision else Literal)(job) for job in jobs}
    times: dict[Job, Times] = {job: [] for job in jobs}
    for method in methods.values():
        method.run(0, 1)  # in which optimisers make their moments
    for _ in range(rounds or ROUNDS[device]):
        for job, method in methods.items():
            times[job] += method.run(BEFORE[device], STEPS[device])
    rows = [_row(job, times[job], memory[job]) for job in jobs]
    for job, row in zip(jobs, rows, strict=True):
        own = next(each for each in rows if each["method"] == f"{job.method}, literal")
        row["of_literal_cut"] = row["ms_per_step"] / rows[0]["ms_per_step"]
        row["faster_than_literal"] = own["ms_per_step"] / row["ms_per_step"]
    return rows


def check(jobs: Sequence[Job]) -> None:
    """Compare our steps of one method, of both kinds, with the literal one, which comes first.

    Raises:
        RuntimeError: terms, or in float32 gradients, are off.
    """
    reference, *ours = jobs
    for mirrored in (False, True) if reference.config.flip_equivariance else (False,):
        number = next(n for n in range(64) if kind_of(n, reference.config).mirrored == mirrored)
        literal = LiteralCut(reference.config)
        _strengthen(literal.networks())
        literal.optimizers["discriminator"].param_groups[0]["eps"] = _EPSILON
        draws = RandomNumbers(0, torch.tensor(number, device=reference.device))
        with convolutions("fp32"):
            expected = literal.step(*reference.images(), draws, mirrored=mirrored)
        for job in ours:
            method = Ours(job)
            _strengthen(method.state.networks())
            method.state.optimizers["discriminator"].param_groups[0]["eps"] = _EPSILON
            method.state.step = number
            found: dict[str, float] = {}
            train(
                method.data,
                method.config,
                lambda record: bool(found.update(record.values())) or True,  # noqa: B023
                method.state,
            )
            for term, value in expected.items():
                off = abs(found[term] / value.item() - 1)
                if not off <= ALLOWED[job.precision]:
                    raise RuntimeError(f"{job.name}: {term} is off by {off:.2g}")
            if job.precision == "fp32":
                _check_gradients(method.state, literal)


def _check_gradients(state: State, literal: LiteralCut) -> None:
    for name, gradient in literal.gradients().items():
        parameters = state.networks()[name].parameters()
        found = torch.cat([each.grad.flatten() for each in parameters])
        off = ((found - gradient).norm() / gradient.norm()).item()
        if not off <= ALLOWED_GRADIENT:
            raise RuntimeError(f"the gradient of the {name} is off by {off:.2g}")


def check_cycle_gan() -> None:
    """Compare CycleGAN's gradients with finite differences, on small networks in float64.

    Raises:
        RuntimeError: they are off.
    """
    job = Job("cyclegan", "", "cpu", 32, 2)
    model = LiteralCycleGan(job.config)
    x, y = (image.double() for image in job.images())
    model.generators.double()
    model.discriminators.double()
    _strengthen({"generators": model.generators, "discriminators": model.discriminators})

    def of_discriminators() -> Tensor:
        of_style = discriminator_loss(model.of_style, y, x)
        return of_style + discriminator_loss(model.of_content, x, y)

    for network, loss in (
        (model.generators, lambda: model.generator_loss(x, y)[0]),
        (model.discriminators, of_discriminators),
    ):
        parameters = list(network.parameters())
        slopes = torch.autograd.grad(loss(), parameters)
        length = torch.cat([slope.flatten() for slope in slopes]).norm().item()
        values = []
        with torch.no_grad():
            for shift in (1, -2):  # from where it is to either side
                torch._foreach_add_(parameters, slopes, alpha=shift * _SHIFT / length)
                values.append(loss().item())
        found = (values[0] - values[1]) / (2 * _SHIFT)
        if not abs(found / length - 1) <= ALLOWED_GRADIENT:
            raise RuntimeError(f"CycleGAN: a slope is {found:.6g}, its gradient's {length:.6g}")


def measured(job: Job) -> dict[str, int]:
    """Bytes in use before anything is made, and at the peak of some steps of either kind."""
    start = memory_in_use() if job.device == "cpu" else 0
    (Ours if job.precision else Literal)(job).run(BEFORE[job.device], 3)
    return {"start_bytes": start, "peak_bytes": peak_memory(job.device)}


def _in_a_process(job: Job) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.folder_step", json.dumps(dataclasses.asdict(job))]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise RuntimeError(f"{job.name}: {last}")
    found: dict[str, int] = json.loads(child.stdout.splitlines()[-1])
    return found


def _strengthen(networks: Mapping[str, nn.Module]) -> None:
    with torch.no_grad():
        for network in networks.values():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(_STRONGER)


def _row(job: Job, times: Times, memory: dict[str, int]) -> dict[str, Any]:
    """Times are means of the quantiles of mirrored steps and of the others."""
    kinds = [[each for kind, each in times if kind == mirrored] for mirrored in (False, True)]
    levels = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    quantiles = [torch.tensor(kind).double().quantile(levels) for kind in kinds if kind]
    low, median, high = torch.stack(quantiles).mean(dim=0).tolist()
    return {
        "method": job.name,
        "size": job.size,
        "channels": job.channels,
        "ms_per_step": median,
        "p20_ms": low,
        "p80_ms": high,
        "timed_steps": len(times),
        **memory,
    }


if __name__ == "__main__":
    print(json.dumps(measured(Job(**json.loads(sys.argv[1])))))
