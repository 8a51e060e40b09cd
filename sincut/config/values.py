"""Which part of an image is asked for, which of its values are black and white, which of its bands
are its colours, as text."""

from __future__ import annotations

import math

from sincut.config.fields import Config, as_text
from sincut.errors import SincutError

FULL, AUTO, LEARNED = "full", "auto", "learned"  # words in the place of a range
DROP, COPY = "drop", "copy"  # what becomes of bands that are not translated

Range = tuple[float, float]
Bands = tuple[int, int, int]

LEVEL_HELP = "{of} with smaller copies of itself (slides, OME-Zarr); 0: the largest"
REGION_HELP = "X,Y,W,H: only this part {of}, in pixels of its level; none: all of it"
RANGE_HELP = (
    "values {of} that become black and white, LOW,HIGH in the file's own units; auto: percentiles "
    "0.1 and 99.9 of its valid pixels; full: all that its type holds, of floats 0 to 1"
)
BANDS_HELP = (
    "bands {of}, a TIFF or raster, that are red, green and blue, such as 4,3,2, counted from 1; "
    "the first ones otherwise"
)


def range_of(config: Config, name: str, words: tuple[str, ...] = (AUTO, FULL)) -> Range | None:
    """The numbers that a field says, or None where it says one of the words.

    Raises:
        SincutError: it says something else.
    """
    text: str = getattr(config, name)
    if text in words:
        return None
    try:
        low, high = (_number(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if low < high and math.isfinite(high - low):
        return low, high
    allowed = f"{', '.join(words[:-1])} or {words[-1]}"
    raise SincutError(
        f"{name} must be two increasing numbers such as 0,4095, {allowed}, got {text}; "
        f"try {config.flag(name, '0,4095')}"
    )


def bands_of(config: Config, name: str) -> Bands | None:
    """The numbers that a field says, or None where it says none.

    Raises:
        SincutError: it says something else than three whole numbers from 1.
    """
    text: str = getattr(config, name)
    if not text:
        return None
    parts = text.split(",")
    if len(parts) == 3 and all(each.isascii() and each.isdigit() and int(each) for each in parts):
        red, green, blue = map(int, parts)
        return red, green, blue
    raise SincutError(
        f"{name} must be three whole numbers from 1 such as 4,3,2, got {text}; "
        f"try {config.flag(name, '4,3,2')}"
    )


def check_region(config: Config, name: str) -> None:
    """Refuse a field that is no region.

    Raises:
        SincutError: it is neither empty nor four numbers with a width and a height.
    """
    region: tuple[int, ...] = getattr(config, name)
    if region and (len(region) != 4 or min(region) < 0 or 0 in region[2:]):
        raise SincutError(
            f"{name} must be X,Y,W,H with a width and a height above 0, got {as_text(region)}; "
            f"try {config.flag(name, '0,0,1024,1024')}"
        )


def _number(text: str) -> float:
    """A whole one as such, which is told without a point."""
    number = float(text)
    return int(number) if number.is_integer() else number


def range_text(values: Range) -> str:
    """A range as one types it."""
    return ",".join(f"{value:.9g}" for value in values)
