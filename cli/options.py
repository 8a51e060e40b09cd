"""Options that read their help, default and choices from the configuration's fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from sincut.config.fields import Config, field_of
from sincut.config.parts import ImageSettings, PartSettings, PlaceSettings
from sincut.config.presets import parse_assignments
from sincut.errors import empty_name

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def field_option(
    config: type[Config], name: str, *, default: str = "", metavar: str = ""
) -> Decorator:
    """A ``--name`` for a field. Not given, it is ``None``, so that presets can fill it in.

    ``default`` and ``metavar`` are what the help says instead of the field's own. An advanced field
    works and is not shown; ``sincut info --settings`` lists it.

    The value goes to the configuration as text: its messages are the same as the library's.
    """
    field = field_of(config, name)
    flag = f"--{name.replace('_', '-')}"
    text = field.metadata["help"]
    if isinstance(field.default, bool):
        return click.option(
            flag,
            name,
            is_flag=True,
            default=None,
            help=_sentence(text),
            hidden=field.metadata["advanced"],
        )
    metavar = (
        metavar
        or "|".join(field.metadata["choices"])
        or {int: "INTEGER", float: "NUMBER"}.get(type(field.default), "TEXT")
    )
    return click.option(
        flag,
        name,
        metavar=metavar,
        default=None,
        help=f"{_sentence(text)}  [default: {default or field.default}]",
        hidden=field.metadata["advanced"],
    )


class _GivenPath(click.Path):
    """A path as it was typed; an empty one, as of a variable that is not set, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As :meth:`click.ParamType.convert`."""
        if value == "" and param is not None:
            option = isinstance(param, click.Option)
            name = param.opts[0] if option else param.human_readable_name
            raise empty_name(name)
        return super().convert(value, param, ctx)


PATH = _GivenPath(path_type=Path)
NAME = _GivenPath()  # the same as it was typed: ./a is not a


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of :class:`sincut.config.parts.ImageSettings`."""
    for name in ("style_bands", "style_range", "bands", "range"):
        of_range = name.endswith("range")
        default, metavar = ("full", "LOW,HIGH|auto|full") if of_range else ("first", "R,G,B")
        command = field_option(ImageSettings, name, default=default, metavar=metavar)(command)
    return command


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of :class:`sincut.config.parts.PartSettings`."""
    for name in ("style_region", "style_level", "region", "level"):
        default, metavar = ("0", "INTEGER") if name.endswith("level") else ("all", "X,Y,W,H")
        command = field_option(PartSettings, name, default=default, metavar=metavar)(command)
    return command


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of :class:`sincut.config.parts.PlaceSettings`."""
    for name in ("style_regions", "regions", "style_mask", "mask"):
        command = field_option(PlaceSettings, name)(command)
    return command


def given_changes(assignments: tuple[str, ...], fields: Mapping[str, str | None]) -> dict[str, Any]:
    """What was set with ``--set``, over it what an option of its own gave, still as text."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {**parse_assignments(assignments), **given}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per record on standard output."
)
