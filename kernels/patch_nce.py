"""PatchNCE: normalised similarity and cross entropy (InfoNCE) over groups of rows.

For queries q and keys k of shape (N, D), split into ``groups`` equal blocks of consecutive rows,
with q̂ = q/(‖q‖ + ε) and k̂ = k/(‖k‖ + ε) (a zero row stays zero) and the positive of row i being
key i::

    s_ij   = q̂_i · k̂_j / temperature            for i, j in the same block
    loss_i = log Σ_j exp(s_ij) − s_ii = log(1 + Σ_{j≠i} exp(s_ij) / exp(s_ii))          (N,)

The gradients, with p_ij = exp(s_ij) / Σ_j exp(s_ij) and g the incoming one::

    ∂loss_i/∂q̂_i = (Σ_{j≠i} p_ij k̂_j − (1 − p_ii) k̂_i) / temperature
    ∂loss  /∂k̂_j = (Σ_{i≠j} g_i p_ij q̂_i − g_j (1 − p_jj) q̂_j) / temperature
    ∂/∂x = (∂/∂x̂ − (∂/∂x̂ · x̂) x/‖x‖) / (‖x‖ + ε)               for both, 0 for a zero row

ε is 0, or CUT's published 1e-7: at the start of a training its rows are as short as 1e-6.

The first is an attention output with keys as values, so one pass over the keys gives the loss and
the query's gradient, and memory is linear in N. The key's gradient is the same pass with the roles
exchanged, made only if it is asked for. Three steps, each a kernel:

1. *prepare*: norms, positives s_ii, and rows in a type the matrix units multiply;
2. *attend*: sums over tiles of the other side, split over programs where rows alone would not fill
   the GPU;
3. *finish*: adds the splits in a fixed order (no atomics: two runs agree bit for bit) and projects.

What matters for accuracy: the positive is kept out of the low-precision tile, and 1 − p_ii is
computed as a quotient of sums, or gradients at q ≈ k would drown; similarities are scaled by the
norms after the product, in float32; float32 rows are two bf16 parts and three products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sincut.kernels.launch import interpreted, jit, on_device_of, rounded, tl, triton


def patch_nce(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float = 0.07,
    groups: int = 1,
    epsilon: float = 0.0,
) -> Tensor:
    """Cross entropy of each query against the keys of its block.

    CUDA tensors go through the Triton kernels; through the reference go CPU tensors, float64, rows
    of more than :data:`MAX_WIDTH` entries, and GPUs before compute capability 8.0, which have no
    matrix units for bf16.

    Args:
        query: (N, D) rows, not normalised; float32, bfloat16, float16 or float64.
        key: (N, D) rows of the same type, not normalised. It gets a gradient only if it asks.
        temperature: τ > 0.
        groups: number of equal blocks of consecutive rows whose members are each other's
            negatives; 1 takes all rows together.
        epsilon: ε ≥ 0, added to a row's length before it is divided by it.

    Returns:
        (N,) losses, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, types, temperature, groups or epsilon that do not fit.
        RuntimeError: on asking the kernels for a second derivative; they have none.
    """
    served = query.is_cuda and query.dtype in _LANES and query.shape[-1] <= MAX_WIDTH
    served = served and torch.cuda.get_device_capability(query.device) >= (8, 0)
    run = patch_nce_triton if served else patch_nce_reference
    return run(query, key, temperature=temperature, groups=groups, epsilon=epsilon)


def multilayer_patch_nce(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    *,
    temperature: float = 0.07,
    groups: int = 1,
    epsilon: float = 0.0,
) -> list[Tensor]:
    """:func:`patch_nce` of several layers, in one launch where their shapes agree.

    A layer is nothing but more blocks: the rows of all layers are joined, and rows of different
    layers never meet. Returns one (N,) tensor per layer.
    """
    if len({query.shape for query in queries}) > 1:
        return [
            patch_nce(query, key, temperature=temperature, groups=groups, epsilon=epsilon)
            for query, key in zip(queries, keys, strict=True)
        ]
    loss = patch_nce(
        torch.cat(list(queries)),
        torch.cat(list(keys)),
        temperature=temperature,
        groups=len(queries) * groups,
        epsilon=epsilon,
    )
    return list(loss.chunk(len(queries)))


def patch_nce_reference(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float = 0.07,
    groups: int = 1,
    epsilon: float = 0.0,
) -> Tensor:
    """The formula as written, for any device. Arguments and result as for :func:`patch_nce`."""
    _check(query, key, temperature, groups, epsilon)
    shape = (groups, query.shape[0] // groups, query.shape[1])
    with torch.autocast(query.device.type, enabled=False):  # a caller's would round the logits
        query, key = (normalised(rows, epsilon).reshape(shape) for rows in (query, key))
        similarity = query @ key.mT / temperature  # (groups, N / groups, N / groups)
        positive = similarity.diagonal(dim1=1, dim2=2)
        return (similarity.logsumexp(dim=2) - positive).flatten()


def patch_nce_triton(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float = 0.07,
    groups: int = 1,
    epsilon: float = 0.0,
) -> Tensor:
    """The kernels, always: for CPU tensors they need Triton's interpreter.

    Arguments and result as for :func:`patch_nce`. The products are taken before they are divided
    by the norms, so entries should stay within 1e±16.
    """
    _check(query, key, temperature, groups, epsilon)
    if query.dtype not in _LANES:
        raise ValueError(f"query and key must be float32, bfloat16 or float16, got {query.dtype}")
    if query.shape[1] > MAX_WIDTH:
        raise ValueError(f"rows must have at most {MAX_WIDTH} entries, got {query.shape[1]}")
    # The registered operator is for compilers; its dispatch alone costs more than a small loss.
    run = _forward if torch.compiler.is_compiling() else _PatchNCE.apply
    loss: Tensor = run(  # type: ignore[no-untyped-call]
        query.contiguous(), key.contiguous(), temperature, groups, epsilon
    )[0]
    return loss


def _check(query: Tensor, key: Tensor, temperature: float, groups: int, epsilon: float) -> None:
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            f"query and key must both be (N, D), got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if query.dtype != key.dtype:
        raise ValueError(f"query and key must be of one type, got {query.dtype} and {key.dtype}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if groups < 1 or query.shape[0] % groups:
        raise ValueError(f"groups must divide the {query.shape[0]} rows, got {groups}")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")


def normalised(rows: Tensor, epsilon: float) -> Tensor:
    """Rows by their lengths plus ``epsilon``, in float32 (or float64); zero rows stay zero and get
    gradient zero."""
    rows = rows if rows.dtype == torch.float64 else rows.float()
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    zero = largest == 0
    # Where all is divided by a row's largest entry, a constant here, the result is the same, and no
    # square overflows or underflows, forward or backward. A zero row is multiplied by 0 instead of
    # 1/norm; the norm of 1 it gets before keeps the infinite slope out of the backward pass.
    largest = largest.where(~zero, 1.0)
    rows = rows / largest
    squares = rows.square().sum(dim=1, keepdim=True).where(~zero, 1.0)
    inverse = 1 / (squares.sqrt() + epsilon / largest) if epsilon else squares.rsqrt()
    return rows * inverse.where(~zero, 0.0)


# --- The kernels --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Configuration:
    """How *attend* is launched for blocks of at least ``smallest`` rows.

    A program holds ``rows`` rows and walks over tiles of ``columns`` of the other side;
    ``resident`` of them share a multiprocessor.
    """

    parts: int
    smallest: int
    rows: int
    columns: int
    warps: int
    stages: int
    resident: int = 1


# Fixed, since tuning at run time breaks graph capture. Compiled for the targets named without
# spills and with matrix instructions; `python -m benchmarks aot` prints and the tests check it.
# Those for 9.0 are the fastest, or within a twentieth, of `python -m benchmarks configurations` on
# an H200; that of 16 rows was measured with 4 warps (9 µs for 16 rows), which spill elsewhere.
CONFIGURATIONS: dict[int, tuple[Configuration, ...]] = {
    # compute capability 9.0
    90: (
        Configuration(parts=1, smallest=2048, rows=128, columns=64, warps=8, stages=3),
        Configuration(parts=1, smallest=65, rows=64, columns=32, warps=4, stages=3, resident=2),
        Configuration(parts=1, smallest=1, rows=16, columns=64, warps=8, stages=3, resident=2),
        Configuration(parts=2, smallest=65, rows=128, columns=32, warps=8, stages=3),
        Configuration(parts=2, smallest=1, rows=16, columns=32, warps=8, stages=2),
    ),
    # 8.0 to 8.9, and from 10.0 until there are configurations of their own: few rows, since without
    # asynchronous matrix units the accumulators of 64 rows do not fit into the registers
    80: (
        Configuration(parts=1, smallest=1, rows=16, columns=64, warps=8, stages=3),
        Configuration(parts=2, smallest=1, rows=16, columns=32, warps=8, stages=2),
    ),
}
MAX_WIDTH = 256  # columns of a row that a program holds at once

# How many bf16 parts a row of this type is multiplied in. float16 has not the range for the
# probabilities, and its eleven bits fit two parts exactly.
_LANES = {torch.float32: 2, torch.float16: 2, torch.bfloat16: 1}

# exp(s − 1/τ) cannot overflow, and above this 2/τ it can underflow for every key of a row: the
# largest similarity so far is then kept and the sums rescaled.
_STATIC_RANGE = 80.0


def configuration(parts: int, size: int, capability: int) -> Configuration:
    """The launch for blocks of ``size`` rows on a device of that compute capability (80, 90, …)."""
    table = CONFIGURATIONS[90 if 90 <= capability < 100 else 80]
    return next(c for c in table if c.parts == parts and size >= c.smallest)


_LOG2_E = tl.constexpr(math.log2(math.e)) if triton else None


@jit()
def _inverse_norm(x, epsilon):  # type: ignore[no-untyped-def]
    """1 / (‖row‖ + ε) of (rows, width), 0 for zero rows, without overflow of the squares."""
    largest = tl.max(tl.abs(x), axis=1)
    zero = largest == 0.0
    largest = tl.where(zero, 1.0, largest)
    x = x / largest[:, None]
    squares = tl.where(zero, 1.0, tl.sum(x * x, axis=1))
    return tl.where(zero, 0.0, 1.0 / (tl.sqrt(squares) * largest + epsilon))


@jit()
def _product(x, y, INTERPRETED: tl.constexpr):  # type: ignore[no-untyped-def]
    """x · y with float32 accumulation."""
    if INTERPRETED:  # the interpreter multiplies bf16 wrongly
        x, y = x.to(tl.float32), y.to(tl.float32)
    return tl.dot(x, y, input_precision="ieee", out_dtype=tl.float32)


@jit()
def prepare(  # type: ignore[no-untyped-def]
    query_ptr,
    key_ptr,
    query_inverse_ptr,
    key_inverse_ptr,
    positive_ptr,
    query_high_ptr,
    query_low_ptr,
    key_high_ptr,
    key_low_ptr,
    count,
    width,
    inverse_temperature,
    epsilon,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Norms, positives, and for float32 rows their two bf16 parts."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < count)[:, None] & (column < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    query = tl.load(query_ptr + place, mask=inside, other=0.0).to(tl.float32)
    key = tl.load(key_ptr + place, mask=inside, other=0.0).to(tl.float32)
    query_inverse, key_inverse = _inverse_norm(query, epsilon), _inverse_norm(key, epsilon)
    cosine = tl.sum((query * query_inverse[:, None]) * (key * key_inverse[:, None]), axis=1)
    tl.store(query_inverse_ptr + row, query_inverse, mask=row < count)
    tl.store(key_inverse_ptr + row, key_inverse, mask=row < count)
    tl.store(positive_ptr + row, cosine * inverse_temperature, mask=row < count)
    if PARTS == 2:
        query_high = rounded(query, tl.bfloat16, INTERPRETED)
        key_high = rounded(key, tl.bfloat16, INTERPRETED)
        tl.store(query_high_ptr + place, query_high, mask=inside)
        tl.store(key_high_ptr + place, key_high, mask=inside)
        query_low = rounded(query - query_high.to(tl.float32), tl.bfloat16, INTERPRETED)
        key_low = rounded(key - key_high.to(tl.float32), tl.bfloat16, INTERPRETED)
        tl.store(query_low_ptr + place, query_low, mask=inside)
        tl.store(key_low_ptr + place, key_low, mask=inside)


@jit()
def _with_tile(  # type: ignore[no-untyped-def]
    sums,
    totals,
    largest,
    tile,
    rows,
    rows_low,
    row,
    row_scale,
    first,
    size,
    width,
    column_high_ptr,
    column_low_ptr,
    column_inverse_ptr,
    column_shift_ptr,
    column_gain_ptr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    ONLINE: tl.constexpr,
    FOR_KEY: tl.constexpr,
    EVEN: tl.constexpr,
    DIAGONAL: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The sums of *attend* with those over one tile of columns added to them."""
    column = tile * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.arange(0, WIDTH)
    place = (first + column)[:, None] * width + channel[None, :]
    if EVEN:
        columns = tl.load(column_high_ptr + place)
        column_inverse = tl.load(column_inverse_ptr + first + column)
    else:
        exists = column < size
        inside = exists[:, None] & (channel < width)[None, :]
        columns = tl.load(column_high_ptr + place, mask=inside, other=0.0)
        column_inverse = tl.load(column_inverse_ptr + first + column, mask=exists, other=0.0)
    similarity = _product(rows, tl.trans(columns), INTERPRETED)
    if PARTS == 2:
        if EVEN:
            columns_low = tl.load(column_low_ptr + place)
        else:
            columns_low = tl.load(column_low_ptr + place, mask=inside, other=0.0)
        similarity += _product(rows, tl.trans(columns_low), INTERPRETED)
        similarity += _product(rows_low, tl.trans(columns), INTERPRETED)
    # Scaled after the product: rounding the normalised rows instead would cost accuracy.
    similarity = similarity * row_scale[:, None] * column_inverse[None, :]
    if FOR_KEY:
        if EVEN:
            shift = tl.load(column_shift_ptr + first + column)
            gain = tl.load(column_gain_ptr + first + column)
        else:
            shift = tl.load(column_shift_ptr + first + column, mask=exists, other=0.0)
            gain = tl.load(column_gain_ptr + first + column, mask=exists, other=0.0)
        weight = tl.exp2(similarity - (shift * _LOG2_E)[None, :])
    else:
        gain = column_inverse
        if ONLINE:
            bounded = similarity
            if DIAGONAL:
                bounded = tl.where(row[:, None] != column[None, :], bounded, -1e30)
            if not EVEN:
                bounded = tl.where(exists[None, :], bounded, -1e30)
            bound = tl.maximum(largest, tl.max(bounded, axis=1))
            shrink = tl.exp2(largest - bound)
            sums = sums * shrink[:, None]
            totals = totals * shrink
            largest = bound
        weight = tl.exp2(similarity - largest[:, None])
    if DIAGONAL:
        weight = tl.where(row[:, None] != column[None, :], weight, 0.0)
    if not EVEN:
        weight = tl.where(exists[None, :], weight, 0.0)
    if not FOR_KEY:
        totals += tl.sum(weight, axis=1)
    weight = weight * gain[None, :]
    weight_high = rounded(weight, columns.dtype, INTERPRETED)
    sums += _product(weight_high, columns, INTERPRETED)
    if PARTS == 2:
        weight_low = rounded(weight - weight_high.to(tl.float32), columns.dtype, INTERPRETED)
        sums += _product(weight_low, columns, INTERPRETED)
        sums += _product(weight_high, columns_low, INTERPRETED)
    return sums, totals, largest


@jit()
def attend(  # type: ignore[no-untyped-def]
    row_high_ptr,
    row_low_ptr,
    row_inverse_ptr,
    column_high_ptr,
    column_low_ptr,
    column_inverse_ptr,
    column_shift_ptr,
    column_gain_ptr,
    sums_ptr,
    totals_ptr,
    largest_ptr,
    count,
    size,
    width,
    inverse_temperature,
    splits,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    ONLINE: tl.constexpr,
    FOR_KEY: tl.constexpr,
    EVEN: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Sums over the other side's rows of one block, the diagonal left out.

    For queries: sums = Σ_j exp(s_ij − m) k̂_j and totals = Σ_j exp(s_ij − m), with m = 1/τ, or the
    largest similarity seen where ONLINE. For keys: sums = Σ_i g_i exp(s_ij − n_i) q̂_i, with the
    queries' n_i = log Σ_j exp(s_ij) as column_shift and g_i / ‖q_i‖ as column_gain. Each split of
    the columns writes its own (count, width) part. EVEN: size and width are whole tiles.
    """
    # One grid axis for all three: the others end at 65,535 programs.
    split = tl.program_id(0) % splits
    row_tiles = tl.cdiv(size, ROWS)
    first_row = (tl.program_id(0) // splits) % row_tiles * ROWS
    row = first_row + tl.arange(0, ROWS)
    group = (tl.program_id(0) // splits // row_tiles).to(tl.int64)
    channel = tl.arange(0, WIDTH)
    first = group * size
    row_place = (first + row)[:, None] * width + channel[None, :]
    row_inside = (row < size)[:, None] & (channel < width)[None, :]
    rows = tl.load(row_high_ptr + row_place, mask=row_inside, other=0.0)
    rows_low = rows
    if PARTS == 2:
        rows_low = tl.load(row_low_ptr + row_place, mask=row_inside, other=0.0)
    row_scale = tl.load(row_inverse_ptr + first + row, mask=row < size, other=0.0)
    # Powers of two: those of e cost a comparison and two products more for every entry.
    row_scale = row_scale * (inverse_temperature * _LOG2_E)
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    totals = tl.zeros((ROWS,), tl.float32)
    largest = tl.zeros((ROWS,), tl.float32)
    largest += -1e30 if ONLINE else inverse_temperature * _LOG2_E
    tiles = tl.cdiv(size, COLUMNS)
    share = tl.cdiv(tiles, splits)
    begin = split * share
    end = tl.minimum(begin + share, tiles)
    # The few tiles that hold the diagonal come last, so that all others need not look for it.
    diagonal = tl.minimum(tl.maximum(first_row // COLUMNS, begin), end)
    behind = tl.minimum(tl.maximum(tl.cdiv(first_row + ROWS, COLUMNS), begin), end)
    for index in range(begin, end - (behind - diagonal)):
        tile = index + tl.where(index >= diagonal, behind - diagonal, 0)
        sums, totals, largest = _with_tile(
            sums, totals, largest, tile, rows, rows_low, row, row_scale, first, size, width,
            column_high_ptr, column_low_ptr, column_inverse_ptr, column_shift_ptr, column_gain_ptr,
            COLUMNS, WIDTH, PARTS, ONLINE, FOR_KEY, EVEN, False, INTERPRETED,
        )  # fmt: skip
    for tile in range(diagonal, behind):
        sums, totals, largest = _with_tile(
            sums, totals, largest, tile, rows, rows_low, row, row_scale, first, size, width,
            column_high_ptr, column_low_ptr, column_inverse_ptr, column_shift_ptr, column_gain_ptr,
            COLUMNS, WIDTH, PARTS, ONLINE, FOR_KEY, EVEN, True, INTERPRETED,
        )  # fmt: skip
    out = split.to(tl.int64) * count + first + row
    tl.store(sums_ptr + out[:, None] * width + channel[None, :], sums, mask=row_inside)
    if not FOR_KEY:
        tl.store(totals_ptr + out, totals, mask=row < size)
        tl.store(largest_ptr + out, largest / _LOG2_E, mask=row < size)


@jit()
def finish_query(  # type: ignore[no-untyped-def]
    query_ptr,
    key_ptr,
    query_inverse_ptr,
    key_inverse_ptr,
    positive_ptr,
    sums_ptr,
    totals_ptr,
    largest_ptr,
    loss_ptr,
    gradient_ptr,
    normaliser_ptr,
    miss_ptr,
    count,
    width,
    inverse_temperature,
    epsilon,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    LENGTHENED: tl.constexpr,
):
    """Splits → loss, ∂loss_i/∂q_i, log Σ exp(s_ij) and 1 − p_ii."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < count
    column = tl.arange(0, WIDTH)
    inside = exists[:, None] & (column < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    positive = tl.load(positive_ptr + row, mask=exists, other=0.0)
    bound = positive
    for split in tl.static_range(SPLITS):
        bound = tl.maximum(
            bound, tl.load(largest_ptr + split * count + row, mask=exists, other=0.0)
        )
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    others = tl.zeros((ROWS,), tl.float32)
    for split in tl.static_range(SPLITS):
        largest = tl.load(largest_ptr + split * count + row, mask=exists, other=0.0)
        shrink = tl.exp(largest - bound)
        start = sums_ptr + split * tl.full((), count, tl.int64) * width
        sums += tl.load(start + place, mask=inside, other=0.0) * shrink[:, None]
        others += tl.load(totals_ptr + split * count + row, mask=exists, other=0.0) * shrink
    own = tl.exp(positive - bound)
    total = others + own
    # Where the positive dominates, log(total / own) would drown in rounding. There is no log1p;
    # log(1 + x) · x / ((1 + x) − 1) is it, to the last bits.
    dominates = own > others
    ratio = tl.where(dominates, others / tl.where(dominates, own, 1.0), 1.0)
    rounded = 1.0 + ratio
    unseen = rounded == 1.0
    small = tl.log(rounded) * (ratio / tl.where(unseen, 1.0, rounded - 1.0))
    small = tl.where(unseen, ratio, small)
    loss = tl.where(dominates, small, tl.log(total) + bound - positive)
    miss = others / total
    query = tl.load(query_ptr + place, mask=inside, other=0.0).to(tl.float32)
    key = tl.load(key_ptr + place, mask=inside, other=0.0).to(tl.float32)
    query_inverse = tl.load(query_inverse_ptr + row, mask=exists, other=0.0)
    key_inverse = tl.load(key_inverse_ptr + row, mask=exists, other=0.0)
    key = key * key_inverse[:, None]
    gradient = (sums / total[:, None] - miss[:, None] * key) * inverse_temperature
    # The row itself is kept, not it and its multiples: registers are few.
    along = tl.sum(gradient * query, axis=1) * query_inverse
    along *= _inverse_norm(query, 0.0) if LENGTHENED else query_inverse
    gradient = gradient - along[:, None] * query
    tl.store(loss_ptr + row, loss, mask=exists)
    tl.store(normaliser_ptr + row, tl.log(total) + bound, mask=exists)
    tl.store(miss_ptr + row, miss, mask=exists)
    tl.store(gradient_ptr + place, gradient * query_inverse[:, None], mask=inside)


@jit()
def finish_key(  # type: ignore[no-untyped-def]
    query_ptr,
    key_ptr,
    query_inverse_ptr,
    key_inverse_ptr,
    weight_ptr,
    sums_ptr,
    gradient_ptr,
    count,
    width,
    inverse_temperature,
    epsilon,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    LENGTHENED: tl.constexpr,
):
    """Splits → ∂loss/∂k_j; ``weight`` is g_j (1 − p_jj)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < count
    column = tl.arange(0, WIDTH)
    inside = exists[:, None] & (column < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    for split in tl.static_range(SPLITS):
        start = sums_ptr + split * tl.full((), count, tl.int64) * width
        sums += tl.load(start + place, mask=inside, other=0.0)
    query = tl.load(query_ptr + place, mask=inside, other=0.0).to(tl.float32)
    key = tl.load(key_ptr + place, mask=inside, other=0.0).to(tl.float32)
    query = query * tl.load(query_inverse_ptr + row, mask=exists, other=0.0)[:, None]
    key_inverse = tl.load(key_inverse_ptr + row, mask=exists, other=0.0)
    weight = tl.load(weight_ptr + row, mask=exists, other=0.0)
    gradient = (sums - weight[:, None] * query) * inverse_temperature
    along = tl.sum(gradient * key, axis=1) * key_inverse
    along *= _inverse_norm(key, 0.0) if LENGTHENED else key_inverse
    gradient = gradient - along[:, None] * key
    tl.store(gradient_ptr + place, gradient * key_inverse[:, None], mask=inside)


# --- Launches and autograd ----------------------------------------------------------------------

MAX_SPLITS = 8
_TILES_OF_A_PROGRAM = 8  # what a program costs beside its tiles, in tiles: measured on an H200
PREPARE_ROWS = 8  # per program of the kernels that go over the rows once


@dataclass(frozen=True)
class _Plan:
    """Everything about a call that does not depend on the rows' values."""

    count: int
    width: int
    size: int  # rows per block
    groups: int
    inverse_temperature: float
    epsilon: float
    chosen: Configuration
    splits: int

    @property
    def padded_width(self) -> int:
        return max(16, int(triton.next_power_of_2(self.width)))

    @property
    def even(self) -> bool:
        """Whether blocks and rows are whole tiles, so that nothing has to be masked."""
        tile = max(self.chosen.rows, self.chosen.columns)  # both are powers of two
        return self.size % tile == 0 and self.width == self.padded_width

    @property
    def row_tiles(self) -> int:
        return int(triton.cdiv(self.size, self.chosen.rows))


def _plan(query: Tensor, temperature: float, groups: int, epsilon: float) -> _Plan:
    count, width = query.shape
    size = count // groups
    capability, processors = 90, 1  # what the interpreter imitates
    if query.is_cuda:
        properties = torch.cuda.get_device_properties(query.device)
        capability = 10 * properties.major + properties.minor
        processors = properties.multi_processor_count
    chosen = configuration(_LANES[query.dtype], size, capability)
    splits = best_splits(
        triton.cdiv(size, chosen.rows) * groups,
        triton.cdiv(size, chosen.columns),
        processors * chosen.resident,
    )
    return _Plan(count, width, size, groups, 1 / temperature, epsilon, chosen, splits)


def best_splits(programs: int, tiles: int, at_once: int) -> int:
    """How many programs share the ``tiles`` of one of ``programs``, so that the last ends soonest.

    The GPU runs programs in rounds of ``at_once``; each costs its tiles and some for its start and
    for the sums it writes.
    """

    def rounds_of_tiles(splits: int) -> int:
        rounds = -(-programs * splits // at_once)
        return rounds * (-(-tiles // splits) + _TILES_OF_A_PROGRAM)

    return min(range(1, max(2, min(MAX_SPLITS, tiles // 2) + 1)), key=rounds_of_tiles)


def _attend(
    plan: _Plan, rows: Sequence[Tensor], columns: Sequence[Tensor], *, for_key: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch *attend*; ``rows`` are (high, low, inverse), ``columns`` also (shift, gain)."""
    chosen, like = plan.chosen, rows[2]
    sums = like.new_empty((plan.splits, plan.count, plan.width))
    totals, largest = (like.new_empty((plan.splits, plan.count)) for _ in range(2))
    attend[(plan.row_tiles * plan.splits * plan.groups,)](
        *rows,
        *columns,
        sums,
        totals,
        largest,
        plan.count,
        plan.size,
        plan.width,
        plan.inverse_temperature,
        plan.splits,
        ROWS=chosen.rows,
        COLUMNS=chosen.columns,
        WIDTH=plan.padded_width,
        PARTS=chosen.parts,
        ONLINE=not for_key and 2 * plan.inverse_temperature > _STATIC_RANGE,
        FOR_KEY=for_key,
        EVEN=plan.even,
        INTERPRETED=interpreted(attend),
        num_warps=chosen.warps,
        num_stages=chosen.stages,
    )
    return sums, totals, largest


def _prepared(plan: _Plan, query: Tensor, key: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """(high, low, inverse norm) of queries and of keys, and the positives."""
    inverses = query.new_empty((3, plan.count), dtype=torch.float32)
    parts = [query, query, key, key]
    if plan.chosen.parts == 2:
        parts = list(query.new_empty((4, plan.count, plan.width), dtype=torch.bfloat16))
    prepare[(triton.cdiv(plan.count, PREPARE_ROWS),)](
        query,
        key,
        *inverses,
        *parts,
        plan.count,
        plan.width,
        plan.inverse_temperature,
        plan.epsilon,
        ROWS=PREPARE_ROWS,
        WIDTH=plan.padded_width,
        PARTS=plan.chosen.parts,
        INTERPRETED=interpreted(attend),
    )
    return [*parts[:2], inverses[0]], [*parts[2:], inverses[1]], inverses[2]


def _finish_launch(plan: _Plan) -> dict[str, Any]:
    return {
        "ROWS": PREPARE_ROWS,
        "WIDTH": plan.padded_width,
        "SPLITS": plan.splits,
        "LENGTHENED": plan.epsilon > 0,
    }


def _loss_and_gradient(
    query: Tensor, key: Tensor, temperature: float, groups: int, epsilon: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss (N,), ∂loss_i/∂q_i (N, D), log Σ_j exp(s_ij) (N,), 1 − p_ii (N,); all float32."""
    gradient = torch.empty_like(query, dtype=torch.float32)
    loss, normaliser, miss = (gradient.new_empty((len(query),)) for _ in range(3))
    if len(query) == 0:
        return loss, gradient, normaliser, miss
    plan = _plan(query, temperature, groups, epsilon)
    with on_device_of(query):
        queries, keys, positive = _prepared(plan, query, key)
        sums, totals, largest = _attend(plan, queries, [*keys, keys[2], keys[2]], for_key=False)
        finish_query[(triton.cdiv(plan.count, PREPARE_ROWS),)](
            query,
            key,
            queries[2],
            keys[2],
            positive,
            sums,
            totals,
            largest,
            loss,
            gradient,
            normaliser,
            miss,
            plan.count,
            plan.width,
            plan.inverse_temperature,
            plan.epsilon,
            **_finish_launch(plan),
        )
    return loss, gradient, normaliser, miss


_forward = torch.library.custom_op("sincut::patch_nce", _loss_and_gradient, mutates_args=())


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, temperature: float, groups: int, epsilon: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    row = query.new_empty((query.shape[0],), dtype=torch.float32)
    gradient = torch.empty_like(query, dtype=torch.float32)
    return row, gradient, torch.empty_like(row), torch.empty_like(row)


def _gradient_of_keys(
    query: Tensor,
    key: Tensor,
    incoming: Tensor,
    normaliser: Tensor,
    miss: Tensor,
    temperature: float,
    groups: int,
    epsilon: float = 0.0,
) -> Tensor:
    """∂(incoming · loss)/∂k, (N, D) float32; ``normaliser`` and ``miss`` from the forward pass."""
    gradient = torch.empty_like(key, dtype=torch.float32)
    if len(key) == 0:
        return gradient
    plan = _plan(query, temperature, groups, epsilon)
    with on_device_of(query):
        queries, keys, _ = _prepared(plan, query, key)
        gain = incoming * queries[2]
        sums, _, _ = _attend(plan, keys, [*queries, normaliser, gain], for_key=True)
        finish_key[(triton.cdiv(plan.count, PREPARE_ROWS),)](
            query,
            key,
            queries[2],
            keys[2],
            incoming * miss,
            sums,
            gradient,
            plan.count,
            plan.width,
            plan.inverse_temperature,
            plan.epsilon,
            **_finish_launch(plan),
        )
    return gradient


_key_gradient = torch.library.custom_op(
    "sincut::patch_nce_key_gradient", _gradient_of_keys, mutates_args=()
)


@_key_gradient.register_fake
def _(
    query: Tensor,
    key: Tensor,
    incoming: Tensor,
    normaliser: Tensor,
    miss: Tensor,
    temperature: float,
    groups: int,
    epsilon: float = 0.0,
) -> Tensor:
    return torch.empty_like(key, dtype=torch.float32)


_NO_SECOND = "patch_nce has no second derivative; use patch_nce_reference"


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, *ctx.how = inputs
    _, gradient, normaliser, miss = output
    ctx.save_for_backward(query, key, gradient, normaliser, miss)
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any,
    incoming: Tensor | None,
    *others: Tensor | None,
    gradient_of_keys: Callable[..., Tensor] = _key_gradient,
) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    if any(other is not None for other in others):
        raise RuntimeError(_NO_SECOND)
    if incoming is None:
        return None, None, None, None, None
    query, key, gradient, normaliser, miss = ctx.saved_tensors
    of_query = of_key = None
    if ctx.needs_input_grad[0]:
        of_query = (gradient * incoming[:, None]).to(query.dtype)
    if ctx.needs_input_grad[1]:
        incoming = incoming.contiguous()
        of_key = gradient_of_keys(query, key, incoming, normaliser, miss, *ctx.how).to(key.dtype)
    return of_query, of_key, None, None, None


_forward.register_autograd(_backward, setup_context=_save)


class _KeyGradient(torch.autograd.Function):
    """The key's gradient for eager code; its own derivative is refused."""

    forward = staticmethod(_gradient_of_keys)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> None:
        raise RuntimeError(_NO_SECOND)


class _PatchNCE(torch.autograd.Function):
    """The operator for eager code."""

    forward = staticmethod(_loss_and_gradient)
    setup_context = staticmethod(_save)
    backward = staticmethod(partial(_backward, gradient_of_keys=_KeyGradient.apply))
