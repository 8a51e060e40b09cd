"""``sincut info``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sincut.cli.options import PATH
from sincut.config.presets import FOLDER_PRESETS, PRESETS, folder_config, train_config
from sincut.config.training import (
    FOLDER_METHODS,
    METHODS,
    FolderConfig,
    PairConfig,
    TrainConfig,
)
from sincut.config.translating import InspectConfig, TranslateConfig
from sincut.errors import SincutError, printable

_COMMAND = "sincut info --settings"
_INTRODUCTION = f"""\
# Settings

`{_COMMAND}` prints this page; nobody edits it by hand. `sincut info RUN` lists the
values that one run had.

In the column *meaning*, (paper) marks a value of the paper, (published) a value of the authors'
code, and (ours) an addition of this project. The bounds in *allowed* are allowed themselves. Some
settings also have to fit each other: where they do not, an error says what to try. *advanced*
settings are for who develops a method or a tool; `--help` does not show them."""
_TABLES = (
    (
        "Training",
        """\
`sincut train` and `sincut ablate` set a field with `--set name=value`; `preset`, `method` and the
fields that people change most have options of their own. In Python a field is an argument of
`sincut.train`. The defaults are those of the preset `paper`.""",
        PairConfig,
    ),
    (
        "Training on folders",
        """\
The same commands, given two folders of images. The defaults are those of the preset `cut`.""",
        FolderConfig,
    ),
    (
        "Translation",
        """\
A field is an option of `sincut translate`, with `-` for `_` (`--working-width`), and in Python an
argument of `sincut.translate`.""",
        TranslateConfig,
    ),
    (
        "Inspection",
        """\
A field is an option of `sincut inspect`, and in Python an argument of `sincut.inspect`.""",
        InspectConfig,
    ),
)
_PRESETS = """\
A preset is a named set of values for training. The table shows the fields that a preset changes; –
is the value of `paper`. What the command line sets goes over the preset."""
_METHODS = """\
A method changes losses; – is the preset's value. A method goes over the preset, and what the
command line sets goes over both."""


@click.command()
@click.argument("model", metavar="[RUN_OR_MODEL]", required=False, type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--settings",
    is_flag=True,
    help="Print every setting with its default, meaning and allowed values, all presets and all "
    "methods, as Markdown, instead of what a run or model file is.",
)
def info(model: Path | None, as_json: bool, settings: bool) -> None:
    """Say what a run or model file is: networks, images, steps, every setting.

    With --settings: say what can be set.
    """
    if settings:
        if model is not None or as_json:
            given = "--json" if model is None else str(model)
            raise SincutError(f"--settings stands alone, got {given} with it; try {_COMMAND}")
        click.echo(settings_page())
        return
    if model is None:
        raise SincutError(
            f"info takes a run folder, a model file or --settings, got none; try {_COMMAND}"
        )
    from sincut.models.architectures import description
    from sincut.models.model_file import load_model

    loaded = load_model(model)
    generator = loaded.generator
    facts: dict[str, Any] = {
        **loaded.header,
        "generator": description(generator),
        "parameters": sum(p.numel() for p in generator.parameters()),
        "halo": generator.halo,
        "alignment": generator.alignment,
    }
    click.echo(json.dumps(facts) if as_json else "\n".join(map(printable, _lines(facts))))


def settings_page() -> str:
    """Everything that can be set, as a page of Markdown: fields, presets, methods."""
    parts = [_INTRODUCTION]
    for title, text, config in _TABLES:
        rows = [
            (f"`{field.name}`", _shown(field.default), _meaning(field), _allowed(field))
            for field in dataclasses.fields(config)
        ]
        table = _table(("name", "default", "meaning", "allowed"), rows)
        parts += [f"## {title}", text, table]
    parts += ["## Presets", _PRESETS]
    parts += _presets(PRESETS, PairConfig(), "paper")
    parts += ["Of two folders; – is the value of `cut`:"]
    parts += _presets(FOLDER_PRESETS, FolderConfig(), "cut")
    parts += ["## Methods", _METHODS]
    parts.append(_side_by_side({method: _of_method(method) for method in METHODS}, PairConfig))
    of_folders = {method: _of_folder_method(method) for method in FOLDER_METHODS}
    parts += ["Of two folders:", _side_by_side(of_folders, FolderConfig)]
    return "\n\n".join(parts)


def _presets(
    presets: Mapping[str, tuple[str, Mapping[str, Any]]], default: TrainConfig, base: str
) -> list[str]:
    """What presets are, and what each of them changes."""
    about = "\n".join(f"- `{name}`: {text}" for name, (text, _) in presets.items())
    values = {name: dict(values) for name, (_, values) in presets.items()}
    if "fastcut" in values:
        values["fastcut"] = {"method": "fastcut"}
    names = {name for of_preset in values.values() for name in of_preset}
    values[base] = {name: value for name, value in default.to_dict().items() if name in names}
    return [about, _side_by_side(values, type(default))]


def _meaning(field: dataclasses.Field[Any]) -> str:
    text: str = field.metadata["help"]
    return f"*advanced:* {text}" if field.metadata["advanced"] else text


def _of_method(method: str) -> dict[str, Any]:
    """What a method changes in any preset."""
    changes: dict[str, Any] = {}
    for preset in PRESETS:
        before = train_config(preset).to_dict()
        after = train_config(preset, method).to_dict()
        changes |= {name: value for name, value in after.items() if value != before[name]}
    return {name: value for name, value in changes.items() if name != "method"}


def _of_folder_method(method: str) -> dict[str, Any]:
    """What a method changes on folders."""
    before, after = folder_config("cut").to_dict(), folder_config("cut", method).to_dict()
    changed = {name: value for name, value in after.items() if value != before[name]}
    return {name: value for name, value in changed.items() if name != "method"}


def _side_by_side(columns: Mapping[str, Mapping[str, Any]], config: type[TrainConfig]) -> str:
    """A table with a column for each set of values, and the fields in their own order."""
    names = [field.name for field in dataclasses.fields(config)]
    rows = [
        (f"`{name}`", *(_shown(it[name]) if name in it else "–" for it in columns.values()))
        for name in names
        if any(name in it for it in columns.values())
    ]
    return _table(("name", *(f"`{column}`" for column in columns)), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    from sincut.pages import markdown

    return markdown.table(heads, ([cell.replace("|", r"\|") for cell in row] for row in rows))


def _shown(value: Any) -> str:
    """A value as one types it, marked as code."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, tuple | list):
        text = ",".join(map(str, value))
    else:
        text = str(value)
    return f"`{text}`" if text else "none"


def _allowed(field: dataclasses.Field[Any]) -> str:
    """Which values a field takes, in words."""
    low, high = field.metadata["low"], field.metadata["high"]
    if field.metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    if isinstance(field.default, bool):
        return "`true`, `false`"
    if isinstance(field.default, str):
        return "text, as the meaning says"
    if isinstance(field.default, tuple):
        return "whole numbers, separated by commas"
    kind = "number" if isinstance(field.default, float) else "whole number"
    if low is None and high is None:
        return f"a {kind}"
    if high is None:
        return f"{kind} from {_bound(low)}"
    return f"{kind} from {_bound(low)} to {_bound(high)}"


def _bound(value: float) -> str:
    if isinstance(value, int) and value >= 2**31 - 1:
        return f"2^{value.bit_length()} − 1"
    return str(value) if isinstance(value, int) else f"{value:g}"


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, f"{indent}  ")]
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {text}")
    return lines
