"""The terms of the objectives of SinCUT and CUT, one function each, which returns a float32
scalar if nothing else is said.

Logits are large for real. Batches are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.kernels.convolution import only_of_images
from sincut.kernels.patch_nce import multilayer_patch_nce, normalised
from sincut.kernels.sorting import in_order


def adversarial_generator(fake_logits: Tensor, gan: str = "non-saturating") -> Tensor:
    """GAN loss of G: softplus(−D(ŷ)), or with ``least-squares`` (D(ŷ) − 1)². Logits (N, …)."""
    if gan == "least-squares":
        return (fake_logits - 1).square().mean()
    return F.softplus(-fake_logits).mean()


def adversarial_discriminator(
    real_logits: Tensor, fake_logits: Tensor, gan: str = "non-saturating"
) -> Tensor:
    """GAN loss of D: ½ [softplus(D(ŷ)) + softplus(−D(y))], or with ``least-squares``
    ½ [D(ŷ)² + (D(y) − 1)²]. Logits (N, …)."""
    if gan == "least-squares":
        return (fake_logits.square().mean() + (real_logits - 1).square().mean()) / 2
    return (F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()) / 2


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """½ ‖∂D/∂y‖², summed over a tile, averaged over tiles (Mescheder et al., 2018).

    ``real`` (N, …), what D is given of the tiles, must require a gradient and ``real_logits`` be
    computed from it. The result is differentiable with respect to D's weights.
    """
    with only_of_images():
        (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.float().square().flatten(1).sum(dim=1).mean() / 2


def contrastive(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    *,
    temperature: float,
    groups: int,
    epsilon: float = 0.0,
    sets: int = 1,
    parts: int = 1,
) -> Tensor:
    """PatchNCE: mean over layers of the mean cross entropy over queries, of each of some sets.

    Args:
        queries, keys: (N, D) projected rows per layer, set by set; keys are taken as constants.
        groups: blocks of consecutive rows of a set whose members are each other's negatives.
        parts: only the queries in the first of so many equal parts of a set's rows count.

    Returns:
        (sets,) float32.
    """
    constant = [key.detach() for key in keys]
    per_layer = multilayer_patch_nce(
        queries, constant, temperature=temperature, groups=sets * groups, epsilon=epsilon
    )
    means = [loss.view(sets, parts, -1)[:, 0].mean(dim=1) for loss in per_layer]
    return torch.stack(means).mean(dim=0)


def contrastive_with_bank(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    banks: Sequence[Tensor],
    *,
    temperature: float,
    groups: int,
    epsilon: float,
    internal: bool,
) -> Tensor:
    """PatchNCE against keys of earlier images, as :func:`contrastive`.

    Plain PyTorch: an ablation of the paper, whose code has no such thing.

    Args:
        banks: (K, D) keys of unit length per layer, constants.
        internal: whether the other keys of the same group are negatives as well.
    """
    per_layer = []
    for query, key, bank in zip(queries, keys, banks, strict=True):
        q, k = (normalised(rows, epsilon) for rows in (query, key.detach()))
        positive = (q * k).sum(dim=1, keepdim=True) / temperature
        negatives = [q @ bank.to(q.dtype).T / temperature]
        if internal:
            q, k = (rows.view(groups, -1, rows.shape[1]) for rows in (q, k))
            own = (q @ k.mT / temperature).masked_fill(
                torch.eye(q.shape[1], dtype=torch.bool, device=q.device), -torch.inf
            )
            negatives.append(own.flatten(0, 1))
        logits = torch.cat([positive, *negatives], dim=1)
        per_layer.append((logits.logsumexp(dim=1) - positive[:, 0]).mean())
    return torch.stack(per_layer).mean()


# Patches of the strokes' scales: directions they are seen along, each (channels, side, side), and
# how much smaller the crops are made.
DIRECTIONS = (64, 3, 8, 8)
SCALES = (1, 2, 4)


def sliced_distance(output: Tensor, target: Tensor, directions: Sequence[Tensor]) -> Tensor:
    """How differently the patches of two (N, 3, H, W) batches are distributed, crop by crop.

    The sliced Wasserstein distance: patches are projected on random directions, and what comes out
    is compared in sorted order. As a loss for images: Elnekave, Weiss, "Generating natural images
    with direct patch distributions matching", ECCV 2022.

    Args:
        directions: random numbers of the shape :data:`DIRECTIONS`, for each of :data:`SCALES`.
    """
    terms = []
    for scale, numbers in zip(SCALES, directions, strict=True):
        filters = numbers / numbers.flatten(1).norm(dim=1)[:, None, None, None]
        # At full size every second patch tells enough.
        step = 2 if scale == 1 else 1
        ours, theirs = (
            F.conv2d(F.avg_pool2d(crops.float(), scale), filters, stride=step).flatten(2)
            for crops in (output, target)
        )
        terms.append((in_order(ours) - in_order(theirs)).abs().mean())
    return torch.stack(terms).mean()


def pixel_identity(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two (N, 3, H, W) batches."""
    return F.l1_loss(output.float(), target.float())
