"""PatchNCE: normalised similarity and cross entropy (InfoNCE) over groups of rows.

For queries q and keys k of shape (N, D), split into ``groups`` equal blocks of consecutive rows,
with q̂ = q/‖q‖ and k̂ = k/‖k‖ (a zero row stays zero) and the positive of row i being key i::

    s_ij   = q̂_i · k̂_j / temperature            for i, j in the same block
    loss_i = log Σ_j exp(s_ij) − s_ii                                               (N,)

The normalisation is exact where the published code divides by ‖x‖ + 1e-7, which can be seen at
that code's initialisation (norms of about 4e-4) and has no gradient at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patch_nce(query: Tensor, key: Tensor, *, temperature: float = 0.07, groups: int = 1) -> Tensor:
    """Cross entropy of each query against the keys of its block.

    Args:
        query: (N, D) rows, not normalised; float32, bfloat16, float16 or float64.
        key: (N, D) rows, not normalised. It gets a gradient only if it asks for one.
        temperature: τ > 0.
        groups: number of equal blocks of consecutive rows whose members are each other's
            negatives; 1 takes all rows together.

    Returns:
        (N,) losses, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, temperature or groups that do not fit.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            f"query and key must both be (N, D), got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if groups < 1 or query.shape[0] % groups:
        raise ValueError(f"groups must divide the {query.shape[0]} rows, got {groups}")
    return patch_nce_reference(query, key, temperature=temperature, groups=groups)


def patch_nce_reference(
    query: Tensor, key: Tensor, *, temperature: float = 0.07, groups: int = 1
) -> Tensor:
    """The formula as written, for any device. Arguments and result as for :func:`patch_nce`."""
    shape = (groups, query.shape[0] // groups, query.shape[1])
    query, key = (_normalised(rows).reshape(shape) for rows in (query, key))
    similarity = query @ key.mT / temperature  # (groups, N / groups, N / groups)
    positive = similarity.diagonal(dim1=1, dim2=2)
    return (similarity.logsumexp(dim=2) - positive).flatten()


def _normalised(rows: Tensor) -> Tensor:
    """Rows of length one in float32 (or float64); zero rows stay zero and get gradient zero."""
    rows = rows if rows.dtype == torch.float64 else rows.float()
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    zero = largest == 0
    # The result does not depend on a row's scale. Divided by its largest entry, a constant here,
    # no square overflows or underflows, forward or backward. A zero row is multiplied by 0 instead
    # of 1/norm; the norm of 1 it gets before keeps the infinite slope out of the backward pass.
    rows = rows / largest.where(~zero, 1.0)
    squares = rows.square().sum(dim=1, keepdim=True).where(~zero, 1.0)
    return rows * squares.rsqrt().where(~zero, 0.0)
