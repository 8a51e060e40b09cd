"""Square patches of images as rows of numbers: cut, compared, put together again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cut(image: Tensor, side: int, step: int) -> Tensor:
    """(n, C · side · side) patches of (1, C, H, W), one at every ``step``-th pixel of both axes."""
    return F.unfold(image, side, stride=step)[0].T.contiguous()


def averaged(patches: Tensor, size: tuple[int, int], side: int, step: int) -> Tensor:
    """The (1, C, H, W) image of patches as :func:`cut` gives them, averaged where they overlap.

    A patch's middle counts most. ``size`` is (H, W), of which patches cover all.
    """
    channels = patches.shape[1] // side**2
    weights = _bell(side).to(patches).repeat(channels)
    total = F.fold((patches * weights).T[None], size, side, stride=step)
    shares = weights[: side**2, None].expand(-1, len(patches))[None]
    return total / F.fold(shares, size, side, stride=step)


def squared_distances(wanted: Tensor, known: Tensor, squares: Tensor) -> Tensor:
    """(n, m) squared distances of rows (n, D) and (m, D); ``squares`` are the known rows' own."""
    products = torch.addmm(squares[None], wanted, known.T, alpha=-2)
    return products.add_(wanted.square().sum(dim=1, keepdim=True)).clamp_min_(0)


def smallest_distances(wanted: Tensor, known: Tensor, squares: Tensor, at_once: int) -> Tensor:
    """(m,) for each known row its smallest squared distance to a wanted one, ``at_once`` distances
    at a time; other arguments as of :func:`squared_distances`."""
    smallest = torch.full_like(squares, torch.inf)
    for part in torch.split(wanted, max(at_once // len(known), 1)):
        smallest = torch.minimum(smallest, squared_distances(part, known, squares).amin(dim=0))
    return smallest


def sparse_step(height: int, width: int, side: int, step: int, most: int) -> int:
    """The step, or the next larger one with which :func:`cut` gives at most ``most`` patches."""
    while ((height - side) // step + 1) * ((width - side) // step + 1) > most:
        step += 1
    return step


def _bell(side: int) -> Tensor:
    """(side · side,) weights of a patch's pixels."""
    places = torch.arange(side) - (side - 1) / 2
    bell = torch.exp(-places.square() / (2 * (side / 3.5) ** 2))
    return (bell[:, None] * bell).flatten()
