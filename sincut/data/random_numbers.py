"""The random numbers of one training step, each a function of (seed, step, stream) alone.

Where several processes share a step, each draws for the whole batch and takes its own part, so that
what a sample gets depends on its index in the whole batch and not on who computes it.

They are drawn where the step counter is: on the step's device, so that a recorded step draws anew
each time it is replayed; and on the host where crops lie, for many steps at once. Nothing has to be
saved, and every device gets the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sincut.kernels.philox import normal_numbers, random_words

# Purposes are told apart by stream. Those that come in several take the numbers that follow.
BOXES = 0  # two for each of the two images
NOISE = 8  # one for each noise image of G
POSITIONS = 16  # one for each layer of PatchNCE
MIRROR = 4
SHOWN = 7
STROKES = 64  # one for each scale

_SALT = 0xC0DE  # the last word of the counter; the noise of a translation has 0


@dataclass(frozen=True)
class RandomNumbers:
    """What can be drawn in one step.

    ``step`` is () int64 on the device where the numbers are wanted; negative in the warm start.
    ``part`` says which of how many ``parts`` of the whole batch is here.
    """

    seed: int
    step: Tensor
    part: int = 0
    parts: int = 1

    def own(self, count: int) -> slice:
        """Where ``count`` things of this part stand among those of the whole batch."""
        return slice(self.part * count, (self.part + 1) * count)

    def words(self, count: int, stream: int) -> Tensor:
        """(4, count) int64 from 0 to 2^32 − 1."""
        return self.words_of_steps(1, count, stream)[:, 0]

    def words_of_steps(self, steps: int, count: int, stream: int) -> Tensor:
        """(4, steps, count): the words of this step and of those that follow it."""
        return random_words(self.seed, self.step, steps, 0, count, stream, _SALT)

    def of_samples(self, count: int, stream: int, *, each: int = 1) -> Tensor:
        """(count · each,) words, ``each`` for every one of this part's samples."""
        whole = self.parts * count * each
        return self.words(-(-whole // 4), stream).flatten()[self.own(count * each)]

    def normal(self, shape: Sequence[int], stream: int, *, sets: int = 1) -> Tensor:
        """Standard normal numbers of that shape, float32.

        The first dimension is this part of a batch, or of ``sets`` of them one behind the other.
        """
        batch = shape[0] // sets
        whole = sets, self.parts * batch, *shape[1:]
        count = math.prod(whole)
        numbers = normal_numbers(self.seed, self.step, 1, 0, -(-count // 4), stream, _SALT)
        numbers = numbers.flatten()[:count]
        return numbers.reshape(whole)[:, self.own(batch)].reshape(tuple(shape))

    def positions(self, count: int, among: int, stream: int, *, sets: int = 1) -> Tensor:
        """(sets, min(count, among)) different whole numbers from 0 to ``among`` − 1, int64."""
        words = self.words(-(-among * sets // 4), stream).flatten()[: among * sets]
        # Sorted together with their places, equal words do no harm and every device agrees.
        keys = words.view(sets, among) * 2**31 + torch.arange(among, device=words.device)
        return keys.topk(min(count, among), largest=False).values % 2**31


def below(word: Tensor, count: Tensor | int) -> Tensor:
    """Random 32-bit words as integers from 0 to ``count`` − 1."""
    return word * count >> 32


def chance(word: Tensor, probability: float) -> Tensor:
    """Random 32-bit words as ones with that probability, else zeros; int64."""
    return (word.double() / 2**32 < probability).long()
