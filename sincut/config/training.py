"""How to train: all parts together, and what they must agree in; on a pair, or on folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sincut.config.fields import Config, as_text, option
from sincut.config.parts import (
    LOOK,
    FolderSettings,
    ImageSettings,
    LogSettings,
    NetworkSettings,
    ObjectiveSettings,
    OptimiserSettings,
    PaintingSettings,
    PairImageSettings,
    PlacedCrops,
    ResnetSettings,
    RunSettings,
    another,
)
from sincut.errors import SincutError

METHODS = ("sincut", "cut", "fastcut")
FOLDER_METHODS = ("cut", "fastcut")
BANKED = ("external", "both")  # kinds of negatives that take a bank of keys
FIRST_BLOCK = 12  # encoder layer of a ResNet's first residual block


# Fields that have an option of their own; the others are set with --set.
_OPTIONS = (
    *("preset", "method", "look", "stroke", "seed", "device", "precision", "steps"),
    *("evaluate_every", "keep", "range", "bands", "style_range", "style_bands"),
    *("level", "region", "style_level", "style_region"),
    *("mask", "style_mask", "regions", "style_regions"),
)


@dataclass(frozen=True, kw_only=True)
class _Named(Config):
    """What the other values started from."""

    preset: str = option("paper", "name of the preset the other values started from")
    method: str = option("sincut", "what the losses are set to", choices=METHODS)


# Fields stand in the order of the bases, from the last to the first.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    LogSettings, ObjectiveSettings, OptimiserSettings, RunSettings, ImageSettings, _Named
):
    """What all trainings have."""

    @classmethod
    def flag(cls, name: str, value: Any) -> str:
        """As :meth:`Config.flag`; most fields have no option of their own but ``--set``."""
        if name in _OPTIONS:
            return super().flag(name, value)
        return f"--set {name}={as_text(value)}"

    @property
    def keeps_best(self) -> bool:
        """Whether the best model is kept, and not the last."""
        return False


@dataclass(frozen=True, kw_only=True)
class PairConfig(
    NetworkSettings,
    PaintingSettings,
    PlacedCrops,
    PairImageSettings,
    TrainConfig,
):
    """How to train on one pair. The defaults are the preset ``paper``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop % self.tile or self.crop % 2**self.downsamplings:
            raise SincutError(
                f"crop must be a multiple of tile ({self.tile}) and of 2^downsamplings "
                f"({2**self.downsamplings}), got {self.crop}; try --set crop={2 * self.tile}"
            )
        deepest = self.downsamplings + self.blocks // 2 + 1
        if self.layers[0] < 0 or self.layers[-1] > deepest:
            raise SincutError(
                f"layers must be between 0 and {deepest} (the encoder's last), got "
                f"{as_text(self.layers)}; try --set layers=0,2,4"
            )
        for name, default in (("look", LOOK), ("stroke", 1.0)):
            if not (self.paints or self.brushwork) and getattr(self, name) != default:
                raise SincutError(
                    f"{name} is that of a painting, and this preset makes none, got "
                    f"{name}={getattr(self, name):g}; try --preset draft"
                )
        if self.placement == "grid" and "auto" in (self.mask, self.style_mask):
            raise SincutError(
                "mask=auto lays crops on tissue and placement=grid side by side; try --set "
                "placement=anywhere"
            )
        if (self.regions or self.style_regions) and self.region_side < self.crop:
            raise SincutError(
                f"region_side must be at least crop ({self.crop}), got {self.region_side}; try "
                f"--set region_side={4 * self.crop}"
            )
        if self.schedule == "epochs":
            raise SincutError(
                "a pair has no epochs, got schedule=epochs; try --set schedule=linear"
            )
        _check_negatives(self, self.batch)
        shrunk = min(max(self.layers[-1] - 1, 0), self.downsamplings)  # halvings before that layer
        alone = self.crop == 2**shrunk and self.negatives != "minibatch"
        if alone and (self.lambda_x or self.lambda_y):
            raise SincutError(
                f"PatchNCE needs negatives, and layer {self.layers[-1]} has a single place in a "
                f"crop of {self.crop} pixels; try --set crop={2 * self.crop}"
            )


@dataclass(frozen=True, kw_only=True)
class FolderConfig(ResnetSettings, FolderSettings, TrainConfig):
    """How to train on two folders. The defaults are the preset ``cut``."""

    preset: str = another(_Named, "preset", "cut")
    method: str = option("cut", "what the losses are set to", choices=FOLDER_METHODS)
    steps: int = option(0, "steps; 0: as many as epochs and falling_epochs give", low=0)
    learning_rate: float = another(
        OptimiserSettings, "learning_rate", 0.0002, "Adam's, for all networks (published)"
    )
    beta1: float = another(OptimiserSettings, "beta1", 0.5)
    beta2: float = another(OptimiserSettings, "beta2", 0.999)
    schedule: str = another(OptimiserSettings, "schedule", "epochs")
    ema_half_life: float = another(OptimiserSettings, "ema_half_life", 0.0)
    gan: str = another(ObjectiveSettings, "gan", "least-squares")
    lambda_r1: float = another(
        ObjectiveSettings, "lambda_r1", 0.0, "weight of the R1 penalty of D (published: none)"
    )
    lambda_x: float = another(
        ObjectiveSettings, "lambda_x", 1.0, "weight of PatchNCE(x, G(x)) (published, FastCUT 10)"
    )
    lambda_y: float = another(
        ObjectiveSettings,
        "lambda_y",
        1.0,
        "weight of PatchNCE(y, G(y)) (published, FastCUT 0); above 0 both are halved",
    )
    lambda_identity: float = another(
        ObjectiveSettings, "lambda_identity", 0.0, "weight of |G(y) − y| (published: none)"
    )
    layers: tuple[int, ...] = another(ObjectiveSettings, "layers", (0, 4, 8, 12, 16))
    patches: int = another(
        ObjectiveSettings, "patches", 256, "positions per image and layer (published)"
    )
    negatives: str = option(
        "image",
        "where they come from: the same image (published); the whole minibatch; external: a bank "
        "of the keys of earlier images; both: the same image and the bank (the paper's ablations)",
        choices=("image", "minibatch", "external", "both"),
    )
    bank: int = option(
        16_384,
        "keys of each layer that the bank holds; it begins with random ones (paper)",
        low=1,
        high=2**22,
        advanced=True,
    )
    epsilon: float = another(ObjectiveSettings, "epsilon", 1e-7)

    @property
    def keeps_best(self) -> bool:
        """As :attr:`TrainConfig.keeps_best`."""
        return self.keep == "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = (0, 4, 8, *range(FIRST_BLOCK, FIRST_BLOCK + self.blocks))
        if not set(self.layers) <= set(known):
            raise SincutError(
                f"layers must be among {as_text(known)}, got {as_text(self.layers)}; "
                f"try --set layers={as_text(tuple(layer for layer in known if layer % 4 == 0))}"
            )
        if self.keeps_best and not self.evaluate_every:
            raise SincutError(
                "keep=best takes figures on the way, got none; try --evaluate-every 1000"
            )
        _check_negatives(self, self.batch)


def _check_negatives(config: TrainConfig, batch: int) -> None:
    if config.negatives in BANKED:
        return
    negatives = config.patches * (batch if config.negatives == "minibatch" else 1) - 1
    if negatives < 1 and (config.lambda_x or config.lambda_y):
        raise SincutError(
            f"PatchNCE needs negatives, got patches={config.patches} with "
            f"negatives={config.negatives} and batch={batch}; try --set patches=256"
        )


def training_config(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration whose :meth:`TrainConfig.to_dict` the values are, of either kind."""
    kind = FolderConfig if "preprocess" in values else PairConfig
    return kind.from_dict(values)
