"""Named sets of training settings, and what a method changes in them."""

from __future__ import annotations

import dataclasses
from typing import Any

from sincut.config.fields import field_of
from sincut.config.parts import PartSettings, PlaceSettings
from sincut.config.training import FolderConfig, PairConfig, TrainConfig
from sincut.errors import SincutError

# What runs have in common whose G learns a painting of the content (docs/experiments.md).
_PAINTING: dict[str, Any] = {
    "schedule": "linear",
    "learning_rate": 0.003,
    "beta2": 0.999,
    "ema_half_life": 50.0,
    # As large as so few steps can learn: of wider images they learn no strokes.
    "zoom_min": 512.0,
    "zoom_max": 512.0,
    # Mirrored crops would be other places to learn.
    "mirror": 0.0,
    "downsamplings": 2,
    # Noise of single pixels is grain, and no strokes.
    "noise": False,
    "lambda_painting": 10.0,
    "lambda_strokes": 20.0,
    "brushwork": True,
    "lambda_gan": 0.3,
    "r1_every": 8,
    # Shallow layers of the encoder hold on to the photograph's own edges.
    "layers": (3, 6),
    "lambda_x": 0.1,
    "lambda_y": 0.0,
    "lambda_identity": 0.0,
}

Presets = dict[str, tuple[str, dict[str, Any]]]

PRESETS: Presets = {
    "paper": ("the paper's setting: 16 crops of 128 pixels, 100,000 steps", {}),
    "published": (
        "the authors' code's defaults: 64-pixel crops from a grid, one patch per crop",
        {
            "crop": 64,
            "channels": 80,
            "zoom": "factor",
            "zoom_min": 1 / 3,
            "zoom_max": 1.0,
            "zoom_axes": "independent",
            "zoom_per": "crop",
            "placement": "grid",
            "patches": 1,
            "ema_half_life": 0.0,
            "precision": "fp32",
        },
    ),
    "draft": (
        "a small network that learns a painting of the content: minutes on 2 CPU cores",
        {
            **_PAINTING,
            "steps": 300,
            "warm_steps": 2000,
            "batch": 1,
            "channels": 24,
            "discriminator_channels": 16,
            "discriminator_max_channels": 128,
            "preview_every": 100,
            "preview_width": 512,
            "checkpoint_every": 200,
        },
    ),
    "fast": (
        "draft's way with a larger network, more steps and images up to 1024 pixels, for a GPU",
        {
            **_PAINTING,
            "zoom_min": 1024.0,
            "zoom_max": 1024.0,
            "steps": 5000,
            "warm_steps": 10_000,
            "ema_half_life": 300.0,
            "batch": 8,
            "channels": 48,
        },
    ),
}

# For two folders.
FOLDER_PRESETS: Presets = {
    "cut": ("CUT as published: 256-pixel crops, 400 epochs", {}),
    "fastcut": ("FastCUT as published: the same without identity term, 200 epochs", {}),
    "cut-small": (
        "a smaller network on smaller crops, aspect kept: minutes on 2 CPU cores, a first look",
        {
            "steps": 1500,
            "warm_steps": 150,
            "schedule": "linear",
            "learning_rate": 0.0003,
            "ema_half_life": 100.0,
            "preprocess": "shortside",
            "load": 192,
            "falling_load": 192,
            "crop": 128,
            "channels": 20,
            "blocks": 6,
            "discriminator_channels": 48,
            "preview_every": 250,
            "preview_width": 256,
            "checkpoint_every": 250,
        },
    ),
}

# What a method changes on one pair; everything else stays SinCUT's.
_METHOD_CHANGES: dict[str, dict[str, Any]] = {
    "sincut": {},
    "cut": {"lambda_x": 1.0, "lambda_y": 1.0, "lambda_identity": 0.0},
    "fastcut": {
        "lambda_x": 10.0,
        "lambda_y": 0.0,
        "lambda_identity": 0.0,
        "flip_equivariance": True,
    },
}
# On two folders, where CUT's numbers are the defaults.
_FOLDER_METHOD_CHANGES: dict[str, dict[str, Any]] = {
    "cut": {},
    "fastcut": {
        "lambda_x": 10.0,
        "lambda_y": 0.0,
        "flip_equivariance": True,
        "epochs": 150,
        "falling_epochs": 50,
    },
}


def train_config(preset: str, method: str = "sincut", **changes: Any) -> PairConfig:
    """How to train on a pair: the preset's values, over them the method's, then ``changes``."""
    if preset in FOLDER_PRESETS:
        raise SincutError(
            f"preset {preset} is for two folders of images, got two images; try --preset draft"
        )
    values = _preset_values(PRESETS, preset, "draft")
    of_method = _METHOD_CHANGES.get(method, {})  # an unknown one is refused by the dataclass
    return PairConfig(**_over(PairConfig, values, of_method, changes, preset, method))


def folder_config(preset: str = "cut", method: str | None = None, **changes: Any) -> FolderConfig:
    """How to train on two folders, as :func:`train_config`; ``fastcut`` is preset and method."""
    if preset in PRESETS:
        raise SincutError(
            f"preset {preset} is for a pair of images, got two folders; try --preset cut"
        )
    if preset == "fastcut" and method not in (None, "fastcut"):
        raise SincutError(
            f"the preset fastcut is of the method fastcut, got --method {method}; try --preset cut"
        )
    for part, hint in ((PartSettings, "copies of that part"), (PlaceSettings, "without it")):
        for field in dataclasses.fields(part):
            if field.name in changes:
                raise SincutError(
                    f"{field.name} is for a pair of images, got two folders; try {hint}"
                )
    method = method or ("fastcut" if preset == "fastcut" else "cut")
    values = _preset_values(FOLDER_PRESETS, preset, "cut")
    if {"epochs", "falling_epochs"} & set(changes):  # they give the length then
        values = {name: value for name, value in values.items() if name != "steps"}
    of_method = _FOLDER_METHOD_CHANGES.get(method, {})
    return FolderConfig(**_over(FolderConfig, values, of_method, changes, preset, method))


def preset_config(config: TrainConfig) -> TrainConfig:
    """The values that a configuration's preset and method have by themselves."""
    if isinstance(config, FolderConfig):
        return folder_config(config.preset, config.method)
    return train_config(config.preset, config.method)


def _preset_values(presets: Presets, preset: str, hint: str) -> dict[str, Any]:
    if preset not in presets:
        allowed = ", ".join(presets)
        raise SincutError(f"preset must be one of {allowed}, got {preset}; try --preset {hint}")
    return presets[preset][1]


def _over(
    kind: type[TrainConfig],
    values: dict[str, Any],
    of_method: dict[str, Any],
    changes: dict[str, Any],
    preset: str,
    method: str,
) -> dict[str, Any]:
    for name in changes:
        field_of(kind, name)
    return {**values, **of_method, **changes, "preset": preset, "method": method}


DEFAULT_PRESET = "draft"  # of a pair, on every device: the one whose results have been judged


def default_folder_preset(device: str, method: str | None) -> str:
    """The preset of two folders for ``cuda`` or ``cpu`` where none is asked for."""
    if device != "cuda":
        return "cut-small"
    return "fastcut" if method == "fastcut" else "cut"


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, str]:
    """``("name=value", …)`` as a dictionary; the values are read by the field they go to."""
    changes = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SincutError(
                f"--set must be name=value, got {assignment}; try --set temperature=0.07"
            )
        if name in ("preset", "method"):
            raise SincutError(f"{name} is not set with --set; try --{name} {value}")
        known = [*dataclasses.fields(PairConfig), *dataclasses.fields(FolderConfig)]
        if name not in {field.name for field in known}:
            field_of(PairConfig, name)  # says so
        changes[name] = value
    return changes
