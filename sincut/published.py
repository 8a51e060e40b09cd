"""Generators trained with the authors' code, read into ours."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sincut.errors import SincutError
from sincut.networks import Generator


def read_published(path: Path) -> Generator:
    """A generator trained with the authors' single-image code (``latest_net_G.pth``).

    Read with ``weights_only=True``: tensors and nothing else.

    Raises:
        SincutError: no such file, no PyTorch weights, or weights of another network.
    """
    if not path.is_file():
        raise SincutError(f"{path} does not exist or is not a file; give a latest_net_G.pth")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise SincutError(
            f"{path} is not a file of PyTorch weights alone; give the latest_net_G.pth that the "
            "authors' code saved"
        ) from None
    return generator_from_published(weights, str(path))


def generator_from_published(weights: Any, source: str = "the file") -> Generator:
    """Our generator with the weights of a published one, given under that code's names."""
    foreign = SincutError(
        f"{source} is not a generator of the authors' single-image model (StyleGAN2 encoder and "
        "decoder); give the latest_net_G.pth of a run with --model sincut"
    )
    if not isinstance(weights, Mapping) or "encoder.convs.1.0.weight" not in weights:
        raise foreign
    blocks_and_downs = {
        name.split(".")[2]
        for name in weights
        if ".conv1.0.weight" in name and name.startswith("encoder.")
    }
    downsamplings = sum(
        bool(re.fullmatch(r"encoder\.convs\.\d+\.skip\.1\.weight", name)) for name in weights
    )
    half = len(blocks_and_downs) - downsamplings
    if downsamplings < 1 or half < 1:
        raise foreign
    generator = Generator(weights["encoder.convs.1.0.weight"].shape[0], 2 * half, downsamplings)
    expected = generator.state_dict()
    renamed = {}
    for name, value in weights.items():
        if name.endswith(".kernel"):  # of a blur: constant
            continue
        ours = _renamed(name, half, downsamplings)
        if ours not in expected or value.numel() != expected[ours].numel():
            raise foreign
        renamed[ours] = value.float().reshape(expected[ours].shape)
    if renamed.keys() != expected.keys():
        raise foreign
    generator.load_state_dict(renamed)
    return generator


def _renamed(name: str, half: int, downsamplings: int) -> str:
    """A published parameter's name in our generator."""
    match = re.fullmatch(r"(encoder|decoder)\.convs\.(\d+)\.(.+)", name)
    if match is None:
        return name
    part, index, rest = match[1], int(match[2]), match[3]
    rest = re.sub(r"^(conv1|conv2|skip)\.\d\.", r"\1.", rest)  # conv1.0.weight, conv1.1.bias
    if part == "encoder":
        return f"encoder.{index - 1}.{re.sub(r'^[01][.]', '', rest)}"
    if index < half:
        return f"decoder.{index}.{rest}"
    if index < half + downsamplings:
        rest = (
            {"conv.weight": "weight", "noise.weight": "noise_weight", "activate.bias": "bias"}[rest]
            if rest in ("conv.weight", "noise.weight", "activate.bias")
            else rest
        )
        return f"upsampling.{index - half}.{rest}"
    return f"to_rgb.{re.sub(r'^[01][.]', '', rest)}"
