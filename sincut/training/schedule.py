"""The learning rate, and the average of the weights, as functions of the step."""

from __future__ import annotations

import torch
from torch import Tensor

from sincut.config.training import FolderConfig, TrainConfig
from sincut.training.state import State


def rate_factor(step: int, config: TrainConfig) -> float:
    """The learning rate of a step as a fraction of ``config.learning_rate``; 1 while warming."""
    if config.schedule == "constant" or step < 0:
        return 1.0
    if config.schedule == "linear":
        return min(1.0, 2 * (1 - step / config.steps))
    if isinstance(config, FolderConfig) and config.schedule == "epochs":
        epoch = (config.epochs + config.falling_epochs) * step // config.steps + 1
        return 1 - max(0, epoch - config.epochs) / (config.falling_epochs + 1)
    epoch = 16 * step // config.steps  # published: 8 epochs, then 8 that fall by a ninth each
    return 1 - max(0, epoch - 7) / 9


def average_weight(step: int, half_life: float) -> float:
    """How much of the newest weights enters the average after ``step`` steps.

    The half-life is at most half of the steps done, so that the first ones are soon forgotten.
    """
    half_life = min(half_life, max(step, 0) / 2)
    return 1 - 0.5 ** (1 / half_life) if half_life > 0 else 1.0


def _set_rate(state: State, rate: float) -> None:
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # a recorded step reads it from there
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


@torch.no_grad()
def _average(state: State, weight: Tensor) -> None:
    """Move the averaged networks towards the newest weights."""
    for average, newest in (
        (state.averaged_generator, state.generator),
        (state.averaged_projector, state.projector),
    ):
        means: list[Tensor] = [*average.parameters()]
        news: list[Tensor] = [*newest.parameters()]
        steps = torch._foreach_sub(news, means)  # all at once: on a GPU it is launches that cost
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(means, [*steps])
