"""Files that hold networks: the model that translates, and the state that training goes on from.

Everything is safetensors with JSON in its header, so that opening a file cannot run code. A digest
of all of it stands beside; a file that was cut short or changed is refused.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sincut.config.training import TrainConfig
from sincut.errors import SincutError
from sincut.files_ import write_atomically
from sincut.networks import Discriminator, Generator, PatchProjector
from sincut.version import __version__

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class Model:
    """A trained generator with what is known about it.

    ``header`` holds ``sincut_version``, ``step``, ``config`` (the resolved training configuration,
    or for an imported generator only its networks' fields), ``content`` and ``style`` (name,
    width, height, SHA-256 of the file; absent where imported) and ``origin``.
    """

    generator: Generator
    projector: PatchProjector | None
    header: dict[str, Any]


def save_model(
    path: Path, generator: Generator, projector: PatchProjector | None, header: Mapping[str, Any]
) -> None:
    """Write a self-describing, movable model file."""
    tensors = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    if projector is not None:
        tensors |= {f"projector.{name}": value for name, value in projector.state_dict().items()}
    networks = {
        "channels": generator.channels,
        "blocks": generator.blocks,
        "downsamplings": generator.downsamplings,
        "correction": generator.correction,
    }
    save_tensors(path, "sincut-model", tensors, {**header, "generator": networks})


def model_file(path: Path) -> Path:
    """The model file that a path means: itself, or the one in a run folder.

    Raises:
        SincutError: it is a folder without one.
    """
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).exists():
        raise SincutError(
            f"{path} is not a run: it has no {MODEL_FILE}; give a run folder or a model file"
        )
    return path / MODEL_FILE


def load_model(path: Path) -> Model:
    """Read a model file, or the one in a run folder. Errors as :func:`load_tensors`."""
    tensors, header = load_tensors(model_file(Path(path)), "sincut-model")
    generator = Generator(**header["generator"])
    generator.load_state_dict(_part(tensors, "generator."))
    projector = None
    heads = _part(tensors, "projector.")
    if heads:
        config = TrainConfig.from_dict(header["config"])
        channels = [generator.layer_channels[layer] for layer in config.layers]
        projector = PatchProjector(channels, config.projection_width)
        projector.load_state_dict(heads)
    return Model(generator.eval().requires_grad_(False), projector, header)


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
        generator = Generator(
            config.channels, config.blocks, config.downsamplings, config.correction
        )
        discriminator = Discriminator(
            config.discriminator_channels,
            config.tile,
            config.discriminator_max_channels,
            whiten=config.whiten,
            textures=config.lambda_texture > 0,
        )
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
    return state


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
    save_tensors(path, "sincut-state", tensors, {**header, "step": state.step})


def restored_state(tensors: Mapping[str, Tensor], step: int, config: TrainConfig) -> State:
    """The state whose tensors and step :func:`save_state` wrote under ``config``."""
    state = initial_state(config)
    for network, module in state.networks().items():
        module.load_state_dict(_part(tensors, f"{network}."))
    for network, optimizer in state.optimizers.items():
        for name, parameter in state.networks()[network].named_parameters():
            moments = {}
            for moment in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"adam.{network}.{moment}.{name}")
                if value is not None:
                    # In the parameter's own memory layout: fused Adam walks both side by side.
                    empty = (
                        torch.empty_like(parameter)
                        if value.ndim
                        else torch.empty((), device=parameter.device)
                    )
                    moments[moment] = empty.detach().copy_(value)
            if moments:
                optimizer.state[parameter] = moments
    state.step = step
    return state


def save_tensors(
    path: Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON-able header in one atomic step."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps({"sincut_version": __version__, **header})
    metadata = {"format": kind, "header": text, "sha256": _digest(tensors, text)}
    with write_atomically(path) as file:
        file.write(save(tensors, metadata))


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises:
        SincutError: no such file, not safetensors, of another kind, cut short or changed.
    """
    hint = {
        "sincut-model": "give a model.safetensors that sincut wrote; "
        "for a latest_net_G.pth try sincut import",
        "sincut-state": "start again with --force",
    }[kind]
    if not path.is_file():
        raise SincutError(f"{path} does not exist or is not a file; {hint}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SincutError(f"{path} is not a readable safetensors file ({error}); {hint}") from None
    if metadata.get("format") != kind:
        got = metadata.get("format", "none")
        raise SincutError(f"{path} is of another kind: format must be {kind}, got {got}; {hint}")
    text, digest = metadata.get("header", ""), metadata.get("sha256")
    if digest != _digest(tensors, text):
        raise SincutError(f"{path} was changed or damaged: its checksum does not match; {hint}")
    return tensors, {**json.loads(text), "sha256": digest}


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """SHA-256 over the header and every tensor's name, shape, type and bytes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
