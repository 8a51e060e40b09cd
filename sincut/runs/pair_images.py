"""The two images of a pair, read as a training's settings ask for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sincut.compute.memory import free_memory
from sincut.config.parts import PAIR_AS_IT_IS, PairImageSettings
from sincut.config.training import PairConfig
from sincut.data.places import ANYWHERE, Mask, Places, grid_of, mask_of, put_together, squares_of
from sincut.errors import SincutError
from sincut.images.bit_depth import as_depth
from sincut.images.reading.asked import AskedPart, AskedValues
from sincut.images.reading.open import image_size, open_source, read_picture
from sincut.images.reading.overview import overview
from sincut.images.reading.source import Picture, Pixels, Source, in_srgb
from sincut.images.tissue import tissue_of
from sincut.units import byte_text

_BYTES = 6  # a pixel, at least: as it is read, and as crops are cut from it
_MOST_PIXELS = 1_000_000_000  # of an image, where nothing tells how much memory is free
_LEAST_TISSUE = 0.001  # of an image
_GLASS, _FRAME = (40, 60, 220), (255, 220, 0)  # colours of the picture of a mask


@dataclass(frozen=True)
class PairImage:
    """One of a pair as it is trained on: ``picture`` is all that was asked for, or squares of it
    put together, and ``size`` (W, H) that of all. ``mask`` is a small picture (h, w, 3) of it, its
    glass in blue, squares framed, where tissue was looked for. ``told`` are notices."""

    picture: Picture
    size: tuple[int, int]
    places: Places
    mask: Pixels | None
    told: tuple[str, ...]


@dataclass(frozen=True)
class _Asked:
    """What a configuration asks of an image of a pair."""

    path: Path
    part: AskedPart
    values: AskedValues
    prefix: str
    mask: str = "none"
    regions: int = 0
    side: int = 0
    seed: int = 0

    @classmethod
    def of(cls, path: Path, settings: PairImageSettings, role: str) -> _Asked:
        prefix = "style_" if role == "style" else ""
        asked = cls(path, AskedPart.of(settings, role), AskedValues.of(settings, role), prefix)
        if not isinstance(settings, PairConfig):
            return asked
        return replace(
            asked,
            mask=getattr(settings, f"{prefix}mask"),
            regions=getattr(settings, f"{prefix}regions"),
            side=settings.region_side,
            seed=settings.seed,
        )

    def flag(self, name: str, value: Any) -> str:
        """What to type to ask for something else."""
        return PairConfig.flag(f"{self.prefix}{name}", value)


def read_pair_image(
    path: Path, role: str, settings: PairImageSettings = PAIR_AS_IT_IS
) -> PairImage:
    """The ``content`` or ``style`` of a pair; of a :class:`PairConfig` also its tissue and squares.

    Raises:
        SincutError: it cannot be read, has no tissue or too few squares where these are asked for,
            or there is not so much memory.
    """
    asked = _Asked.of(path, settings, role)
    told_free = free_memory() is not None
    most = sys.maxsize if asked.regions or told_free else _MOST_PIXELS
    width, height = image_size(path, most, asked.part)
    _check_memory(asked, width, height)
    found = _tissue(asked) if asked.mask == "auto" else None
    tissue = None if found is None else found[1]
    told, squares, places = [], None, ANYWHERE
    if tissue is not None:
        places = Places(tissue=tissue[None])
        told.append(
            f"{tissue.mean():.1%} of it is taken for tissue, where crops have their centres"
        )
    if asked.regions:
        squares = _squares(asked, (height, width), tissue)
        places = Places(grid_of(len(squares)))
        if tissue is not None:
            of_each = [mask_of(tissue, (height, width), at, asked.side) for at in squares]
            places = Places(places.grid, np.stack(of_each))
        share = len(squares) * asked.side**2 / (width * height)
        told.append(
            f"{len(squares)} squares of {asked.side}×{asked.side} pixels, {share:.2%} of its "
            f"{width}×{height}, are trained on"
        )
    picture = _read(asked, squares)
    mask = None
    if found is not None:
        mask = _shown(*found, (height, width), squares or [], asked.side)
    return PairImage(picture, (width, height), places, mask, (*_of_picture(picture), *told))


def _tissue(asked: _Asked) -> tuple[Pixels, Mask]:
    """An overview, and where it shows tissue."""
    small = overview(asked.path, asked.part, asked.values)
    tissue = tissue_of(small)
    if tissue.mean() < _LEAST_TISSUE:
        raise SincutError(
            f"{asked.path} shows no tissue: nothing, or nearly nothing, is more colourful than "
            f"glass; try {asked.flag('mask', 'none')}, or another {asked.flag('region', 'X,Y,W,H')}"
        )
    return small, tissue


def _check_memory(asked: _Asked, width: int, height: int) -> None:
    pixels = asked.regions * asked.side**2 if asked.regions else width * height
    needed, free = _BYTES * pixels, free_memory()
    if free is None or needed <= free:
        return
    fewer = max(free // (_BYTES * max(asked.side, 1) ** 2), 1)
    hint = (
        asked.flag("regions", fewer)
        if asked.regions
        else f"{asked.flag('regions', 16)}, {asked.flag('region', 'X,Y,W,H')} or "
        f"{asked.flag('level', 'N')}"
    )
    raise SincutError(
        f"{asked.path} has {pixels if asked.regions else f'{width}×{height}'} pixels to train on, "
        f"which take at least {byte_text(needed)} of memory, free are {byte_text(free)}; try {hint}"
    )


def _squares(asked: _Asked, size: tuple[int, int], tissue: Mask | None) -> list[tuple[int, int]]:
    found, among = squares_of(size, asked.side, asked.regions, asked.seed, tissue)
    if len(found) == asked.regions:
        return found
    what = "" if tissue is None else ", at least half of each tissue"
    fewer = f"{asked.flag('regions', among)} or " if among else ""
    smaller = max(asked.side // 2, 16)
    raise SincutError(
        f"{asked.path} has room for {among} squares of {asked.side}×{asked.side} pixels{what}, got "
        f"{asked.flag('regions', asked.regions)}; try {fewer}--set region_side={smaller}"
    )


def _read(asked: _Asked, squares: list[tuple[int, int]] | None) -> Picture:
    """All that is asked for, or squares of it put together. These are read alone where the file is
    read by windows, and otherwise cut from the whole."""
    if squares is None:
        return read_picture(asked.path, sys.maxsize, asked=asked.values, part=asked.part)
    side = asked.side
    with open_source(
        asked.path,
        max_pixels=sys.maxsize,
        max_memory=sys.maxsize,
        level=asked.part.level,
        region=asked.part.region,
        asked=asked.values,
    ) as source:
        if source.by_window:
            read = [_square(source, top, left, side) for top, left in squares]
            kind, taken = source.dtype.name, source.colours.range
            notices = source.told_of_integers()
            return Picture(put_together(read), notices=notices, range=taken, kind=kind)
    picture = read_picture(asked.path, sys.maxsize, asked=asked.values, part=asked.part)
    parts = [(slice(top, top + side), slice(left, left + side)) for top, left in squares]
    alpha = picture.alpha
    if alpha is not None:
        alpha = put_together([alpha[part] for part in parts])
    return replace(picture, rgb=put_together([picture.rgb[part] for part in parts]), alpha=alpha)


def _square(source: Source, top: int, left: int, side: int) -> Pixels:
    read = source.read(slice(top, top + side), slice(left, left + side))
    pixels: Pixels = as_depth(in_srgb(source, read), np.dtype(np.uint8))
    return pixels


def _shown(
    small: Pixels,
    tissue: Mask,
    size: tuple[int, int],
    squares: list[tuple[int, int]],
    side: int,
) -> Pixels:
    """The overview with its glass in blue and frames around squares of the image of ``size``."""
    shown = small.copy()
    shown[~tissue] = (small[~tissue] // 2 + np.array(_GLASS) // 2).astype(np.uint8)
    down, across = small.shape[0] / size[0], small.shape[1] / size[1]
    for top, left in squares:
        rows = slice(int(top * down), max(int((top + side) * down), int(top * down) + 1))
        columns = slice(
            int(left * across), max(int((left + side) * across), int(left * across) + 1)
        )
        framed = shown[rows, columns]
        inside = framed[1:-1, 1:-1].copy()
        framed[:] = _FRAME
        framed[1:-1, 1:-1] = inside
    return shown


def _of_picture(picture: Picture) -> list[str]:
    """Notices of an image that is trained on."""
    told = list(picture.notices)
    if picture.alpha is not None and not picture.alpha.all():
        share = np.mean(picture.alpha == 0)
        told.append(
            "its alpha channel is left out, so that the colours under what is wholly transparent, "
            f"{share:.2%} of it, are trained on"
        )
    return told
