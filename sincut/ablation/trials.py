"""Which trials an ablation has: the product of settings and seeds, or the paper's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sincut.compute.devices import chosen_device
from sincut.compute.precision import resolved
from sincut.config.fields import field_of
from sincut.config.presets import default_preset, train_config
from sincut.config.training import PairConfig
from sincut.errors import SincutError
from sincut.evaluation.figures import Figures
from sincut.runs.folder import RunImage
from sincut.version import __version__


def shown(value: Any) -> str:
    """A value as names and tables have it; the numbers of a tuple are joined by ``+``."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


# The settings of --paper: name, and what is changed in its base. The layers are the base's last.
PAPER_BASE = "base"
PAPER_IDENTITY_OFF = "identity off"
PAPER_LAST_LAYER = "last layer"
PAPER_CHANGES: dict[str, dict[str, Any]] = {
    PAPER_BASE: {},
    PAPER_IDENTITY_OFF: {"lambda_y": 0.0},
    "63 negatives": {"patches": 64},
    "15 negatives": {"patches": 16},
    PAPER_LAST_LAYER: {},
    "external negatives": {"negatives": "minibatch"},
}


@dataclass(frozen=True)
class Trial:
    """One run of an ablation: ``folder`` is its name among the trials, ``setting`` what is told
    of it beside the seed. ``config`` is whole, seed included."""

    folder: str
    setting: str
    seed: int
    config: PairConfig

    @property
    def name(self) -> str:
        """What a person reads: setting and seed."""
        return f"{self.setting}, seed {self.seed}"


@dataclass(frozen=True)
class AblationPlan:
    """All trials of an ablation, in order: settings one after the other, seeds within them.

    ``version`` is that of sincut when it began, ``fields`` are the names of what is varied.
    """

    version: str
    content: RunImage
    style: RunImage
    paper: bool
    fields: tuple[str, ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Outcome:
    """How a trial stands: finished with ``figures``, failed with a ``failure``, or neither yet.

    ``folder`` is its run folder.
    """

    trial: Trial
    folder: Path
    figures: Figures | None = None
    failure: str | None = None

    @property
    def status(self) -> str:
        """``finished``, ``failed`` or ``unfinished``."""
        if self.figures is not None:
            return "finished"
        return "unfinished" if self.failure is None else "failed"


BOTH = "{} is set for all trials and varied with --over, got both; give one of them"
# What --paper sets itself. "All layers" are the base's own, which may be set.
_PAPER_FIELDS = ("lambda_y", "patches", "layers", "negatives")
_PAPER_BASE: dict[str, Any] = {
    "lambda_x": 1.0,
    "lambda_y": 1.0,
    "lambda_identity": 0.0,
    "negatives": "crop",
    "patches": 256,
}
# What presets add to the paper is left out, unless it is asked for.
_PAPER_PLAIN: dict[str, Any] = {
    "whiten": False,
    "lambda_texture": 0.0,
    "candidates": 1,
    "lambda_r1": 1.0,
}
_PAPER_MEASUREMENTS = 10  # of figures on the way, beside that before the first step


def parse_over(texts: Sequence[str]) -> dict[str, list[str]]:
    """``("patches=16,64", …)`` as names and values, for :func:`ablate`."""
    found: dict[str, list[str]] = {}
    for each in texts:
        name, equals, values = each.partition("=")
        if not equals or not all(values.split(",")):
            raise SincutError(
                f"--over must be name=value,value, got {each}; try --over patches=16,64,256"
            )
        if name in found:
            raise SincutError(
                f"--over {name} is given twice; give all its values at once, as in "
                f"--over {name}={','.join([*found[name], values])}"
            )
        found[name] = values.split(",")
    return found


def planned(
    images: dict[str, RunImage],
    over: Mapping[str, Sequence[Any]],
    seeds: int | str | None,
    paper: bool,
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
) -> AblationPlan:
    """The trials that were asked for; device and precision may still be ``auto``."""
    count = _seed_count(seeds)
    if paper and over:
        raise SincutError("--paper and --over both say what is varied, got both; give one of them")
    if not paper and not over:
        raise SincutError(
            "nothing is varied; try --over patches=16,64,256, or --paper for the paper's ablations"
        )
    if preset is None and "preset" not in over:
        preset = default_preset(chosen_device(changes.get("device", "auto")))
    if paper:
        assert preset is not None
        settings = _paper_settings(preset, method, changes)
    else:
        settings = _grid(over, preset, method, changes)
    trials = [
        (setting, config.replaced(seed=config.seed + offset))
        for setting, config in settings
        for offset in range(count)
    ]
    return AblationPlan(
        version=__version__,
        content=images["content"],
        style=images["style"],
        paper=paper,
        fields=_PAPER_FIELDS if paper else tuple(over),
        trials=tuple(
            Trial(_folder_name(number, setting, config.seed), setting, config.seed, config)
            for number, (setting, config) in enumerate(trials, start=1)
        ),
    )


def _seed_count(seeds: int | str | None) -> int:
    try:
        count = 1 if seeds is None else int(seeds)
    except ValueError:
        count = 0
    if count < 1:
        raise SincutError(f"--seeds must be a whole number from 1, got {seeds}; try --seeds 2")
    return count


def _grid(
    over: Mapping[str, Sequence[Any]],
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
) -> list[tuple[str, PairConfig]]:
    """All combinations, the last name varied fastest."""
    given = {**changes, "preset": preset, "method": method}
    for name, values in over.items():
        default = field_of(PairConfig, name).default
        if name == "seed":
            raise SincutError("the seed is varied with --seeds, got --over seed; try --seeds 3")
        if name == "device":
            raise SincutError(
                "the device is no setting to compare, got --over device; try --device"
            )
        if given.get(name) is not None:
            raise SincutError(BOTH.format(name))
        if isinstance(values, str) or not len(values):
            raise SincutError(
                f"{name} must have a list of values to try, got {values!r}; try "
                f"over={{'{name}': [{default!r}]}}"
            )
    settings: dict[str, PairConfig] = {}
    for combination in itertools.product(*over.values()):
        chosen: dict[str, Any] = {"preset": preset, "method": method or "sincut", **changes}
        for name, value in zip(over, combination, strict=True):
            of_layers = isinstance(field_of(PairConfig, name).default, tuple)
            chosen[name] = (
                value.replace("+", ",") if of_layers and isinstance(value, str) else value
            )
        config = train_config(chosen.pop("preset"), chosen.pop("method"), **chosen)
        setting = ", ".join(f"{name}={shown(getattr(config, name))}" for name in over)
        if setting in settings:
            raise SincutError(f"{setting} is asked for twice; give every value once")
        settings[setting] = config
    return list(settings.items())


def _paper_settings(
    preset: str, method: str | None, changes: dict[str, Any]
) -> list[tuple[str, PairConfig]]:
    """The base and one change in it each.

    What is compared is set here whatever the preset has: ``draft`` has no identity loss and 64
    patches.
    """
    if method not in (None, "cut"):
        raise SincutError(
            f"--paper stands on the method cut, got --method {method}; try without it"
        )
    for name in changes:
        if name in _PAPER_BASE:
            raise SincutError(
                f"--paper sets {name} itself, got {name}={shown(changes[name])}; try without it, "
                f"or --over {name}=… instead of --paper"
            )
    base = train_config(preset, "cut", **{**_PAPER_PLAIN, **changes, **_PAPER_BASE})
    if len(base.layers) < 2:
        raise SincutError(
            f"--paper compares all layers with the last one, got layers={shown(base.layers)}; "
            "try --set layers=0,2,4"
        )
    positions = (base.crop // 2**base.downsamplings) ** 2
    if positions < base.patches:
        raise SincutError(
            f"--paper compares up to 255 negatives, and a crop of {base.crop} pixels has "
            f"{positions} positions in G's deeper layers; try --set crop="
            f"{max(16 * 2**base.downsamplings, base.tile)}"
        )
    if "evaluate_every" not in changes:
        base = base.replaced(evaluate_every=max(base.steps // _PAPER_MEASUREMENTS, 1))
    changed = {**PAPER_CHANGES, PAPER_LAST_LAYER: {"layers": base.layers[-1:]}}
    return [(setting, base.replaced(**change)) for setting, change in changed.items()]


def _folder_name(number: int, setting: str, seed: int) -> str:
    """Unique by its number, and short enough for any file system."""
    about = setting.replace(", ", "_").replace(" ", "-")
    return f"{number:02d}_{about[:80]}_seed-{seed}"


def resolved_plan(plan: AblationPlan) -> AblationPlan:
    """The plan with devices and precisions that are ``auto`` found out, once for all trials.

    Each trial by itself could find another precision, and then they could not be compared.
    """
    found: dict[tuple[str, str], PairConfig] = {}
    trials = []
    for trial in plan.trials:
        wanted = trial.config.device, trial.config.precision
        if wanted not in found:
            found[wanted] = resolved(trial.config)
        config = trial.config.replaced(
            device=found[wanted].device, precision=found[wanted].precision
        )
        trials.append(dataclasses.replace(trial, config=config))
    return dataclasses.replace(plan, trials=tuple(trials))
