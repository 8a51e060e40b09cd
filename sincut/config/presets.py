"""Named sets of training settings, and what a method changes in them."""

from __future__ import annotations

from typing import Any

from sincut.config.fields import field_of
from sincut.config.training import TrainConfig
from sincut.errors import SincutError

# What short runs have in common; docs/experiments.md has the figures.
_SHORT: dict[str, Any] = {
    "schedule": "linear",
    "crop": 64,
    "patches": 64,
    # Textures are learned at the size they will have: images up to 1280 pixels wide as they are.
    "zoom_min": 1280.0,
    "zoom_max": 1536.0,
    # The style's colours and the content's detail need not be learned from nothing …
    "correction": True,
    # … nor be kept by an identity term. PatchNCE sees the input's colours in layer 0 and pulls
    # towards them: with the published weight of 4 the content's own would stay.
    "lambda_x": 2.5,
    "lambda_y": 0.0,
    "lambda_identity": 0.0,
    # D sees fine texture as well as the rest, judges like against like, and has a helper that
    # learns fast. Whitened tiles are larger numbers than tiles, so R1 weighs more. What a tile
    # cannot hold, D cannot ask for: with small ones the content's layout is safer.
    "tile": 32,
    "whiten": True,
    "lambda_r1": 20.0,
    "candidates": 32,
    "lambda_texture": 1.5,
}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
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
        "a small network, a short schedule, a warm start: minutes on 2 CPU cores",
        {
            **_SHORT,
            "steps": 1000,
            "warm_steps": 100,
            "ema_half_life": 100.0,
            "batch": 8,
            "channels": 16,
            "discriminator_channels": 16,
            "discriminator_max_channels": 128,
            "r1_every": 8,
            "preview_every": 200,
            "preview_width": 512,
            "checkpoint_every": 200,
        },
    ),
    "fast": (
        "draft's settings with a larger network and more steps, for a GPU",
        {
            **_SHORT,
            "steps": 20_000,
            "warm_steps": 1000,
            "ema_half_life": 300.0,
            "channels": 32,
            "patches": 128,
            "r1_every": 16,
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


def train_config(preset: str, method: str = "sincut", **changes: Any) -> TrainConfig:
    """The preset's values, over them the method's, over them ``changes``."""
    if preset not in PRESETS:
        raise _unknown_preset(preset)
    for name in changes:
        field_of(TrainConfig, name)
    of_method = _METHOD_CHANGES.get(method, {})  # an unknown one is refused by the dataclass
    values = {**PRESETS[preset][1], **of_method, **changes}
    return TrainConfig(**{**values, "preset": preset, "method": method})


def default_preset(device: str) -> str:
    """The preset for ``cuda`` or ``cpu`` where none is asked for."""
    return "paper" if device == "cuda" else "draft"


def _unknown_preset(name: str) -> SincutError:
    allowed = ", ".join(PRESETS)
    return SincutError(f"preset must be one of {allowed}, got {name}; try --preset draft")


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
        field_of(TrainConfig, name)
        changes[name] = value
    return changes
