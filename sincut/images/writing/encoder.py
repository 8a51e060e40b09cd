"""What an encoder of bands does, and what encoders share."""

from __future__ import annotations

import abc
import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sincut.images.metadata import KeptMetadata, save_options
from sincut.images.writing.layout import BandPixels, Encoded, Entry, Layout, Progress
from sincut.images.writing.part_file import PartFile


class Encoder(abc.ABC):
    """Turns bands of pixels into the bytes of one image format, and ends the file."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.lost: list[str] = []  # notices of metadata that the format cannot hold

    @abc.abstractmethod
    def start(self) -> bytes:
        """What the part file begins with."""

    @abc.abstractmethod
    def encode(self, index: int, band: BandPixels) -> Encoded:
        """A band (rows, W, C) of the layout's type as it will stand in the file. Pure."""

    def note(self, encoded: Encoded, entries: Sequence[Entry]) -> Entry:
        """What the journal says of a band that follows ``entries``."""
        return encoded.note

    @abc.abstractmethod
    def finish(self, part: PartFile, progress: Progress) -> None:
        """End the file and publish it."""


class _WithOptions(Encoder):
    """An encoder that takes its metadata from Pillow."""

    kind: str
    fixed: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, layout: Layout, carried: KeptMetadata, strip_metadata: bool) -> None:
        super().__init__(layout)
        self.options = dict(self.fixed)
        self.aspect = None if strip_metadata else carried.records.aspect
        if carried.profile is not None:
            self.options["icc_profile"] = carried.profile
        if not strip_metadata:
            more, _, self.lost = save_options(self.kind, carried)
            self.options |= more


@contextlib.contextmanager
def _removed_on_failure(*paths: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
