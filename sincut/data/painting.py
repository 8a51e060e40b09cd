"""The content rebuilt of patches of the style: a painting to learn from, made without a network.

A discriminator that sees small crops of one pair for a few minutes finds colours and grain, and no
strokes. Patches of the style show them at once. So before training the content, in the style's
colours, is replaced patch by patch by what is nearest in the style, from coarse to fine, and
overlapping patches are averaged. G then learns from the result, place by place.

Nearest patches from coarse to fine, each divided by how well its patch is matched at best, so that
all of the style is used: Granot, Feinstein, Shocher, Bagon, Irani, "Drop the GAN: in defense of
patches nearest neighbors as single image generative models", CVPR 2022. Ours are the start from
transferred colours, what is kept of them on the way, and the contrast that averaging took away,
given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sincut.data.colour_transfer import transfer_table
from sincut.data.recolouring import recoloured
from sincut.models.patches import averaged, cut, smallest_distances, sparse_step, squared_distances

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_PATCH = 8  # pixels
_PASSES = 2  # at every level
_SMALLEST = 16  # pixels: no level has a shorter side
_COMPLETENESS = 0.005  # α of the bidirectional measure, of squared differences per number
_KEYS = 2**16  # patches of the style that are compared, at most
_AT_ONCE = 2**24  # distances held at a time
_SIGMAS = (1, 2, 4, 8)  # of the bands whose contrast is given back
_MOST = 3.0  # times a band's contrast, at most


@dataclass(frozen=True)
class _Level:
    """One size: how far apart patches begin in the content and in the style, and whether all of the
    style is to be used."""

    width: int
    step: int
    style_step: int
    complete: bool


def painted(
    content: Pixels,
    style: Pixels,
    width: int,
    *,
    look: float = 0.5,
    stroke: float = 1.0,
    style_share: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
) -> Pixels:
    """The content as a painting in patches of the style.

    Args:
        content, style: (H, W, 3) uint8 sRGB.
        width: of the result, in pixels; the style's patches are taken at this width, too. Neither
            image is enlarged.
        look: 0 leaves the content, in the style's colours, 1 keeps nothing of it but what the
            coarsest patches agree with.
        stroke: size of the strokes, in units of the style's at this width.
        style_share: of the width, at which the style is taken.
        seed: of the transfer of colours.
        device: where patches are compared: seconds on a GPU, at 1024 pixels many minutes without.

    Returns:
        (h, width, 3) uint8 with the content's proportions; its width at most.
    """
    table = torch.from_numpy(transfer_table(content, style, seed=seed)).to(device)
    width = min(width, content.shape[1])
    recoloured_content = recoloured(planes(resized(content, width), device), table)
    if look == 0:
        return pixels(recoloured_content)
    goals = pixels(recoloured_content)
    image: Tensor | None = None
    for level in _levels(content.shape, width):
        goal = planes(resized(goals, level.width), device)
        source = planes(scaled(style, round(level.width * style_share), stroke), device)
        if image is None:
            image = goal
        else:
            larger = F.interpolate(image, goal.shape[2:], mode="bicubic").clamp(-1, 1)
            image = torch.lerp(larger, goal, 1 - look)
        for _ in range(_PASSES):
            image = _replaced(image, source, level)
    assert image is not None
    rebuilt = _with_contrast(pixels(image), scaled(style, round(width * style_share), stroke))
    # A light touch is some of both: they lie on each other.
    share = min(1.0, 2 * look)
    return pixels(torch.lerp(recoloured_content, planes(rebuilt, device), share))


def _levels(shape: tuple[int, ...], width: int) -> list[_Level]:
    """From a quarter of the width to all of it."""
    levels = [
        _Level(width // 4, 1, 1, complete=True),
        _Level(width // 2, 2, 2, complete=True),
        _Level(width, 2, 3, complete=False),
    ]
    shorter = min(1.0, shape[0] / shape[1])
    large = [level for level in levels if level.width * shorter >= _SMALLEST]
    return large or levels[-1:]


def _replaced(image: Tensor, source: Tensor, level: _Level) -> Tensor:
    """(1, 3, H, W) with every patch replaced by the nearest of the source, overlaps averaged."""
    height, width = image.shape[2:]
    half, step = _PATCH // 2, level.step
    room = (half, half + -width % step, half, half + -height % step)
    image = F.pad(image, room, mode="reflect")
    size = source.shape[2], source.shape[3]
    known = cut(source, _PATCH, sparse_step(*size, _PATCH, level.style_step, _KEYS))
    nearest = known[_nearest(cut(image, _PATCH, step), known, complete=level.complete)]
    result = averaged(nearest, (image.shape[2], image.shape[3]), _PATCH, step)
    return result[:, :, half : half + height, half : half + width]


def _nearest(wanted: Tensor, known: Tensor, *, complete: bool) -> Tensor:
    """For each row of ``wanted`` (n, D) the index of the nearest row of ``known`` (m, D).

    With ``complete`` a distance counts in units of the row's own smallest distance to any wanted
    one: what is nobody's nearest becomes nearer, and so all of the style is used.
    """
    squares = known.square().sum(dim=1)
    scale: Tensor | None = None
    if complete:
        best = smallest_distances(wanted, known, squares, _AT_ONCE)
        scale = 1 / (_COMPLETENESS * known.shape[1] + best)
    found = []
    for part in torch.split(wanted, max(_AT_ONCE // len(known), 1)):
        distances = squared_distances(part, known, squares)
        found.append((distances if scale is None else distances * scale).argmin(dim=1))
    return torch.cat(found)


def _with_contrast(image: Pixels, style: Pixels) -> Pixels:
    """The image, each of its bands with the style's contrast, where averaging has taken some."""
    ours, base = _bands(image)
    theirs, _ = _bands(style)
    for band, goal in zip(ours, theirs, strict=True):
        gain = min(max(goal.std() / max(float(band.std()), 1e-6), 1.0), _MOST)
        base = base + np.float32(gain) * band
    return (base.clip(0, 1) * 255).round().astype(np.uint8)


def _bands(image: Pixels) -> tuple[list[Floats], Floats]:
    """What each of some Gaussian filters takes away, and what the widest leaves; in [0, 1]."""
    whole: Floats = image.astype(np.float32) / np.float32(255)
    blurred: list[Floats] = [whole]
    for sigma in _SIGMAS:
        blurred.append(gaussian_filter(whole, (sigma, sigma, 0)).astype(np.float32))
    bands: list[Floats] = [a - b for a, b in pairwise(blurred)]
    return bands, blurred[-1]


def resized(image: Pixels, width: int) -> Pixels:
    """The image that wide, its proportions kept."""
    height = max(round(image.shape[0] * width / image.shape[1]), 1)
    if width == image.shape[1]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def scaled(style: Pixels, width: int, stroke: float) -> Pixels:
    """The style as wide as that, at most its own width, times ``stroke``; but not so narrow that it
    has no patches."""
    narrowest = -(-_SMALLEST * style.shape[1] // min(style.shape[:2]))
    return resized(style, max(round(min(width, style.shape[1]) * stroke), narrowest))


def planes(image: Pixels, device: str = "cpu") -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    values = torch.tensor(image, dtype=torch.float32, device=device)
    return (values / 127.5 - 1).permute(2, 0, 1)[None].contiguous()


def pixels(image: Tensor) -> Pixels:
    """(H, W, 3) uint8 of (1, 3, H, W) in [-1, 1]."""
    values = (image[0].clamp(-1, 1) + 1) * 127.5
    result: Pixels = values.round().byte().permute(1, 2, 0).cpu().numpy()
    return result
