"""The data of a training on two folders: crops of resized images, drawn from both.

Decoded images are kept, on the training's device, while they fit into a budget of memory, halved as
often as their crops allow. Otherwise they are decoded for every step by processes of their own.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sincut.compute.memory import free_memory
from sincut.compute.processes import ALONE, Processes
from sincut.config.training import FolderConfig, TrainConfig
from sincut.data.colour_transfer import transfer_table
from sincut.data.image_folder import FolderImage, ImageFolder, Pixels, decoded
from sincut.data.random_numbers import RandomNumbers
from sincut.data.recolouring import recoloured
from sincut.data.samples import Sample, check_sizes, level_of, step_samples
from sincut.data.training_data import Crops
from sincut.kernels.crops import resized_crops

_SHARE = 0.25  # of the free memory, for images
_MOST_WORKERS = 8
_AHEAD = 4  # steps that each of them prepares
_COLOUR_IMAGES, _COLOUR_SIDE = 64, 32  # of each folder, for its colours


@dataclass(frozen=True)
class Folders:
    """The images of two folders; a kind of ``TrainingData``."""

    content: ImageFolder
    style: ImageFolder
    kept: dict[tuple[str, str, int, int], _Kept] = field(default_factory=dict)

    @property
    def both(self) -> tuple[ImageFolder, ImageFolder]:
        """Content and style."""
        return self.content, self.style

    @property
    def epoch(self) -> int:
        """Images in a pass: as many as the larger folder has."""
        return max(len(self.content.images), len(self.style.images))

    def feed(self, config: TrainConfig, *, warm: bool, processes: Processes = ALONE) -> FolderFeed:
        """Crops for the steps of a resolved configuration; ``warm``: also of its warm start."""
        assert isinstance(config, FolderConfig)
        return FolderFeed(self, config, warm=warm, processes=processes)

    @cached_property
    def mosaics(self) -> tuple[Pixels, Pixels]:
        """Small copies of some images of each folder, as one image that has its colours."""
        one, other = (_mosaic(folder) for folder in self.both)
        return one, other

    def images(self, config: FolderConfig, processes: Processes) -> _Kept | None:
        """All images, decoded, on the device; ``None`` where they do not fit into the budget."""
        load = max(config.load, config.falling_load)
        key = config.device, config.preprocess, load, config.crop
        if key not in self.kept and _fits(self, config, processes):
            self.kept.clear()
            images = [image for folder in self.both for image in folder.images]
            self.kept[key] = _Kept.of(images, config, config.device)
        return self.kept.get(key)


class FolderFeed:
    """Crops step by step; a kind of ``Feed``.

    ``waited`` counts the seconds in which a step waited for images.
    """

    def __init__(
        self,
        folders: Folders,
        config: FolderConfig,
        *,
        warm: bool,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.processes = config, processes
        self.waited = 0.0
        for folder in folders.both:
            check_sizes(folder, config)
        self.table: Tensor | None = None
        if warm:
            table = transfer_table(*folders.mosaics, seed=config.seed)
            self.table = torch.from_numpy(table).to(config.device)
        self.steps = _Steps(folders.both, config, processes, folders.images(config, processes))
        shape = (config.batch, 3, config.crop, config.crop)
        self.ready = [
            torch.empty(shape, device=config.device, memory_format=torch.channels_last)
            for _ in range(2)
        ]
        self.next: Iterator[tuple[int, Tensor, Tensor]] | None = None

    def prepare(self, step: int) -> None:
        """Have the crops of a step ready where :meth:`draw` takes them from."""
        started = time.monotonic()
        crops: Sequence[Tensor]
        if self.steps.kept is not None:
            _, *crops = self.steps[step]
        else:
            found, *crops = next(self.next) if self.next is not None else (None,)
            if found != step:
                self.next = self._loaded(step)
                _, *crops = next(self.next)
        for ready, each in zip(self.ready, crops, strict=True):
            ready.copy_(each, non_blocking=True)
        if self.steps.kept is None:
            self.waited += time.monotonic() - started

    def draw(self, draws: RandomNumbers) -> Crops:
        """The crops of the step that is prepared."""
        x, y = self.ready
        return Crops(x.clone(), y.clone())

    def recoloured(self, x: Tensor) -> Tensor:
        """Crops of the content in the style's colours: what the warm start aims at."""
        assert self.table is not None
        return recoloured(x, self.table)

    def _loaded(self, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The crops of all steps from ``first`` on, each behind its number."""
        workers = self.config.workers
        if workers < 0:
            cores = (os.cpu_count() or 1) // self.processes.count
            workers = min(_MOST_WORKERS, max(cores - 1, 0))
        more: dict[str, Any] = {"prefetch_factor": _AHEAD} if workers else {}
        loader = DataLoader(
            self.steps,
            sampler=range(first, max(self.config.steps, first + 1)),
            batch_size=None,
            num_workers=workers,
            pin_memory=self.config.device == "cuda",
            **more,
        )
        return iter(loader)


@dataclass(frozen=True)
class _Steps(Dataset[tuple[int, Tensor, Tensor]]):
    """The crops of a step by its number, also for processes that load them: without ``kept``,
    images are decoded."""

    folders: tuple[ImageFolder, ImageFolder]
    config: FolderConfig
    processes: Processes
    kept: _Kept | None = None

    def __getitem__(self, step: int) -> tuple[int, Tensor, Tensor]:
        """The step, and (batch, 3, crop, crop) float32 in [-1, 1] of content and style."""
        found = step_samples(self.folders, self.config, step, self.processes)
        x, y = (self._cut(side, samples) for side, samples in enumerate(found))
        return step, x, y

    def _cut(self, side: int, samples: Sequence[Sample]) -> Tensor:
        images = self.folders[side].images
        kept, first = self.kept, len(self.folders[0].images) if side else 0
        copies = {sample.image: first + sample.image for sample in samples}
        if kept is None:
            copies = {image: copy for copy, image in enumerate(copies)}
            kept = _Kept.of([images[index] for index in copies], self.config, "cpu")
        where, scales = [], []
        for sample in samples:
            image = images[sample.image]
            halved = 2.0 ** level_of(image, self.config)
            where.append((copies[sample.image], sample.top, sample.left, sample.mirrored))
            scales.append(
                (image.height / sample.rows / halved, image.width / sample.columns / halved)
            )
        device = kept.planes.device
        return resized_crops(
            kept.planes,
            kept.copies,
            torch.tensor(where, device=device),
            torch.tensor(scales, dtype=torch.float64, device=device),
            self.config.crop,
        )


@dataclass(frozen=True)
class _Kept:
    """The images of both folders, one after the other, as ``resized_crops`` takes them."""

    planes: Tensor
    copies: Tensor

    @classmethod
    def of(cls, images: Sequence[FolderImage], config: FolderConfig, device: str) -> _Kept:
        """Decoded, each halved as often as its crops allow."""
        pixels = [decoded(image, level_of(image, config)) for image in images]
        table, offset = [], 0
        for each in pixels:
            table.append((offset, *each.shape[:2]))
            offset += each.size
        planes = torch.empty(offset, dtype=torch.uint8)
        for each, (start, *_) in zip(pixels, table, strict=True):
            plane = np.ascontiguousarray(each.transpose(2, 0, 1)).ravel()
            planes[start : start + each.size] = torch.from_numpy(plane)
        return cls(planes.to(device), torch.tensor(table).to(device))


def _fits(folders: Folders, config: FolderConfig, processes: Processes) -> bool:
    """Whether all images, as they are kept, fit into the budget."""
    needed = sum(
        3
        * math.prod(
            -(-side // 2 ** level_of(image, config)) for side in (image.height, image.width)
        )
        for folder in folders.both
        for image in folder.images
    )
    return bool(needed <= image_budget(config, processes))


def image_budget(config: FolderConfig, processes: Processes = ALONE) -> int:
    """Bytes that decoded images may take on the training's device, in this process."""
    given = config.image_bytes()
    if given is not None:
        return given
    if config.device == "cuda":
        return int(_SHARE * torch.cuda.mem_get_info()[0])
    return int(_SHARE * (free_memory() or 0) / processes.count)


def _mosaic(folder: ImageFolder) -> Pixels:
    """Evenly chosen images, each shrunk to a small square, one below the other."""
    count = len(folder.images)
    chosen = {round(i * (count - 1) / max(_COLOUR_IMAGES - 1, 1)) for i in range(_COLOUR_IMAGES)}
    side = _COLOUR_SIDE, _COLOUR_SIDE
    small = [
        np.asarray(
            Image.fromarray(decoded(folder.images[index], 0)).resize(side, Image.Resampling.BOX)
        )
        for index in sorted(chosen)
    ]
    return np.concatenate(small)
