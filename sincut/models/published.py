"""Generators trained with the authors' code, read into ours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sincut.errors import SincutError
from sincut.models.generator import Generator
from sincut.models.resnet import ResnetGenerator
from sincut.models.stylegan2 import StyleGAN2Generator


def read_published(path: Path) -> Generator:
    """A generator trained with the authors' code (``latest_net_G.pth``), on one pair or on folders.

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


def generator_from_published(weights: Any, source: str = "the file") -> Generator:
    """Our generator with the weights of a published one, given under that code's names."""
    if isinstance(weights, Mapping) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        # What was trained on a CPU has names that the code itself cannot read.
        named = {name.removeprefix("module."): value for name, value in weights.items()}
        generator: Generator | None = None
        if "encoder.convs.1.0.weight" in named:
            generator = _stylegan2(named)
        elif "model.1.weight" in named:
            generator = _resnet(named)
        if generator is not None:
            return generator
    raise SincutError(
        f"{source} is not a generator of the authors' code: neither of its single-image model "
        "(StyleGAN2 encoder and decoder) nor of CUT or FastCUT (ResNet with instance norm); give "
        "the latest_net_G.pth of a run with --model sincut or cut"
    )


def _stylegan2(weights: Mapping[str, Tensor]) -> StyleGAN2Generator | None:
    """That of the single-image model, if it is one."""
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
        return None
    channels = weights["encoder.convs.1.0.weight"].shape[0]
    generator = StyleGAN2Generator(channels, 2 * half, downsamplings)
    names = {name: published_name(name, half, downsamplings) for name in generator.state_dict()}
    # Blurs are constant.
    rest = {name for name in weights if not name.endswith(".kernel")} - set(names.values())
    return generator if _load(generator, weights, names, rest) else None


def _resnet(weights: Mapping[str, Tensor]) -> ResnetGenerator | None:
    """That of CUT and FastCUT, if it is one."""
    found = (re.fullmatch(r"model\.(\d+)\.conv_block\.1\.weight", name) for name in weights)
    places = sorted(int(match[1]) for match in found if match)
    if not places or places != list(range(places[0], places[-1] + 1)):
        return None
    # A blur is a place of its own, behind or before a convolution.
    after = places[-1] + 1
    blurs = {"blur_down": places[0] == 12, "blur_up": f"model.{after}.weight" not in weights}
    generator = ResnetGenerator(weights["model.1.weight"].shape[0], len(places), **blurs)
    names = {name: published_resnet_name(name, generator) for name in generator.state_dict()}
    # Constant blurs, and biases before a norm, which have no influence.
    idle = {name.replace("weight", "bias") for name in names.values()} - set(names.values())
    rest = {name for name in weights if not name.endswith(".filt")} - set(names.values()) - idle
    return generator if _load(generator, weights, names, rest) else None


def _load(
    generator: Generator, weights: Mapping[str, Tensor], names: Mapping[str, str], rest: set[str]
) -> bool:
    """Give it those weights, if they are there, of its sizes, and leave no ``rest``."""
    own = generator.state_dict()
    if rest or any(
        names[name] not in weights or weights[names[name]].numel() != value.numel()
        for name, value in own.items()
    ):
        return False
    generator.load_state_dict(
        {name: weights[names[name]].float().reshape(value.shape) for name, value in own.items()}
    )
    return True


def published_resnet_name(name: str, generator: ResnetGenerator) -> str:
    """What the published code calls a parameter of our ResNet: places in one sequence, where norms,
    activations, paddings and blurs count."""
    *layer, kind = name.split(".")
    down, up = 4 if generator.blur_down else 3, 4 if generator.blur_up else 3
    first_block = 4 + 2 * down
    first_up = first_block + generator.blocks
    if layer[0] == "residual":
        inside = {"conv1": 1, "conv2": 5}[layer[2]]
        return f"model.{first_block + int(layer[1])}.conv_block.{inside}.{kind}"
    place = {
        "first": 1,
        "down1": 4,
        "down2": 4 + down,
        "up1": first_up + up - 3,
        "up2": first_up + 2 * up - 3,
        "last": first_up + 2 * up + 1,
    }[layer[0]]
    return f"model.{place}.{kind}"


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
