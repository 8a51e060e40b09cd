"""What a training is at: networks, optimisers, step; begun, saved and restored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.config.training import BANKED, FolderConfig, TrainConfig
from sincut.data.pair import Pair
from sincut.data.training_data import TrainingData
from sincut.errors import SincutError
from sincut.models.architectures import discriminator_of, generator_of
from sincut.models.discriminator import Discriminator
from sincut.models.generator import Generator
from sincut.models.model_file import fill, part_of, save_tensors
from sincut.models.projector import PatchProjector
from sincut.models.stylegan2 import ColourCorrectingGenerator

STATE_FILE = "state.safetensors"


@dataclass
class State:
    """Networks, optimisers and how far they are. ``step`` is negative during the warm start."""

    generator: Generator
    discriminator: Discriminator
    projector: PatchProjector
    averaged_generator: Generator  # the one that is written and translates
    averaged_projector: PatchProjector
    optimizers: dict[str, torch.optim.Adam]
    step: int
    # Keys of earlier images, by the name of the term and the layer's place, where they are used.
    banks: dict[str, Tensor] = field(default_factory=dict)

    def networks(self) -> dict[str, nn.Module]:
        """All networks by name."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "projector": self.projector,
            "averaged_generator": self.averaged_generator,
            "averaged_projector": self.averaged_projector,
        }


def initial_state(config: TrainConfig) -> State:
    """New networks on the device of a resolved configuration, drawn from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = generator_of(config)
        discriminator = discriminator_of(config)
        channels = [generator.layer_channels[layer] for layer in config.layers]
        projector = PatchProjector(channels, config.projection_width)
    for network in (generator, discriminator, projector):
        network.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(
        generator,
        discriminator,
        projector,
        copy.deepcopy(generator).requires_grad_(False),
        copy.deepcopy(projector).requires_grad_(False),
        {},
        -config.warm_steps,
    )
    state.optimizers = new_optimizers(state, config)
    state.banks = new_banks(config)
    return state


def new_banks(config: TrainConfig) -> dict[str, Tensor]:
    """Random keys of unit length to begin with (MoCo), where the negatives are external."""
    if not (isinstance(config, FolderConfig) and config.negatives in BANKED):
        return {}
    random = torch.Generator().manual_seed(config.seed)
    shape = config.bank, config.projection_width
    return {
        f"{term}.{place}": F.normalize(torch.randn(shape, generator=random)).to(config.device)
        for term, weight in (("NCE_x", config.lambda_x), ("NCE_y", config.lambda_y))
        if weight > 0
        for place in range(len(config.layers))
    }


def new_optimizers(state: State, config: TrainConfig) -> dict[str, torch.optim.Adam]:
    """Adam for G, D and H, without moments yet.

    On CUDA the learning rate is a tensor on the device, for steps that are recorded and replayed.
    """
    on_cuda = config.device == "cuda"
    return {
        name: torch.optim.Adam(
            state.networks()[name].parameters(),
            lr=torch.tensor(config.learning_rate, device="cuda")
            if on_cuda
            else config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True,
            capturable=on_cuda,
        )
        for name in ("generator", "discriminator", "projector")
    }


def save_state(path: Path, state: State, header: Mapping[str, Any]) -> None:
    """Write everything that training needs to go on bit for bit."""
    tensors = {
        f"{network}.{name}": value
        for network, module in state.networks().items()
        for name, value in module.state_dict().items()
    }
    for network, optimizer in state.optimizers.items():
        for name, parameter in state.networks()[network].named_parameters():
            for moment, value in optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{network}.{moment}.{name}"] = value
    tensors |= {f"bank.{name}": bank for name, bank in state.banks.items()}
    save_tensors(path, "sincut-state", tensors, {**header, "step": state.step})


def restored_state(tensors: Mapping[str, Tensor], step: int, config: TrainConfig) -> State:
    """The state whose tensors and step :func:`save_state` wrote under ``config``."""
    state = initial_state(config)
    for network, module in state.networks().items():
        fill(module, part_of(tensors, f"{network}."), network.replace("_", " "))
    for network, optimizer in state.optimizers.items():
        for name, parameter in state.networks()[network].named_parameters():
            moments = {}
            for moment in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"adam.{network}.{moment}.{name}")
                if value is not None:
                    # In the parameter's own memory layout: fused Adam walks both side by side.
                    empty = (
                        torch.empty((), device=parameter.device)
                        if moment == "step"
                        else torch.empty_like(parameter)
                    )
                    if empty.shape != value.shape:  # or it would be repeated along an axis
                        raise SincutError(
                            f"its moments of {name} have another shape than that; take another "
                            "copy of it, or train anew"
                        )
                    moments[moment] = empty.detach().copy_(value)
            if moments:
                optimizer.state[parameter] = moments
    for name, bank in state.banks.items():
        bank.copy_(tensors[f"bank.{name}"])
    state.step = step
    return state


def new_state(data: TrainingData, config: TrainConfig) -> State:
    """New networks for a training, with what they know of its data before the first step.

    A generator that corrects colours starts from an affine transfer of them.
    """
    state = initial_state(config)
    generators = state.generator, state.averaged_generator
    correcting = [each for each in generators if isinstance(each, ColourCorrectingGenerator)]
    if correcting:
        assert isinstance(data, Pair)
        matrix, offset = data.colours()
        for generator in correcting:
            generator.set_colours(matrix, offset)
    return state
