"""What the configurations share: fields that know their meaning and their allowed values.

No torch here: ``sincut --help`` must answer at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

from sincut.errors import SincutError
from sincut.units import byte_count


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
) -> Any:
    """A dataclass field with its meaning and its allowed values (bounds are inclusive).

    An ``advanced`` one is for who develops a method or a tool; ``--help`` does not show it.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "advanced": advanced}
    return dataclasses.field(default=default, metadata=metadata)


DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")


class Config:
    """What the frozen dataclasses below share: validation, text forms, replacement."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _checked(type(self), field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def flag(cls, name: str, value: Any) -> str:
        """What to type to set a field on the command line."""
        return f"--{name.replace('_', '-')} {as_text(value)}"

    def replaced(self, **changes: Any) -> Self:
        """A copy with other values; unknown names and bad values raise :class:`SincutError`."""
        for name in changes:
            field_of(type(self), name)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; :meth:`from_dict` reads them back."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        for name in values:
            field_of(cls, name)
        return cls(**values)


def field_of(config: type[Config], name: str) -> dataclasses.Field[Any]:
    """The field of that name, or a :class:`SincutError` that lists all names."""
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    if name not in fields:
        raise SincutError(
            f"there is no field {name} in the configuration; allowed: {', '.join(sorted(fields))}"
        )
    return fields[name]


def _checked(config: type[Config], field: dataclasses.Field[Any], value: Any) -> Any:
    """The value in the field's type and range; text is parsed, as it comes from ``--set``."""
    name, low, high = field.name, field.metadata["low"], field.metadata["high"]
    hint = f"try {config.flag(name, field.default)}"
    try:
        value = _PARSERS[type(field.default)](value)
    except (KeyError, TypeError, ValueError, OverflowError):
        kind = _KINDS[type(field.default)]
        raise SincutError(f"{name} must be {kind}, got {value}; {hint}") from None
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise SincutError(f"{name} must be one of {', '.join(choices)}, got {value}; {hint}")
    if type(value) in (int, float):
        below, above = low is not None and value < low, high is not None and value > high
        if below or above or not abs(value) < 1e300:
            allowed = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
            raise SincutError(f"{name} must be {allowed}, got {value}; {hint}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    value = value.lower() if isinstance(value, str) else value  # Python's own spelling is fine
    return {True: True, False: False, "true": True, "false": False}[value]


def _whole_numbers(value: Any) -> tuple[int, ...]:
    return tuple(_whole(item) for item in (value.split(",") if isinstance(value, str) else value))


_PARSERS: dict[type, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    bool: _truth,
    str: str,
    tuple: _whole_numbers,
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "whole numbers separated by commas",
}


def amount_of(config: Config, name: str, example: str, *, least: int = 1) -> int | None:
    """The bytes that a field of a configuration says, such as ``1GB``; ``None`` for ``auto``.

    Raises:
        SincutError: it says something else, or less than ``least``.
    """
    text = getattr(config, name)
    if text == "auto":
        return None
    try:
        count = byte_count(text)
    except ValueError:
        count = -1
    if count < least:
        raise SincutError(
            f"{name} must be an amount such as {example} or auto, got {text}; "
            f"try {config.flag(name, example)}"
        )
    return count


def as_text(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
