"""Generators trained with the authors' code, read into ours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sincut.errors import SincutError
from sincut.models.stylegan2 import StyleGAN2Generator


def read_published(path: Path) -> StyleGAN2Generator:
    """A generator trained with the authors' single-image code (``latest_net_G.pth``).

    Read with ``weights_only=True``: tensors and nothing else.

    Raises:
        SincutError: no such file, no PyTorch weights, or weights of another network.
    """
    if not path.is_file():
        raise SincutError(f"{path} does not exist or is not a file; give a latest_net_G.pth")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that are refused below in our own words
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # an unpickler fails in any way on bytes that are none
        raise SincutError(
            f"{path} is not a file of PyTorch weights alone; give the latest_net_G.pth that the "
            "authors' code saved"
        ) from None
    return generator_from_published(weights, str(path))


def generator_from_published(weights: Any, source: str = "the file") -> StyleGAN2Generator:
    """Our generator with the weights of a published one, given under that code's names."""
    foreign = SincutError(
        f"{source} is not a generator of the authors' single-image model (StyleGAN2 encoder and "
        "decoder); give the latest_net_G.pth of a run with --model sincut"
    )
    if (
        not isinstance(weights, Mapping)
        or "encoder.convs.1.0.weight" not in weights
        or not all(isinstance(value, torch.Tensor) for value in weights.values())
    ):
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
    generator = StyleGAN2Generator(
        weights["encoder.convs.1.0.weight"].shape[0], 2 * half, downsamplings
    )
    expected = generator.state_dict()
    names = {name: published_name(name, half, downsamplings) for name in expected}
    foreign_names = {name for name in weights if not name.endswith(".kernel")}  # blurs: constant
    if foreign_names != set(names.values()) or any(
        weights[names[name]].numel() != value.numel() for name, value in expected.items()
    ):
        raise foreign
    generator.load_state_dict(
        {name: weights[names[name]].float().reshape(v.shape) for name, v in expected.items()}
    )
    return generator


def published_name(name: str, half: int, downsamplings: int) -> str:
    """What the published code calls a parameter of our generator.

    ``half`` is the number of residual blocks in the decoder. Its layers are sequences of an
    optional blur, a convolution and an activation that holds the bias, so the numbers inside a
    name count those.
    """
    *layer, kind = name.split(".")
    position = {"weight": 0, "bias": 1}
    if layer[0] == "to_rgb":
        return f"decoder.convs.{half + downsamplings}.{position[kind]}.{kind}"
    index = int(layer[1])
    if layer[0] == "upsampling":
        inside = {"weight": "conv.weight", "noise_weight": "noise.weight", "bias": "activate.bias"}
        return f"decoder.convs.{half + index}.{inside[kind]}"
    if len(layer) == 2:
        return f"encoder.convs.{index + 1}.{position[kind]}.{kind}"
    down = layer[0] == "encoder" and index <= downsamplings
    blur = int(down and layer[2] != "conv1")
    place = index + 1 if layer[0] == "encoder" else index
    return f"{layer[0]}.convs.{place}.{layer[2]}.{position[kind] + blur}.{kind}"
