"""What a page lets one choose, read from the configuration's fields, and the commands it becomes.

Values come as text and are checked by the configuration itself, so that a page says the same line
as the command. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sincut.config.fields import Config, as_text, field_of
from sincut.config.parts import (
    CropSettings,
    ImageSettings,
    LogSettings,
    NetworkSettings,
    ObjectiveSettings,
    OptimiserSettings,
    PaintingSettings,
    RunSettings,
)
from sincut.config.presets import DEFAULT_PRESET, PRESETS, folder_config, train_config
from sincut.config.training import FolderConfig, PairConfig
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError

MINUTES = ("2", "5", "15", "")  # the last: until it is stopped
# A length that nobody waits for, at a rate that does not fall towards its end.
UNTIL_STOPPED = {"steps": "1000000", "schedule": "constant"}
FOLDER_DEFAULT = "cut-small"
_SLIDERS = ("look", "stroke")
_PARTS = {
    "run": RunSettings,
    "optimiser": OptimiserSettings,
    "painting": PaintingSettings,
    "crops": CropSettings,
    "objective": ObjectiveSettings,
    "networks": NetworkSettings,
    "log": LogSettings,
    "images": ImageSettings,
}
_TRANSLATING = (
    *("strength", "brushwork", "working_width", "depth", "pyramid", "strip_metadata", "seed"),
    *("tile", "max_memory", "device", "precision"),
)
ENDINGS = (".png", ".jpg", ".tif", ".webp", ".dzi")


def field_record(config: type[Config], name: str, default: Any) -> dict[str, Any]:
    """A field as a form shows it."""
    field = field_of(config, name)
    kind = {int: "number", float: "number", bool: "truth"}.get(type(field.default), "text")
    return {
        "name": name,
        "kind": "choice" if field.metadata["choices"] else kind,
        "choices": field.metadata["choices"],
        "help": field.metadata["help"],
        "default": as_text(default),
    }


def main_choices() -> dict[str, Any]:
    """What stands before the advanced settings: the two sliders, the times."""
    config = train_config(DEFAULT_PRESET)
    sliders = {name: field_record(PairConfig, name, getattr(config, name)) for name in _SLIDERS}
    return {
        **sliders,
        "minutes": MINUTES,
        "presets": {n: about for n, (about, _) in PRESETS.items()},
    }


def groups() -> dict[str, list[dict[str, Any]]]:
    """The other fields of a training on a pair, in groups, with the default preset's values."""
    config = train_config(DEFAULT_PRESET)
    return {
        part: [
            field_record(PairConfig, field.name, getattr(config, field.name))
            for field in dataclasses.fields(settings)
            if field.name not in (*_SLIDERS, "seed")
        ]
        for part, settings in _PARTS.items()
    }


def training_words(given: Mapping[str, Any], *, folders: bool) -> list[str]:
    """The options of ``sincut train`` for what was chosen.

    Args:
        given: ``minutes`` (text, empty for until it is stopped), ``preset``, ``method``, ``look``,
            ``stroke``, ``seed``, and ``settings``: other fields by name, as text. What is absent
            or empty stays at its default.

    Raises:
        SincutError: what the command would say of a value.
    """
    kind: type[PairConfig | FolderConfig] = FolderConfig if folders else PairConfig
    minutes = str(given.get("minutes", ""))
    if minutes not in MINUTES:
        raise SincutError(f"minutes must be one of 2, 5, 15 or nothing, got {minutes}")
    settings = given.get("settings", {})
    if not isinstance(settings, dict):
        raise SincutError("settings must be fields by name; reload the page")
    changes = {} if minutes else dict(UNTIL_STOPPED)
    names = ("seed",) if folders else (*_SLIDERS, "seed")
    changes |= {name: str(given[name]) for name in names if given.get(name) not in (None, "")}
    changes |= {str(name): str(value) for name, value in settings.items() if value != ""}
    preset, method = str(given.get("preset") or ""), str(given.get("method") or "")
    if minutes and "steps" in changes:
        raise SincutError(
            f"a time of {minutes} minutes and steps={changes['steps']} both set the length; choose "
            "until it is stopped, or no steps"
        )
    if folders:
        folder_config(preset or FOLDER_DEFAULT, method or None, **changes)
    else:
        train_config(preset or DEFAULT_PRESET, method or "sincut", **changes)
    words = [f"--minutes={minutes}"] if minutes else []
    words += [f"--preset={preset}"] if preset else []
    words += [f"--method={method}"] if method else []
    return [*words, *(_word(kind, name, value) for name, value in changes.items())]


def translating_words(given: Mapping[str, Any]) -> list[str]:
    """The options of ``sincut translate`` for what was chosen: fields by name, as text.

    Raises:
        SincutError: what the command would say of a value, or a field that no page shows.
    """
    changes = {str(name): str(value) for name, value in given.items() if value not in (None, "")}
    for name in changes:
        if name not in _TRANSLATING:
            raise SincutError(f"{name} is not chosen here; allowed: {', '.join(_TRANSLATING)}")
    config = TranslateConfig().replaced(**changes)
    words = []
    for name in changes:
        value = getattr(config, name)
        if value == getattr(TranslateConfig(), name):
            continue
        words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={changes[name]}"))
    return words


def _word(kind: type[Config], name: str, value: str) -> str:
    """A field as one word: what begins with a dash is no option then."""
    option, _, _ = kind.flag(name, value).partition(" ")
    return f"--set={name}={value}" if option == "--set" else f"{option}={value}"


def length_words(more: Any, steps: int) -> list[str]:
    """The option that makes a run longer by so many steps; none for ``None``.

    Raises:
        SincutError: it is no number of steps.
    """
    if more is None:
        return []
    if type(more) is not int or not 1 <= more <= 100_000_000:
        raise SincutError(f"a run is extended by 1 to 100000000 steps, got {more}")
    return [f"--steps={steps + more}"]


def title_of(content: Path, style: Path) -> str:
    """What a project is called until it gets another title."""
    return f"{content.stem} + {style.stem}"
