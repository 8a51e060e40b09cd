"""What a model's header says of the values that it learned on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sincut.images.reading.asked import AS_STORED, AskedValues


def learned_values(header: Mapping[str, Any]) -> AskedValues:
    """The range of the content that training took for black and white, for values of its type."""
    content = header.get("content") or {}
    if not content.get("range"):
        return AS_STORED
    low, high = content["range"]
    return AskedValues((low, high), kind=content["values"], why=", as the model learned")


def learned_bands(header: Mapping[str, Any]) -> str:
    """The bands of the content that training took for its colours, as text; nothing where it took
    the first ones."""
    return str((header.get("config") or {}).get("bands", ""))
