"""The two images of a pair, read as a training's settings ask for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sincut.compute.memory import free_memory
from sincut.config.parts import PairImageSettings
from sincut.errors import SincutError
from sincut.images.reading.asked import AskedPart, AskedValues
from sincut.images.reading.open import image_size, read_picture
from sincut.images.reading.source import Picture
from sincut.units import byte_text

_BYTES = 6  # a pixel, at least: as it is read, and as crops are cut from it


def read_pair_image(path: Path, settings: PairImageSettings, role: str) -> Picture:
    """The ``content`` or ``style`` of a pair.

    Raises:
        SincutError: it cannot be read, or there is not so much memory.
    """
    part = AskedPart.of(settings, role)
    width, height = image_size(path, sys.maxsize, part)
    needed, free = _BYTES * width * height, free_memory()
    if free is not None and needed > free:
        prefix = "style-" if role == "style" else ""
        raise SincutError(
            f"{path} has {width}×{height} pixels to train on, which take at least "
            f"{byte_text(needed)} of memory, free are {byte_text(free)}; try --{prefix}region "
            f"X,Y,W,H or --{prefix}level N"
        )
    asked = AskedValues.of(settings, role)
    return read_picture(path, max_pixels=sys.maxsize, asked=asked, part=part)


def told_of(picture: Picture) -> list[str]:
    """Notices of an image that is trained on."""
    told = list(picture.notices)
    if picture.alpha is not None and not picture.alpha.all():
        share = np.mean(picture.alpha == 0)
        told.append(
            "its alpha channel is left out, so that the colours under what is wholly transparent, "
            f"{share:.2%} of it, are trained on"
        )
    return told
