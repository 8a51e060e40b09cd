"""The loop: SinCUT as the paper has it, on one content and one style image.

Every random draw of a step is a function of (seed, step). Nothing random has to be saved, and a
run that was interrupted continues bit for bit on a CPU. On CUDA a step reads its number, its
learning rate and its share in the average from tensors on the device, so that it can be recorded
and replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sincut.compute.cuda_graph import RecordedStep, not_recorded, own_stream
from sincut.compute.devices import convolutions
from sincut.compute.processes import ALONE, Processes
from sincut.config.training import TrainConfig
from sincut.data.random_numbers import RandomNumbers
from sincut.data.training_data import TrainingData
from sincut.training.schedule import _average, _set_rate, average_weight, rate_factor
from sincut.training.state import State, new_optimizers, new_state
from sincut.training.step import Kind, kind_of, sincut_step, warm_step


@dataclass(frozen=True)
class Record:
    """What one finished step has to tell.

    ``losses`` are scalars still on the device, which the next step may overwrite; of several
    processes, those of this one's part of the batch.
    """

    step: int
    steps: int
    losses: dict[str, Tensor]
    learning_rate: float
    seconds: float  # since training started or resumed
    state: State = field(repr=False)
    processes: Processes = field(default=ALONE, repr=False)
    waited: float = 0.0  # seconds of these in which steps waited for images

    def values(self) -> dict[str, float]:
        """The losses as numbers (waits for the device), averaged over the processes.

        All of these have to ask, or none.
        """
        return self._values

    @cached_property
    def _values(self) -> dict[str, float]:
        values = torch.stack([value.float() for value in self.losses.values()])
        self.processes.average([values])
        return dict(zip(self.losses, values.tolist(), strict=True))


def train(
    data: TrainingData,
    config: TrainConfig,
    on_step: Callable[[Record], bool | None],
    state: State | None = None,
    on_notice: Callable[[str], None] | None = None,
    processes: Processes = ALONE,
) -> State:
    """Train until ``config.steps`` or until ``on_step`` returns true.

    Args:
        data: what the crops are cut from.
        config: device and precision resolved by :func:`sincut.compute.precision.resolved`.
        on_step: called after every step.
        state: from :func:`new_state` or a checkpoint; it is changed in place.
        on_notice: told in a line that steps could not be recorded and go on one kernel at a time;
            without it that is an error.
        processes: joined ones that share every step: each gets ``config.batch`` crops, and
            all together what one would get with a batch that is so much larger. They start from
            the state of the first. Their steps are not recorded.

    Returns:
        The state after the last step.
    """
    state = state or new_state(data, config)
    processes.take_over(
        each for network in state.networks().values() for each in network.state_dict().values()
    )
    feed = data.feed(config, warm=state.step < 0, processes=processes)
    number = torch.zeros((), dtype=torch.int64, device=config.device)
    share = torch.zeros((), device=config.device)
    draws = RandomNumbers(config.seed, number, processes.index, processes.count)

    def one_step(kind: Kind) -> dict[str, Tensor]:
        crops = feed.draw(draws)
        if kind.warm:
            wanted = crops.painting
            if wanted is None:
                wanted = feed.recoloured(crops.content)
            terms = warm_step(state, crops, wanted, config, draws, processes)
        else:
            terms = sincut_step(state, crops, config, draws, kind, processes)
        _average(state, share)
        return terms

    def on_failure(error: RuntimeError) -> None:
        if on_notice is None:
            raise error
        on_notice(not_recorded("a step", error))

    record = config.device == "cuda" and config.record_steps and processes.count == 1
    step = RecordedStep(one_step, record=record, on_failure=on_failure)
    started = time.monotonic()
    with convolutions(config.precision, search=True), own_stream(config.device):
        while state.step < config.steps:
            rate = config.learning_rate * rate_factor(state.step, config)
            _set_rate(state, rate)
            number.fill_(state.step)
            share.fill_(average_weight(state.step + 1, config.ema_half_life))
            feed.prepare(state.step)
            terms = step(kind_of(state.step, config))
            state.step += 1
            if state.step == 0:  # the moments so far belong to another objective
                state.optimizers = new_optimizers(state, config)
                step.forget(Kind(warm=True))
            seconds = time.monotonic() - started
            done = Record(
                state.step, config.steps, terms, rate, seconds, state, processes, feed.waited
            )
            if on_step(done):
                break
    return state
