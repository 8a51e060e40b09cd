"""The images of an ablation: what its trials are trained on, and how their results are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sincut.ablation.kinds import FOLDERS, PAIR, Kind
from sincut.config.training import FolderConfig, TrainConfig
from sincut.data.image_folder import decoded
from sincut.images.identity import is_zarr
from sincut.images.reading.source import Pixels
from sincut.models.generator import Generator
from sincut.runs.events import Event
from sincut.runs.final_colours import translated
from sincut.runs.folder import RunFolder, RunImage
from sincut.runs.folder_subject import SHOWN, FolderSubject, evenly
from sincut.runs.pair_subject import PairSubject
from sincut.runs.train import refuse_folder_options

Held = tuple[Path | str, Path | str]


class TrialImages(Protocol):
    """What an ablation asks about its images.

    Attributes:
        kind: a pair, or two folders.
        paths: content and style as :func:`sincut.runs.train.train` takes them.
        options: what else it is told of them.
        records: what the plan keeps, by what it is of.
        places: paths that may stand in messages.
    """

    kind: Kind
    paths: tuple[Path, Path | None]
    options: Mapping[str, Any]
    records: Mapping[str, RunImage | RunFolder]
    places: tuple[Path, ...]

    @property
    def shown(self) -> Sequence[tuple[str, Pixels]]:
        """Labels and pictures that stand before the results, (H, W, 3) uint8 sRGB."""
        ...

    def with_length(self, config: TrainConfig) -> TrainConfig:
        """The configuration with its number of steps."""
        ...

    def prepare(self, config: TrainConfig) -> None:
        """Work out what results are compared with; of all trials as of the first, whose
        configuration is given.

        Raises:
            SincutError: the images cannot be measured.
        """
        ...

    def picture(self, generator: Generator, config: TrainConfig) -> Pixels:
        """What is shown of a trial, (H, W, 3) uint8 sRGB; prepared."""
        ...

    def figures(self, generator: Generator, picture: Pixels) -> dict[str, float]:
        """Figures by name of a trial whose picture is known; prepared."""
        ...


def read_images(
    content: Path | str, style: Path | str | None, held_out: Held | None, skip_bad: bool
) -> TrialImages:
    """The pair, or the two folders.

    Raises:
        SincutError: they cannot be read, or options of folders are given with a pair.
    """
    if style is None or (Path(content).is_dir() and not is_zarr(Path(content))):
        return _FolderImages(
            Path(content), None if style is None else Path(style), held_out, skip_bad
        )
    refuse_folder_options(skip_bad=skip_bad, held_out=held_out is not None)
    return _PairImages(Path(content), Path(style))


def _silent(_: Event) -> None:
    """The trials tell what is to be known of the images."""


class _PairImages:
    """A pair; a kind of ``TrialImages``. The result is the content translated at its own size."""

    kind = PAIR
    options: Mapping[str, Any] = {}

    def __init__(self, content: Path, style: Path) -> None:
        self.paths: tuple[Path, Path | None] = (content, style)
        self.places: tuple[Path, ...] = (content, style)
        self.subject = PairSubject.read(content, style, _silent)
        self.records: Mapping[str, RunImage | RunFolder] = {
            name: RunImage(**record) for name, record in self.subject.records.items()
        }

    @property
    def shown(self) -> Sequence[tuple[str, Pixels]]:
        return list(zip(("content", "style"), self.subject.data, strict=True))

    def with_length(self, config: TrainConfig) -> TrainConfig:
        return config

    def prepare(self, config: TrainConfig) -> None:
        self.subject.prepare_figures()

    def picture(self, generator: Generator, config: TrainConfig) -> Pixels:
        return translated(self.subject.data.content, generator)

    def figures(self, generator: Generator, picture: Pixels) -> dict[str, float]:
        assert self.subject.comparison is not None
        return dataclasses.asdict(self.subject.comparison.figures(picture))


class _FolderImages:
    """Two folders; a kind of ``TrialImages``. The result is a sheet of held-out images.

    Trials are measured on images of one size, whatever size they are trained at.
    """

    kind = FOLDERS

    def __init__(
        self, content: Path, style: Path | None, held_out: Held | None, skip_bad: bool
    ) -> None:
        self.paths = content, style
        self.options: Mapping[str, Any] = {"held_out": held_out, "skip_bad": skip_bad}
        self.subject = FolderSubject.read(content, style, held_out, _silent, skip_bad=skip_bad)
        names = ("content", "style", "held-out content", "held-out style")
        folders = (*self.subject.data.both, *self.subject.held_out.both)
        self.records: Mapping[str, RunImage | RunFolder] = {
            name: RunFolder.of(folder) for name, folder in zip(names, folders, strict=True)
        }
        self.places = tuple(folder.path for folder in folders)

    @cached_property
    def shown(self) -> Sequence[tuple[str, Pixels]]:
        images = evenly(self.subject.held_out.style.images, SHOWN)
        return [("style", _row([decoded(image, 0) for image in images], FOLDERS.cell // SHOWN))]

    def with_length(self, config: TrainConfig) -> TrainConfig:
        assert isinstance(config, FolderConfig)
        return self.subject.with_length(config)

    def prepare(self, config: TrainConfig) -> None:
        self.with_length(config)
        self.subject.prepare_figures()

    def picture(self, generator: Generator, config: TrainConfig) -> Pixels:
        return self.subject.preview(generator, config)

    def figures(self, generator: Generator, picture: Pixels) -> dict[str, float]:
        return self.subject.figures(generator)


def _row(pictures: Sequence[Pixels], side: int) -> Pixels:
    """Pictures beside each other on white, each in a square of so many pixels."""
    row = Image.new("RGB", (side * len(pictures), side), "white")
    for index, pixels in enumerate(pictures):
        small = Image.fromarray(pixels)
        small.thumbnail((side - 2, side - 2), Image.Resampling.BICUBIC)
        row.paste(small, (index * side, 0))
    return np.asarray(row)
