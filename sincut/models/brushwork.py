"""The last layer of a model that learned to paint: what G makes, in patches of the style.

A network learns in minutes where which colours go, and paints softly. So each patch of what it
makes is compared at half the size with those of the style, and the nearest ones are laid there at
full size; where patches overlap they are averaged. Three things make that brushwork:

- a key's distance counts in units of how near it comes to the painting that G learned from, so that
  rare strokes are used as well (after Granot et al., "Drop the GAN", CVPR 2022, whose measure needs
  the whole result; here the training fixes it);
- smooth noise that is a function of the place: flat skies have something to make strokes of;
- a patch prefers keys whose place in the style has its own place's phase: what lies side by side in
  the style then comes to lie side by side, and no stroke is repeated at every patch.

All of it depends on a window of a few pixels, and a soft choice among the nearest makes it a
continuous function of what G makes: tiles give the whole image's result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sincut.kernels.position_noise import position_noise
from sincut.models.patches import (
    averaged,
    cut,
    smallest_distances,
    sparse_step,
    squared_distances,
)

Pixels = npt.NDArray[np.uint8]

REACH = 16  # pixels that a window needs around what is wanted; windows begin at multiples of it
_SIDE = 8  # pixels of a patch that is compared, at half the size; twice that is laid
_STEP = 4  # at half the size, from patch to patch
_KEYS = 2**15  # patches of the style, at most
_COMPLETENESS = 0.02  # added to a key's unit, per number
_NOISE, _CELL, _LEVEL = 0.1, 8, 256  # its deviation; pixels at half the size; of the position noise
_PERIOD, _PHASE = 16, 1.0  # of the places' phases: pixels at half the size, and their weight
_CHOICES, _SOFTNESS = 4, 0.002  # keys that are mixed, and the relative distance that parts them
_AT_ONCE = 2**23  # distances held at a time


class Brushwork(nn.Module):
    """Patches of the style, and how they are laid on what a network makes.

    Args:
        style: (H, W, 3) uint8 sRGB, at the scale at which its strokes are laid.
        units: (keys,) float32, in which each key's distances count; :meth:`of` works them out.
    """

    style: Tensor
    units: Tensor

    def __init__(self, style: Tensor, units: Tensor) -> None:
        super().__init__()
        if style.dtype != torch.uint8 or style.ndim != 3 or min(style.shape) < 3:
            raise ValueError(f"style must be (H, W, 3) uint8, got {style.dtype} {style.shape}")
        if len(units) and units.shape != (_key_grid(style.shape)[1],):
            raise ValueError(f"units must be one for every key, got {units.shape}")
        self.register_buffer("style", style)
        self.register_buffer("units", units)
        self._known: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, style: Pixels, painting: Pixels, device: str = "cpu") -> Brushwork:
        """For results like a painting.

        Args:
            style: as of the class; its sides are 16 pixels or more.
            painting: (h, w, 3) uint8, at half the size of the results.
            device: where they are compared; what is made is on the CPU.
        """
        values = torch.tensor(np.ascontiguousarray(style), device=device)
        made = cls(values, torch.zeros(0))
        keys, _, squares = made._keys()
        half = torch.tensor(np.ascontiguousarray(painting), device=device)
        half = half.permute(2, 0, 1)[None] / 127.5 - 1
        room = [max(_SIDE - side, 0) + -max(side - _SIDE, 0) % _STEP for side in half.shape[2:]]
        half = F.pad(half, (0, room[1], 0, room[0]), mode="replicate")
        wanted = made._wanted(half, 0, 0, seed=0)
        nearest = smallest_distances(wanted, keys, squares, _AT_ONCE)
        made.units = _COMPLETENESS * 3 * _SIDE**2 + nearest
        made._known = None
        return made.cpu()

    @torch.inference_mode()
    def forward(self, image: Tensor, top: int, left: int, seed: int) -> Tensor:
        """Lay the style's patches on a window.

        Args:
            image: (1, 3, h, w) of about [-1, 1]; sides are multiples of 16.
            top, left: its place in the whole image, multiples of 16; negative beyond its border.
            seed: of the noise.

        Returns:
            The same shape. What is less than :data:`REACH` from the window's edge depends on it.
        """
        keys, places, squares = self._keys()
        height, width = image.shape[2:]
        half = F.avg_pool2d(image.float(), 2)
        wanted = self._wanted(half, top // 2, left // 2, seed)
        patches = []
        for part in torch.split(wanted, max(_AT_ONCE // len(keys), 1)):
            distances = squared_distances(part, keys, squares) / self.units
            index = distances.topk(min(_CHOICES, len(keys)), dim=1, largest=False).indices
            # Once more without cancellation: shares tell small differences apart.
            near = (keys[index] - part[:, None]).square().sum(dim=2) / self.units[index]
            nearest = near.amin(dim=1, keepdim=True)
            share = torch.softmax((nearest - near) / (_SOFTNESS * nearest + 1e-9), dim=1)
            patches.append(self._laid(places[index], share))
        laid = averaged(torch.cat(patches), (height, width), 2 * _SIDE, 2 * _STEP)
        return laid.to(image.dtype)

    def _laid(self, places: Tensor, share: Tensor) -> Tensor:
        """(n, 3 · 16 · 16) patches of the style at (n, choices) places, mixed by their shares."""
        side, width = 2 * _SIDE, self.style.shape[1]
        rows = torch.arange(side, device=places.device)
        offsets = (rows[:, None] * width + rows).flatten()
        flat = self.style.flatten(0, 1)
        mixed = torch.zeros(len(places), side**2, 3, device=places.device)
        for choice in range(places.shape[1]):
            taken = flat[places[:, choice, None] + offsets].float()
            mixed += share[:, choice, None, None] * taken
        return (mixed / 127.5 - 1).transpose(1, 2).flatten(1)

    def _wanted(self, half: Tensor, top: int, left: int, seed: int) -> Tensor:
        """What the keys are compared with: (n, 3 · 8 · 8 + 4), of a window at half the size."""
        noisy = half + _NOISE * _smooth_noise(seed, top, left, half)
        rows = torch.arange(0, half.shape[2] - _SIDE + 1, _STEP, device=half.device)
        columns = torch.arange(0, half.shape[3] - _SIDE + 1, _STEP, device=half.device)
        return torch.cat([cut(noisy, _SIDE, _STEP), _phases(rows + top, columns + left)], dim=1)

    def _keys(self) -> tuple[Tensor, Tensor, Tensor]:
        """(keys, 3 · 8 · 8 + 4) patches of the style at half its size with their places' phases,
        where each begins in the style's pixels, and their squared norms."""
        if self._known is None or self._known[0].device != self.style.device:
            planes = self.style.permute(2, 0, 1)[None].float() / 127.5 - 1
            half = F.avg_pool2d(planes, 2)
            step, _ = _key_grid(self.style.shape)
            rows, columns = (
                torch.arange(0, side - _SIDE + 1, step, device=half.device)
                for side in half.shape[2:]
            )
            keys = torch.cat([cut(half, _SIDE, step), _phases(rows, columns)], dim=1)
            width = self.style.shape[1]
            places = (2 * rows[:, None] * width + 2 * columns).flatten()
            self._known = keys, places, keys.square().sum(dim=1)
        return self._known


def _key_grid(shape: Sequence[int]) -> tuple[int, int]:
    """How far apart the keys of a style of that shape are, at half its size, and how many."""
    height, width = shape[0] // 2, shape[1] // 2
    step = sparse_step(height, width, _SIDE, 2, _KEYS)
    return step, ((height - _SIDE) // step + 1) * ((width - _SIDE) // step + 1)


def _phases(rows: Tensor, columns: Tensor) -> Tensor:
    """(rows · columns, 4) of places at half the size, as cosines and sines."""
    turns = [2 * math.pi / _PERIOD * (places % _PERIOD).float() for places in (rows, columns)]
    down, across = (torch.stack([turn.cos(), turn.sin()], dim=1) for turn in turns)
    count = len(rows), len(columns), 2
    both = torch.cat([down[:, None].expand(count), across[None].expand(count)], dim=2)
    return _PHASE * both.flatten(0, 1)


def _smooth_noise(seed: int, top: int, left: int, window: Tensor) -> Tensor:
    """(1, 3, H, W) as the window, a function of the place: normal numbers at every eighth pixel,
    and straight lines between them; ``top`` and ``left`` are multiples of eight."""
    height, width = window.shape[2:]
    cells = height // _CELL + 3, width // _CELL + 3
    first = top // _CELL - 1, left // _CELL - 1
    grid = torch.cat(
        [position_noise(seed, _LEVEL + c, *first, *cells, window.device) for c in range(3)], dim=1
    )
    smooth = F.interpolate(grid, scale_factor=_CELL, mode="bilinear", align_corners=False)
    return smooth[:, :, _CELL : _CELL + height, _CELL : _CELL + width]
