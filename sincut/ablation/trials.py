"""Which trials an ablation has: the product of settings and seeds, or the paper's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sincut.ablation.images import TrialImages
from sincut.ablation.kinds import LAST_LAYER, Kind, kind_of
from sincut.compute.devices import chosen_device
from sincut.compute.precision import resolved
from sincut.config.fields import field_of
from sincut.config.training import TrainConfig
from sincut.errors import SincutError
from sincut.runs.folder import RunFolder, RunImage
from sincut.version import __version__


def shown(value: Any) -> str:
    """A value as names and tables have it; the numbers of a tuple are joined by ``+``."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Trial:
    """One run of an ablation: ``folder`` is its name among the trials, ``setting`` what is told
    of it beside the seed. ``config`` is whole, seed included."""

    folder: str
    setting: str
    seed: int
    config: TrainConfig

    @property
    def name(self) -> str:
        """What a person reads: setting and seed."""
        return f"{self.setting}, seed {self.seed}"


@dataclass(frozen=True)
class AblationPlan:
    """All trials of an ablation, in order: settings one after the other, seeds within them.

    ``version`` is that of sincut when it began, ``images`` are by what they are of, ``content`` and
    ``style`` first, ``fields`` are the names of what is varied.
    """

    version: str
    images: Mapping[str, RunImage | RunFolder]
    paper: bool
    fields: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def kind(self) -> Kind:
        """Of a pair, or of two folders."""
        return kind_of(self.trials[0].config)

    def title(self, shown: Callable[[str], str] = str) -> str:
        """What is compared; ``shown`` makes names fit for where they stand."""
        names = (shown(self.images[name].name) for name in ("content", "style"))
        return f"Ablation: {self.kind.title.format(*names)}"


@dataclass(frozen=True)
class Outcome:
    """How a trial stands: finished with ``figures`` by name, failed with a ``failure``, or neither
    yet.

    ``folder`` is its run folder.
    """

    trial: Trial
    folder: Path
    figures: Mapping[str, float] | None = None
    failure: str | None = None

    @property
    def status(self) -> str:
        """``finished``, ``failed`` or ``unfinished``."""
        if self.figures is not None:
            return "finished"
        return "unfinished" if self.failure is None else "failed"


BOTH = "{} is set for all trials and varied with --over, got both; give one of them"
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
    images: TrialImages,
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
        preset = images.kind.default_preset(chosen_device(changes.get("device", "auto")), method)
    if paper:
        assert preset is not None
        settings = _paper_settings(images, preset, method, changes)
    else:
        settings = _grid(images, over, preset, method, changes)
    trials = [
        (setting, config.replaced(seed=config.seed + offset))
        for setting, config in settings
        for offset in range(count)
    ]
    return AblationPlan(
        version=__version__,
        images=images.records,
        paper=paper,
        fields=images.kind.paper.fields if paper else tuple(over),
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
    images: TrialImages,
    over: Mapping[str, Sequence[Any]],
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
) -> list[tuple[str, TrainConfig]]:
    """All combinations, the last name varied fastest."""
    given = {**changes, "preset": preset, "method": method}
    defaults = {name: field_of(images.kind.config, name).default for name in over}
    for name, values in over.items():
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
                f"over={{'{name}': [{defaults[name]!r}]}}"
            )
    settings: dict[str, TrainConfig] = {}
    for combination in itertools.product(*over.values()):
        chosen: dict[str, Any] = {"preset": preset, "method": method, **changes}
        for name, value in zip(over, combination, strict=True):
            of_layers = isinstance(defaults[name], tuple)
            chosen[name] = (
                value.replace("+", ",") if of_layers and isinstance(value, str) else value
            )
        made = images.kind.made(chosen.pop("preset"), chosen.pop("method"), **chosen)
        config = images.with_length(made)
        setting = ", ".join(f"{name}={shown(getattr(config, name))}" for name in over)
        if setting in settings:
            raise SincutError(f"{setting} is asked for twice; give every value once")
        settings[setting] = config
    return list(settings.items())


def _paper_settings(
    images: TrialImages, preset: str, method: str | None, changes: dict[str, Any]
) -> list[tuple[str, TrainConfig]]:
    """The base and one change in it each, and other methods beside.

    What is compared is set here whatever the preset has: ``draft`` has no identity loss and 64
    patches.
    """
    kind, paper = images.kind, images.kind.paper
    if method not in (None, "cut"):
        raise SincutError(
            f"--paper stands on the method cut, got --method {method}; try without it"
        )
    for name in changes:
        if name in paper.base:
            raise SincutError(
                f"--paper sets {name} itself, got {name}={shown(changes[name])}; try without it, "
                f"or --over {name}=… instead of --paper"
            )

    def made(method: str, values: Mapping[str, Any]) -> TrainConfig:
        """With figures on the way, whose number follows from the length."""
        given = {"evaluate_every": 1, **paper.plain, **changes, **values}
        config = images.with_length(kind.made(preset, method, **given))
        if "evaluate_every" in changes:
            return config
        return config.replaced(evaluate_every=max(config.steps // _PAPER_MEASUREMENTS, 1))

    base = made("cut", paper.base)
    _check_paper(base)
    changed = {**paper.changes, LAST_LAYER: {"layers": base.layers[-1:]}}
    settings = [(setting, base.replaced(**change)) for setting, change in changed.items()]
    negatives = {name: paper.base[name] for name in ("negatives", "patches")}
    return settings + [(setting, made(name, negatives)) for setting, name in paper.methods.items()]


def _check_paper(base: TrainConfig) -> None:
    """Refuse layers and crops in which there is not enough to compare."""
    if len(base.layers) < 2:
        raise SincutError(
            f"--paper compares all layers with the last one, got layers={shown(base.layers)}; "
            f"try --set layers={kind_of(base).paper.layers}"
        )
    values = base.to_dict()
    crop, halvings = values["crop"], values.get("downsamplings", 2)  # a ResNet always has two
    positions = (crop // 2**halvings) ** 2
    if positions < base.patches:
        raise SincutError(
            f"--paper compares up to 255 negatives, and a crop of {crop} pixels has "
            f"{positions} positions in G's deeper layers; try --set crop="
            f"{max(16 * 2**halvings, values.get('tile', 0))}"
        )


def _folder_name(number: int, setting: str, seed: int) -> str:
    """Unique by its number, and short enough for any file system."""
    about = setting.replace(", ", "_").replace(" ", "-")
    return f"{number:02d}_{about[:80]}_seed-{seed}"


def resolved_plan(plan: AblationPlan) -> AblationPlan:
    """The plan with devices and precisions that are ``auto`` found out, once for all trials.

    Each trial by itself could find another precision, and then they could not be compared.
    """
    found: dict[tuple[str, str], TrainConfig] = {}
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
