"""Which images of two folders a step gets, and which crops of them.

A function of the seed, the step and a sample's index in the whole batch. All of the first folder
comes in a new order every time it is through, the second is drawn from at random (published).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from sincut.compute.processes import ALONE, Processes
from sincut.config.parts import FolderSettings
from sincut.config.training import FolderConfig
from sincut.data.crops import halvings
from sincut.data.image_folder import FolderImage, ImageFolder
from sincut.data.random_numbers import BOXES, RandomNumbers, below, chance
from sincut.errors import SincutError


class Sample(NamedTuple):
    """A crop of an image: its index in the folder, the size it is resized to, the crop in that."""

    image: int
    rows: int
    columns: int
    top: int
    left: int
    mirrored: int


def step_samples(
    folders: tuple[ImageFolder, ImageFolder],
    config: FolderConfig,
    step: int,
    processes: Processes = ALONE,
) -> tuple[list[Sample], list[Sample]]:
    """What a step gets of the folder of the content and of that of the style, in this process."""
    draws = RandomNumbers(config.seed, torch.tensor(step), processes.index, processes.count)
    whole, own = draws.parts * config.batch, draws.own(config.batch)
    load = config.load
    if step >= 0 and config.epochs * config.steps <= step * (config.epochs + config.falling_epochs):
        load = config.falling_load
    found = []
    for stream, folder in enumerate(folders):
        words, place = (draws.words(whole, BOXES + 2 * stream + k)[:, own] for k in (0, 1))
        count = len(folder.images)
        if stream:
            images = below(words[0], count).tolist()
        else:
            first = step * whole
            images = [shuffled(config.seed, first + k, count) for k in range(own.start, own.stop)]
        mirrored = chance(words[1], config.mirror).tolist()
        samples = []
        for k, index in enumerate(images):
            rows, columns = resized(folder.images[index], load, config)
            top = int(below(place[0, k], rows - config.crop + 1))
            left = int(below(place[1, k], columns - config.crop + 1))
            samples.append(Sample(index, rows, columns, top, left, mirrored[k]))
        found.append(samples)
    return found[0], found[1]


def resized(image: FolderImage, load: int, config: FolderSettings) -> tuple[int, int]:
    """Rows and columns of the whole image as a crop is cut out of it."""
    height, width, how = image.height, image.width, config.preprocess
    if how == "resize_and_crop":
        return load, load
    if how == "scale_width_and_crop":
        return max(load * height // width, config.crop), load
    if how == "crop" or (how == "scale_shortside_and_crop" and min(height, width) >= load):
        return height, width
    scale = load / min(height, width)
    return max(round(height * scale), load), max(round(width * scale), load)


def shuffled(seed: int, place: int, count: int) -> int:
    """The image at a place of an endless row of shuffled passes over ``count`` images."""
    number, inside = divmod(place, count)
    return int(_order(seed, number % 2**64, count)[inside])


@lru_cache(maxsize=2)
def _order(seed: int, number: int, count: int) -> Any:
    key = np.array([seed, number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count)


def level_of(image: FolderImage, config: FolderSettings) -> int:
    """How often an image's copy is halved: a factor of two is left for the crop's own filter."""
    if config.preprocess == "crop":
        return 0
    rows, columns = resized(image, max(config.load, config.falling_load), config)
    shrink = min(image.height / rows, image.width / columns)
    return int(halvings(torch.tensor(shrink, dtype=torch.float64)))


def check_sizes(folder: ImageFolder, config: FolderConfig) -> None:
    """Refuse images that hold no crop: where they are not resized."""
    small = [
        image
        for image in folder.images
        if min(resized(image, min(config.load, config.falling_load), config)) < config.crop
    ]
    if small:
        side = min(min(image.height, image.width) for image in small) // 4 * 4
        raise SincutError(
            f"{len(small)} of the images in {folder.path} are smaller than a crop of {config.crop} "
            f"pixels, such as {small[0].path.name} ({small[0].width}×{small[0].height}); try "
            f"--set preprocess=shortside or --set crop={max(side, 16)}"
        )
