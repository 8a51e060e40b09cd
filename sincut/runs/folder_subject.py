"""Two folders of images as what a run is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sincut.config.parts import AS_THEY_ARE, ImageSettings
from sincut.config.training import FolderConfig, TrainConfig
from sincut.data.folders import Folders
from sincut.data.image_folder import (
    FolderImage,
    ImageFolder,
    both_folders,
    decoded,
    held_out_folders,
    read_folder,
)
from sincut.errors import SincutError
from sincut.evaluation.folders import FolderComparison
from sincut.evaluation.judge import lite_judge
from sincut.images.reading.asked import AskedValues
from sincut.images.reading.source import Pixels
from sincut.models.generator import Generator
from sincut.runs.events import Listener, Noticed
from sincut.runs.final_colours import translated
from sincut.runs.folder import RunFolder, RunRecord
from sincut.runs.folder_report import write_folder_report
from sincut.runs.report import LARGEST
from sincut.runs.subject import Progress
from sincut.training.state import State

SHOWN = 6  # images of a preview's sheet
_MEASURED, _STYLES = 32, 256  # images whose figures are taken on the way, and of the style at most
_GAP = 4  # pixels between the sheet's images


@dataclass
class FolderSubject:
    """Two folders, and images that are not trained on where there are some; a kind of ``Subject``.

    ``side`` is the shorter side of images in previews and figures: the size they are trained at.
    ``judged`` says that figures must have distances.
    """

    data: Folders
    held_out: Folders
    records: Mapping[str, dict[str, Any]]
    side: int = 0
    judged: bool = False
    comparison: FolderComparison | None = None
    kept: dict[tuple[Path, int], Pixels] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        content: Path | str,
        style: Path | str | None,
        held_out: tuple[Path | str, Path | str] | None,
        tell: Listener,
        *,
        skip_bad: bool,
        images: ImageSettings = AS_THEY_ARE,
    ) -> FolderSubject:
        """Look at the headers of all images; what will be done with them is told."""
        paths = both_folders(Path(content), None if style is None else Path(style))
        folders = _read(paths, skip_bad, tell, images)
        return cls.of(folders, held_out, tell, skip_bad=skip_bad, images=images)

    @classmethod
    def of(
        cls,
        folders: Folders,
        held_out: tuple[Path | str, Path | str] | None,
        tell: Listener,
        *,
        skip_bad: bool,
        images: ImageSettings = AS_THEY_ARE,
    ) -> FolderSubject:
        """As :meth:`read`, of folders that are read."""
        given = held_out or held_out_folders(*(folder.path for folder in folders.both))
        tested = folders
        if given is None:
            text = "previews and figures are of images that are trained on; try --held-out"
            tell(Noticed("held-out images", text))
        else:
            tested = _read((Path(given[0]), Path(given[1])), skip_bad, tell, images)
        records = {
            name: RunFolder.of(folder).record()
            for name, folder in zip(("content", "style"), folders.both, strict=True)
        }
        return cls(folders, tested, records)

    def with_length(self, config: FolderConfig, processes: int = 1) -> FolderConfig:
        """The configuration with the steps that its epochs come to, where they give the length.

        Each of several ``processes`` takes a batch per step.
        """
        self.side, self.judged = min(config.load, config.falling_load), config.keeps_best
        if config.steps:
            return config
        passes = config.epochs + config.falling_epochs
        whole = processes * config.batch
        return config.replaced(steps=passes * max(self.data.epoch // whole, 1))

    def keep(self, folder: Path) -> None:
        """As :meth:`Subject.keep`: all of them are, so nothing."""

    def final(self, state: State) -> Generator:
        """As :meth:`Subject.final`: the average."""
        return state.averaged_generator

    def brushwork(self, config: TrainConfig) -> None:
        """As :meth:`Subject.brushwork`: none."""

    def preview(self, generator: Generator, config: TrainConfig) -> Pixels:
        """As :meth:`Subject.preview`: a sheet of images, each above its translation."""
        columns = []
        for image in evenly(self.held_out.content.images, SHOWN):
            before = self._pixels(image)
            pair = [
                _fitted(each, config.preview_width)
                for each in (before, translated(before, generator))
            ]
            columns.append(np.concatenate([pair[0], _gap(_GAP, pair[0].shape[1]), pair[1]]))
        return _beside(columns)

    def prepare_figures(self) -> None:
        """As :meth:`Subject.prepare_figures`."""
        if self.comparison is None:
            contents = [self._pixels(image) for image in self._measured()]
            styles = (self._pixels(i) for i in evenly(self.held_out.style.images, _STYLES))
            judge = lite_judge()
            if judge is None and self.judged:
                raise SincutError(
                    "keep=best takes the extra judge, which is not installed; try pip install "
                    "'sincut[judge]'"
                )
            self.comparison = FolderComparison(contents, styles, judge)

    def figures(self, generator: Generator) -> dict[str, float]:
        """As :meth:`Subject.figures`: structure, and distances to the style where there is a
        judge."""
        self.prepare_figures()
        assert self.comparison is not None
        outputs = (translated(self._pixels(image), generator) for image in self._measured())
        return self.comparison.figures(outputs)

    def write_report(
        self, record: RunRecord, target: Path, generator: Generator, step: int, progress: Progress
    ) -> None:
        """As :meth:`Subject.write_report`."""
        images = [
            (image.path.name, self._pixels(image))
            for image in evenly(self.held_out.content.images, 2 * SHOWN)
        ]
        styles = [self._pixels(image) for image in evenly(self.held_out.style.images, SHOWN)]
        write_folder_report(record, target, generator, images, styles, step, progress)

    def report_bytes(self) -> int:
        """As :meth:`Subject.report_bytes`: its pictures are small."""
        return 2 * LARGEST

    def report_seconds(self, preview_seconds: float, config: TrainConfig) -> float:
        """As :meth:`Subject.report_seconds`: it shows twice as many images as a preview."""
        return 3 + 2 * preview_seconds

    def _measured(self) -> list[FolderImage]:
        return evenly(self.held_out.content.images, _MEASURED)

    def _pixels(self, image: FolderImage) -> Pixels:
        """An image at the size it is trained at, its aspect kept."""
        key = image.path, self.side
        if key not in self.kept:
            pixels = Image.fromarray(decoded(image, 0))
            scale = min(self.side / min(pixels.size), 1.0)
            size = tuple(max(round(side * scale), 1) for side in pixels.size)
            shrunk = pixels.resize((size[0], size[1]), Image.Resampling.BICUBIC)
            self.kept[key] = np.array(shrunk)  # a copy: Pillow's own is not writable
        return self.kept[key]


def evenly(images: tuple[FolderImage, ...], count: int) -> list[FolderImage]:
    """At most so many of them, the same every time."""
    count = min(count, len(images))
    return [images[i * len(images) // count] for i in range(count)]


def _read(
    paths: tuple[Path, Path], skip_bad: bool, tell: Listener, images: ImageSettings
) -> Folders:
    folders: list[ImageFolder] = []
    for role, path in zip(("content", "style"), paths, strict=True):
        asked = AskedValues.of(images, role)
        folder = read_folder(path, skip_bad=skip_bad, asked=asked)
        tell(Noticed(f"the images in {path}", f"{len(folder.images)}, {folder.sizes()} pixels"))
        for bad, reason in folder.bad:
            tell(Noticed(str(bad), f"it is left out: {reason}"))
        folders.append(folder)
    return Folders(folders[0], folders[1])


def _fitted(pixels: Pixels, side: int) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _gap(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), 255, np.uint8)


def _beside(columns: list[Pixels]) -> Pixels:
    """Pictures side by side, on white."""
    height = max(len(column) for column in columns)

    def parts() -> Iterator[Pixels]:
        for index, column in enumerate(columns):
            if index:
                yield _gap(height, _GAP)
            yield np.concatenate([column, _gap(height - len(column), column.shape[1])])

    return np.concatenate(list(parts()), axis=1)
