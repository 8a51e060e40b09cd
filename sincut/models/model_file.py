"""Model files: networks with what they were made by.

Everything is safetensors with JSON in its header, so that opening a file cannot run code. A digest
of all of it stands beside; a file that was cut short or changed is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sincut.compute.public import public
from sincut.errors import SincutError, one_line
from sincut.files import write_atomically
from sincut.models.architectures import described_generator, description
from sincut.models.brushwork import Brushwork
from sincut.models.generator import Generator
from sincut.models.projector import PatchProjector
from sincut.version import __version__

MODEL_FILE = "model.safetensors"

N = TypeVar("N", bound=nn.Module)


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
    path: Path,
    generator: Generator,
    projector: PatchProjector | None,
    header: Mapping[str, Any],
    brushwork: Brushwork | None = None,
) -> None:
    """Write a self-describing, movable model file."""
    tensors = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    assert generator.brushwork is None  # which is a part by itself
    if projector is not None:
        tensors |= {f"projector.{name}": value for name, value in projector.state_dict().items()}
    if brushwork is not None:
        tensors |= {f"brushwork.{name}": value for name, value in brushwork.state_dict().items()}
    save_tensors(path, "sincut-model", tensors, {**header, "generator": description(generator)})


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
    """Read a model file, or the one in a run folder.

    Raises:
        SincutError: as of :func:`load_tensors`; or its networks are not those of its header.
    """
    path = model_file(Path(path))
    tensors, header = load_tensors(path, "sincut-model")
    with fitting(path, header):
        weights, heads, painted = (
            part_of(tensors, f"{name}.") for name in ("generator", "projector", "brushwork")
        )
        generator = _filled(lambda: described_generator(header["generator"]), weights, "generator")
        projector = None
        if heads:
            # Of the rest another version may have had other fields.
            layers, width = (header["config"][name] for name in ("layers", "projection_width"))
            channels = [generator.layer_channels[layer] for layer in layers]
            projector = _filled(lambda: PatchProjector(channels, width), heads, "projector")
        if painted:
            generator.brushwork = Brushwork(**painted)
    return Model(generator.eval().requires_grad_(False), projector, header)


@contextlib.contextmanager
def fitting(path: Path, header: Mapping[str, Any]) -> Iterator[None]:
    """Whatever does not fit together in a file becomes one line that names the file."""
    try:
        yield
    except (SincutError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = one_line(error) if isinstance(error, SincutError) else "it lacks what is needed"
        written = str(header.get("sincut_version"))
        if _numbers(written) > _numbers(__version__):
            raise SincutError(
                f"{path} was written by sincut {written}, and this is {__version__} ({problem}); "
                f"try a newer version"
            ) from None
        if isinstance(error, SincutError):
            raise SincutError(f"{path}: {problem}") from None
        raise SincutError(
            f"{path} does not hold what its header says: {problem}; take another copy of it, or "
            "train anew"
        ) from None


def fill(network: nn.Module, values: Mapping[str, Tensor], name: str) -> None:
    """Load the values that a file has for a network, whose shapes must be the network's own.

    Raises:
        SincutError: they are others.
    """
    _check_shapes(network, values, name)
    network.load_state_dict(dict(values))


def _filled(build: Callable[[], N], values: Mapping[str, Tensor], name: str) -> N:
    """A new network with a file's values; what a header asks for takes no memory before the shapes
    are compared."""
    with torch.device("meta"):
        _check_shapes(build(), values, name)
    network = build()
    network.load_state_dict(dict(values))
    return network


def _check_shapes(network: nn.Module, values: Mapping[str, Tensor], name: str) -> None:
    own = network.state_dict()
    for key in sorted({*own, *values}):
        wanted, got = (_shape(each.get(key)) for each in (own, values))
        if wanted != got:
            raise SincutError(
                f"its {name} has another {key} than its header says: must be {wanted}, got {got}; "
                "take another copy of it, or train anew"
            )


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else "×".join(map(str, tensor.shape)) or "a number"


def _numbers(version: str) -> tuple[int, ...]:
    """``0.10.2`` as numbers, as far as it has such."""
    return tuple(int(part) for part in version.split(".") if part.isascii() and part.isdigit())


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
    for name, value in tensors.items():
        if value.is_complex() or not value.isfinite().all():
            raise SincutError(
                f"{path} holds numbers that are not finite, or complex, in {name}; take an earlier "
                "copy of it, or train anew"
            )
    return tensors, {**json.loads(text), "sha256": digest}


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """SHA-256 over the header and every tensor's name, shape, type and bytes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without that beginning."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@public
def load_generator(path: Path | str) -> Generator:
    """The generator of a model file or run folder, as a module on the CPU, in evaluation mode.

    It takes (N, 3, H, W) of about [-1, 1] and returns the same shape, zero-padded inside, not
    clamped, without noise unless it is given as the second argument
    (``generator.position_noise``).
    """
    return load_model(Path(path)).generator
