"""What an ablation of a pair and one of two folders differ in, beside the images themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sincut.config.presets import (
    DEFAULT_PRESET,
    default_folder_preset,
    folder_config,
    train_config,
)
from sincut.config.training import FolderConfig, PairConfig, TrainConfig
from sincut.runs.folder import FOLDERS_TITLE, PAIR_TITLE
from sincut.runs.report_page import FIGURES

_BASE = "base"
_IDENTITY_OFF = "identity off"
_FEWER: dict[str, dict[str, Any]] = {
    "63 negatives": {"patches": 64},
    "15 negatives": {"patches": 16},
}
LAST_LAYER = "last layer"  # which one that is the base says
_EXTERNAL, _BOTH = "external negatives", "internal and external negatives"
_FASTCUT = "FastCUT"


@dataclass(frozen=True)
class Paper:
    """The settings of ``--paper``.

    Attributes:
        base: what is set whatever the preset has, and may not be set.
        plain: what presets add to the paper; left out, unless it is asked for.
        changes: of each setting, in the base.
        methods: settings of another method beside, with the base's negatives.
        fields: columns of the table for programs.
        layers: an example of several.
        groups: titles, and the settings whose curves are drawn together.
        notes: what a reader should know.
    """

    base: Mapping[str, Any]
    changes: Mapping[str, Mapping[str, Any]]
    fields: tuple[str, ...]
    layers: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    notes: str
    plain: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """An ablation of a pair, or of two folders.

    Attributes:
        config: what its trials are configured by.
        made: a configuration of a preset, a method or ``None``, and changes.
        default_preset: on a device, for a method or ``None``.
        paper: what ``--paper`` trains.
        figures: names of those that every finished trial has; it may have more.
        title: with places for the names of content and style.
        pictures: what the sheet shows.
        cell: longest side of a picture on the sheet, in pixels.
        columns: of the sheet, where there is one seed.
    """

    config: type[TrainConfig]
    made: Callable[..., TrainConfig]
    default_preset: Callable[[str, str | None], str]
    paper: Paper
    figures: tuple[str, ...]
    title: str
    pictures: str
    cell: int
    columns: int


_WITHOUT_IDENTITY = (
    "Without the identity loss, which is PatchNCE on the style, PatchNCE on the content counts "
    "alone and is not halved, as in the published code."
)

PAIR = Kind(
    config=PairConfig,
    made=lambda preset, method, **changes: train_config(preset, method or "sincut", **changes),
    default_preset=lambda device, method: DEFAULT_PRESET,
    paper=Paper(
        base={
            "lambda_x": 1.0,
            "lambda_y": 1.0,
            "lambda_identity": 0.0,
            "negatives": "crop",
            "patches": 256,
        },
        plain={
            **{"lambda_painting": 0.0, "lambda_strokes": 0.0, "brushwork": False},
            **{"lambda_gan": 1.0, "lambda_r1": 1.0},
        },
        changes={
            _BASE: {},
            _IDENTITY_OFF: {"lambda_y": 0.0},
            **_FEWER,
            LAST_LAYER: {},
            _EXTERNAL: {"negatives": "minibatch"},
        },
        fields=("lambda_y", "patches", "layers", "negatives"),
        layers="0,2,4",
        groups=(
            ("With and without the identity loss", (_BASE, _IDENTITY_OFF)),
            ("How many negatives", (_BASE, *_FEWER)),
            ("Internal negatives, and external ones as well", (_BASE, _EXTERNAL)),
            ("All layers and the last", (_BASE, LAST_LAYER)),
        ),
        notes="The base is CUT on one pair: λ_X = λ_Y = 1 and no pixel identity, 255 negatives "
        "from the query's own crop, all layers. Each other setting changes one thing in it. "
        f"{_WITHOUT_IDENTITY} External negatives: those of the whole minibatch, in addition to "
        "the internal ones. On one pair all crops come from the same image, so this is the "
        "nearest thing to the paper's negatives from other images.",
    ),
    figures=tuple(FIGURES),
    title=PAIR_TITLE,
    pictures="every result stands at full size in its trial’s folder",
    cell=320,
    columns=4,
)

FOLDERS = Kind(
    config=FolderConfig,
    made=folder_config,
    default_preset=default_folder_preset,
    paper=Paper(
        base={
            "lambda_x": 1.0,
            "lambda_y": 1.0,
            "lambda_identity": 0.0,
            "negatives": "image",
            "patches": 256,
        },
        changes={
            _BASE: {},
            _IDENTITY_OFF: {"lambda_y": 0.0},
            **_FEWER,
            LAST_LAYER: {},
            _EXTERNAL: {"negatives": "external"},
            _BOTH: {"negatives": "both"},
        },
        methods={_FASTCUT: "fastcut"},
        fields=("method", "lambda_x", "lambda_y", "patches", "layers", "negatives"),
        layers="0,4,8,12,16",
        groups=(
            ("With and without the identity loss", (_BASE, _IDENTITY_OFF)),
            ("How many negatives", (_BASE, *_FEWER)),
            ("Internal negatives, external ones, and both", (_BASE, _EXTERNAL, _BOTH)),
            ("All layers and the last", (_BASE, LAST_LAYER)),
            ("CUT and FastCUT", (_BASE, _FASTCUT)),
        ),
        notes="The base is CUT: λ_X = λ_Y = 1, 255 negatives from the query's own image, all "
        f"layers. Each other setting changes one thing in it, but FastCUT. {_WITHOUT_IDENTITY} "
        "External negatives come from a bank of the keys of earlier images, alone or beside the "
        "internal ones. Figures are of images that were held out of the training, where there are "
        "some.",
    ),
    figures=("C1", "C2"),
    title=FOLDERS_TITLE,
    pictures="images stand above their translations, and larger in each trial’s folder",
    cell=960,  # six images
    columns=1,
)


def kind_of(config: TrainConfig) -> Kind:
    """The kind whose trials are configured like this."""
    return next(kind for kind in (PAIR, FOLDERS) if isinstance(config, kind.config))
