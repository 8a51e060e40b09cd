"""The terms of SinCUT's objective, one function each; every one returns a float32 scalar.

Logits are large for real. Batches are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.kernels.patch_nce import multilayer_patch_nce


def adversarial_generator(fake_logits: Tensor) -> Tensor:
    """Non-saturating GAN loss of G: softplus(−D(ŷ)). Logits (N, 1)."""
    return F.softplus(-fake_logits).mean()


def adversarial_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Non-saturating GAN loss of D: ½ [softplus(D(ŷ)) + softplus(−D(y))]. Logits (N, 1)."""
    return (F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()) / 2


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """½ ‖∂D/∂y‖², summed over a tile, averaged over tiles (Mescheder et al., 2018).

    ``real`` (N, …), what D is given of the tiles, must require a gradient and ``real_logits`` be
    computed from it. The result is differentiable with respect to D's weights.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.float().square().flatten(1).sum(dim=1).mean() / 2


def contrastive(
    queries: Sequence[Tensor], keys: Sequence[Tensor], *, temperature: float, groups: int
) -> Tensor:
    """PatchNCE: mean over layers of the mean cross entropy over queries.

    ``queries`` and ``keys`` hold (N, D) projected rows per layer; keys are taken as constants.
    """
    constant = [key.detach() for key in keys]
    per_layer = multilayer_patch_nce(queries, constant, temperature=temperature, groups=groups)
    return torch.stack([loss.mean() for loss in per_layer]).mean()


def pixel_identity(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two (N, 3, H, W) batches."""
    return F.l1_loss(output.float(), target.float())
