"""How to train on one pair: all parts together, and what they must agree in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sincut.config.fields import Config, as_text, option
from sincut.config.parts import (
    CropSettings,
    LogSettings,
    NetworkSettings,
    ObjectiveSettings,
    OptimiserSettings,
    RunSettings,
)
from sincut.errors import SincutError

METHODS = ("sincut", "cut", "fastcut")


@dataclass(frozen=True, kw_only=True)
class _Named(Config):
    """What the other values started from."""

    preset: str = option("paper", "name of the preset the other values started from")
    method: str = option("sincut", "what the losses are set to", choices=METHODS)


# Fields stand in the order of the bases, from the last to the first.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    LogSettings,
    NetworkSettings,
    ObjectiveSettings,
    CropSettings,
    OptimiserSettings,
    RunSettings,
    _Named,
):
    """How to train on one pair. The defaults are the preset ``paper``."""

    @classmethod
    def flag(cls, name: str, value: Any) -> str:
        """As :meth:`Config.flag`; most fields have no option of their own but ``--set``."""
        if name in ("preset", "method", "seed", "device", "precision", "steps", "evaluate_every"):
            return super().flag(name, value)
        return f"--set {name}={as_text(value)}"

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
        negatives = self.patches * (self.batch if self.negatives == "minibatch" else 1) - 1
        if negatives < 1 and (self.lambda_x or self.lambda_y):
            raise SincutError(
                f"PatchNCE needs negatives, got patches={self.patches} with "
                f"negatives={self.negatives} and batch={self.batch}; try --set patches=256"
            )
