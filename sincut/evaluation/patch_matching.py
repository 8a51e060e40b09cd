"""An anchor with the style's strokes and little of the content: patches matched in distribution.

From the content in the style's colours, reduced to a quarter, pixels are moved until the patches
around them, along random directions, are distributed as the style's: first at a quarter of the
width, then at half, then at all of it. Nothing says what should lie where.

Elnekave, Weiss, "Generating natural images with direct patch distributions matching", ECCV 2022.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sincut.data.painting import pixels, planes, resized
from sincut.kernels.sorting import in_order

Pixels = npt.NDArray[np.uint8]

_WIDTH = 640  # pixels at most; the result is enlarged from there
_LEVELS = ((4, 150), (2, 100), (1, 60))  # how much smaller, and steps
_RATE = 0.03  # Adam's, falling to a fifth at each level
_NOISE = 0.1
_DIRECTIONS, _PATCH = 64, 8


def matched_patches(transferred: Pixels, style: Pixels, seed: int = 0) -> Pixels:
    """The style's patches, begun from the content in the style's colours.

    Args:
        transferred: (H, W, 3) uint8 sRGB, of :func:`sincut.evaluation.anchors.idt`.
        style: (h, w, 3) uint8 sRGB; seen at the same width, or its own where that is smaller.

    Returns:
        (H, W, 3) uint8.
    """
    random = torch.Generator().manual_seed(seed)
    width = min(_WIDTH, transferred.shape[1])
    image: Tensor | None = None
    for shrink, steps in _LEVELS:
        level = max(width // shrink, 2 * _PATCH)
        goal = planes(resized(transferred, level))
        source = planes(resized(style, min(level, style.shape[1])))
        if min(*goal.shape[2:], *source.shape[2:]) < 2 * _PATCH:
            continue
        if image is None:
            image = goal + _NOISE * torch.randn(goal.shape, generator=random)
        else:
            image = F.interpolate(image, goal.shape[2:], mode="bicubic").clamp(-1, 1)
        image = _moved(image, source, steps, random)
    if image is None:  # too small for patches
        return transferred
    size = transferred.shape[1], transferred.shape[0]
    return np.asarray(Image.fromarray(pixels(image)).resize(size, Image.Resampling.LANCZOS))


def _moved(image: Tensor, source: Tensor, steps: int, random: torch.Generator) -> Tensor:
    image = image.clone().requires_grad_()
    adam = torch.optim.Adam([image], lr=_RATE, betas=(0.9, 0.99))
    for step in range(steps):
        adam.param_groups[0]["lr"] = _RATE * (1 - 0.8 * step / steps)
        adam.zero_grad()
        _distance(image, source, random).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return image.detach().clamp(-1, 1)


def _distance(image: Tensor, source: Tensor, random: torch.Generator) -> Tensor:
    """The sliced Wasserstein distance of every second patch of both axes, from a random one on."""
    filters = torch.randn(_DIRECTIONS, 3, _PATCH, _PATCH, generator=random)
    filters = filters / filters.flatten(1).norm(dim=1)[:, None, None, None]
    ours, theirs = (_sorted(planes, filters, random) for planes in (image, source.detach()))
    if ours.shape != theirs.shape:
        theirs = F.interpolate(theirs[None], ours.shape[1], mode="linear", align_corners=True)[0]
    return (ours - theirs).abs().mean()


def _sorted(planes: Tensor, filters: Tensor, random: torch.Generator) -> Tensor:
    top, left = torch.randint(0, 2, (2,), generator=random).tolist()
    projected = F.conv2d(planes[:, :, top:, left:], filters, stride=2)
    return in_order(projected.flatten(2)[0])
