"""What of an image is asked for: which part, which values are black and white, which bands are its
colours. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sincut.config.fields import Config
from sincut.config.values import (
    AUTO,
    COPY,
    DROP,
    FULL,
    LEARNED,
    Bands,
    Range,
    bands_of,
    range_of,
    range_text,
)
from sincut.errors import SincutError
from sincut.images.profiles import Colours
from sincut.images.reading.samples import BANDS, Samples


@dataclass(frozen=True)
class Region:
    """A part of an upright image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, numbers: tuple[int, ...]) -> Region | None:
        """From X, Y, W, H as a configuration has them, or nothing."""
        if not numbers:
            return None
        left, top, width, height = numbers
        return cls(left, top, width, height)


@dataclass(frozen=True)
class AskedPart:
    """Which part of an image is read: of an image that has smaller copies of itself the level, 0 is
    the largest; and a region in that level's pixels, or all of it."""

    level: int = 0
    region: Region | None = None

    @classmethod
    def of(cls, config: Config, role: str = "content") -> AskedPart:
        """What a configuration's ``level`` and ``region`` say, or for the role ``style`` its
        ``style_level`` and ``style_region``."""
        prefix = "style_" if role == "style" else ""
        return cls(getattr(config, f"{prefix}level"), Region.of(getattr(config, f"{prefix}region")))

    def described(self) -> str:
        """In words, such as ``region 0,0,64,64 of level 1``."""
        level = f"level {self.level}"
        if self.region is None:
            return level
        where = self.region
        return f"region {where.left},{where.top},{where.width},{where.height} of {level}"


WHOLE = AskedPart()


@dataclass(frozen=True)
class AskedValues:
    """What is asked of an image's values.

    ``range`` holds those that become black and white, in the file's own units; without it all
    that their type holds are taken, unless it is ``automatic``: to be found. ``kind`` is the name
    of the type that the range is of, where it is of other images: of what is of another type, or
    not read as it stands, all values are taken.
    ``bands`` are red, green and blue, counted from 1; ``copied`` says whether the others follow
    them as they are. ``why`` goes behind what is told.
    """

    range: Range | None = None
    automatic: bool = False
    kind: str = ""
    bands: Bands | None = None
    copied: bool = False
    why: str = ""

    @classmethod
    def of(cls, config: Config, role: str = "content") -> AskedValues:
        """What a configuration's ``range`` and ``bands`` say, or for the role ``style`` its
        ``style_range`` and ``style_bands``."""
        range_name, bands_name = (
            ("style_range", "style_bands") if role == "style" else ("range", "bands")
        )
        automatic = getattr(config, range_name) == AUTO
        values = range_of(config, range_name, (AUTO, FULL, LEARNED))
        copied = getattr(config, "other_bands", DROP) == COPY
        return cls(values, automatic, bands=bands_of(config, bands_name), copied=copied)


AS_STORED = AskedValues()


def ranged(
    path: Path, colours: Colours, layout: Samples, asked: AskedValues
) -> tuple[Colours, list[str]]:
    """Colours that take the range that is asked for, and what is to be told.

    Raises:
        SincutError: the values are not read as they stand, or the range lies outside their type.
    """
    dtype = np.dtype(layout.dtype)
    if asked.range is None or asked.kind not in ("", dtype.name):
        return colours, []
    if changed := _changed(layout):
        if asked.kind:  # nobody asked for it
            return colours, []
        raise SincutError(
            f"{path} {changed}, and a range is of values that are read as they stand; try it "
            "without a range, or a copy as RGB"
        )
    low, high = asked.range
    if dtype.kind == "u" and not 0 <= low < high <= (top := np.iinfo(dtype).max):
        raise SincutError(
            f"{path} has values from 0 to {top}, got the range {range_text(asked.range)}; "
            f"try --range 0,{top}"
        )
    told = f"its values {low:.6g} to {high:.6g} become black to white{asked.why}"
    return replace(colours, range=asked.range), [told]


def _changed(layout: Samples) -> str:
    """What is done to the values of a file while it is read, or nothing."""
    if layout.inverted:
        return "stores white as 0"
    if layout.premultiplied:
        return "has colours multiplied by its alpha"
    if layout.highest not in (None, np.iinfo(np.uint16).max):
        return f"says that {layout.highest} is white"
    if layout.mode == "CMYK" or layout.device is not None:
        return "is brought to RGB by a profile"
    return ""


def with_bands(path: Path, layout: Samples, samples: int, bands: Bands) -> tuple[Samples, str]:
    """A layout of a TIFF whose colours are the chosen bands, and what is told of the others.

    Raises:
        SincutError: it has no such bands.
    """
    if max(bands) > samples:
        hint = "without --bands" if samples < 3 else "--bands 1,2,3"
        count = f"{samples} band{'s' if samples > 1 else ''}"
        raise SincutError(f"{path} has {count}, got bands {','.join(map(str, bands))}; try {hint}")
    red, green, blue = (number - 1 for number in bands)
    left = [number for number in range(samples) if number + 1 not in bands]
    order = (red, green, blue)
    layout = replace(layout, mode="RGB", alpha=False, premultiplied=False, order=order)
    return layout, _spoken(left, "is not kept", "are not kept")


def with_others(layout: Samples, samples: int) -> tuple[Samples, str]:
    """A layout whose colours are followed by all other bands, and what is told of these."""
    colours = BANDS[layout.mode]
    taken = {*(layout.order or range(colours)), *([colours] if layout.alpha else [])}
    others = [number for number in range(samples) if number not in taken]
    return replace(layout, others=tuple(others)), told_of_copies(others)


def told_of_copies(others: list[int]) -> str:
    """What is told of bands, counted from 0, that are copied, or nothing."""
    return _spoken(others, "is copied behind the others", "are copied behind the others")


def _spoken(numbers: list[int], one: str, many: str) -> str:
    """What is told of bands, here counted from 0, or nothing."""
    if not numbers:
        return ""
    listed = ", ".join(str(number + 1) for number in numbers)
    return f"its bands {listed} {many}" if len(numbers) > 1 else f"its band {listed} {one}"


def no_bands(path: Path, kind: str) -> SincutError:
    """Of a file that has none to choose from."""
    return SincutError(
        f"{path} is {kind}, and bands are chosen of a TIFF of several grey bands or colours; try "
        "it without --bands"
    )
