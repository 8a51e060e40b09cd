"""The generator as it is written and shown: the average over training, its colours put right."""

from __future__ import annotations

import copy

import numpy as np
import torch
from PIL import Image

from sincut.config.translating import TranslateConfig
from sincut.data.colour_transfer import affine_transfer
from sincut.images.reading.source import Pixels
from sincut.models.generator import Generator
from sincut.models.stylegan2 import ColourCorrectingGenerator
from sincut.training.state import State
from sincut.translation.tiles import translate_pixels

_WIDTH = 1280  # pixels of the content at most, for the colours: the size short runs learn at
_STRETCH = 1 / 3  # of the contrast that is missing


def final_generator(state: State, content: Pixels, style: Pixels) -> Generator:
    """The averaged generator; one that corrects colours gets the style's mean.

    D judges small crops, so in a short run the colours of the whole drift. The affine transfer from
    the translated content to the style undoes that, but for most of its stretching: where the whole
    varies less than the style, mostly the content has less of some place, and stretching would give
    every texture the contrast that is missing between places. It is a part of the last layer, so
    nothing is added to the network, and edges stay as they were learned. ``state`` is not changed.

    Args:
        content, style: (H, W, 3) uint8 sRGB.
    """
    average = state.averaged_generator
    if not isinstance(average, ColourCorrectingGenerator):
        return average
    generator = copy.deepcopy(average)
    output = translated_small(content, _WIDTH, generator)
    matrix, offset = (
        torch.from_numpy(each).float() for each in affine_transfer(output, style, stretch=_STRETCH)
    )
    generator.change_colours(matrix, offset)
    return generator


def translated_small(content: Pixels, side: int, generator: Generator) -> Pixels:
    """The content with its longest side at most ``side``, translated in float32."""
    small = Image.fromarray(content)
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    return translated(np.asarray(small), generator)


def translated(content: Pixels, generator: Generator) -> Pixels:
    """The content at its own size, translated in float32."""
    return translate_pixels(generator, content, TranslateConfig(precision="fp32"))
