"""Architectures: which generator a name means, and how a model file says what it was built of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sincut.config.training import FolderConfig, PairConfig, TrainConfig
from sincut.errors import SincutError
from sincut.models.discriminator import Discriminator
from sincut.models.generator import Generator
from sincut.models.patchgan import PatchDiscriminator
from sincut.models.resnet import ResnetGenerator
from sincut.models.stylegan2 import ColourCorrectingGenerator, StyleGAN2Generator
from sincut.models.stylegan2_discriminator import TileDiscriminator

ARCHITECTURES: dict[str, Callable[..., Generator]] = {
    "stylegan2": StyleGAN2Generator,
    "stylegan2-correcting": ColourCorrectingGenerator,
    "resnet": ResnetGenerator,
}
_LARGEST = 1024  # number in a generator's arguments, as in the configuration


def generator_of(config: TrainConfig) -> Generator:
    """A new generator as its settings ask for it."""
    if isinstance(config, FolderConfig):
        return ResnetGenerator(config.channels, config.blocks)
    assert isinstance(config, PairConfig)
    kind = ColourCorrectingGenerator if config.correction else StyleGAN2Generator
    return kind(config.channels, config.blocks, config.downsamplings)


def discriminator_of(config: TrainConfig) -> Discriminator:
    """A new discriminator as its settings ask for it."""
    if isinstance(config, FolderConfig):
        return PatchDiscriminator(config.discriminator_channels)
    assert isinstance(config, PairConfig)
    return TileDiscriminator(
        config.discriminator_channels, config.tile, config.discriminator_max_channels
    )


def description(generator: Generator) -> dict[str, Any]:
    """What a model file says of its generator: the architecture and its arguments."""
    names = {kind: name for name, kind in ARCHITECTURES.items()}
    return {"architecture": names[type(generator)], "arguments": generator.arguments}


def described_generator(values: Mapping[str, Any]) -> Generator:
    """A new generator as :func:`description` says; also as files of version 0.1 say it.

    Raises:
        SincutError: an architecture that this version does not know.
    """
    values = normalised(values)
    if values["architecture"] not in ARCHITECTURES:
        raise SincutError(
            f"the model's architecture must be one of {', '.join(ARCHITECTURES)}, got "
            f"{values['architecture']}; try a newer version of sincut"
        )
    for name, value in values["arguments"].items():
        if type(value) not in (int, bool) or not 0 <= value <= _LARGEST:
            raise SincutError(
                f"the model's {values['architecture']} must have arguments from 0 to {_LARGEST}, "
                f"got {name}={value}; try a newer version of sincut"
            )
    try:
        return ARCHITECTURES[values["architecture"]](**values["arguments"])
    except TypeError:
        raise SincutError(
            f"the model's {values['architecture']} has arguments that this version does not know: "
            f"{', '.join(values['arguments'])}; try a newer version of sincut"
        ) from None


def normalised(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a model file says of its generator in today's form.

    Raises:
        SincutError: it says something else.
    """
    if set(values) == {"architecture", "arguments"}:
        return dict(values)
    if set(values) != {"channels", "blocks", "downsamplings", "correction"}:
        raise SincutError(
            f"the model file does not say how its generator is built, got {', '.join(values)}; try "
            "a newer version of sincut"
        )
    arguments = {name: value for name, value in values.items() if name != "correction"}
    return description(
        (ColourCorrectingGenerator if values["correction"] else StyleGAN2Generator)(**arguments)
    )
