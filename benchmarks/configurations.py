"""Which launch of *attend* is fastest: every candidate, timed and checked, on this GPU.

The table in ``kernels/patch_nce.py`` is fixed, since tuning at run time breaks the capture of
graphs. This measures what should stand in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.patch_nce import TEMPERATURE, WIDTH, Shape, check, floor_ms
from sincut.kernels import patch_nce as kernels
from sincut.kernels.patch_nce import Configuration, patch_nce_triton

SHAPES = (
    Shape(16), Shape(256, groups=16, layers=3), Shape(1024), Shape(1024, layers=3), Shape(4096),
    Shape(4096, layers=3), Shape(16384),
)  # fmt: skip

# Rows, columns, warps and stages; per number of parts.
CANDIDATES: dict[int, tuple[tuple[int, int, int, int], ...]] = {
    1: (
        (128, 64, 8, 2), (128, 64, 8, 3), (128, 32, 8, 3), (64, 64, 4, 2), (64, 64, 4, 3),
        (64, 32, 4, 2), (64, 32, 4, 3), (16, 64, 4, 3),
    ),
    2: ((128, 32, 8, 2), (128, 32, 8, 3), (64, 32, 4, 2), (16, 32, 8, 2)),
}  # fmt: skip


def measure(dtype: torch.dtype, tell: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """One row per shape, candidate and number of splits; ``tell`` gets each when it is known.

    Milliseconds are those of a replayed graph of the forward pass, which makes the loss and the
    query's gradient.
    """
    parts = kernels._LANES[dtype]
    rows = []
    for shape in SHAPES:
        random = torch.Generator("cuda").manual_seed(0)
        query, key = (
            torch.randn(shape.rows, WIDTH, generator=random, device="cuda").to(dtype)
            for _ in range(2)
        )
        groups = shape.groups * shape.layers
        shipped = kernels._plan(query, TEMPERATURE, groups, 0.0)
        for plan in _plans(shipped, parts):
            row: dict[str, Any] = {
                "shape": str(shape), "type": str(dtype).removeprefix("torch."),
                "rows": plan.chosen.rows, "columns": plan.chosen.columns,
                "warps": plan.chosen.warps, "stages": plan.chosen.stages, "splits": plan.splits,
                "shipped": plan == shipped,
            }  # fmt: skip
            try:
                row["graph_ms"] = _graph_ms(plan, query, key, shape, groups, dtype)
                row["times_the_floor"] = row["graph_ms"] / floor_ms(shape, dtype)
            except Exception as error:  # what does not compile or fit is a result
                row["error"] = f"{type(error).__name__}: {error}"[:200]
            rows.append(row)
            tell(row)
    return rows


def _plans(shipped: kernels._Plan, parts: int) -> Iterator[kernels._Plan]:
    own = shipped.chosen
    mine = own.rows, own.columns, own.warps, own.stages
    for rows, columns, warps, stages in dict.fromkeys((mine, *CANDIDATES[parts])):
        if rows > max(16, shipped.size):
            continue
        chosen = Configuration(parts, 1, rows, columns, warps, stages)
        same = (rows, columns, warps, stages) == (
            shipped.chosen.rows, shipped.chosen.columns, shipped.chosen.warps,
            shipped.chosen.stages,
        )  # fmt: skip
        programs, tiles = -(-shipped.size // rows) * shipped.groups, -(-shipped.size // columns)
        most = min(kernels.MAX_SPLITS, max(1, tiles // 2))
        processors = torch.cuda.get_device_properties(0).multi_processor_count
        for splits in sorted(
            {1, 2, 4, most, shipped.splits if same else 1} & {*range(1, most + 1)}
        ):
            if programs * splits < processors // 2 and splits < most:
                continue  # half of the GPU would idle
            yield replace(shipped, chosen=shipped.chosen if same else chosen, splits=splits)


def _graph_ms(
    plan: kernels._Plan, query: Tensor, key: Tensor, shape: Shape, groups: int, dtype: torch.dtype
) -> float:
    from triton.testing import do_bench_cudagraph

    with patch.object(kernels, "_plan", lambda *_: plan):
        leaf = query.clone().requires_grad_()

        def call() -> tuple[Tensor, Tensor]:
            loss = patch_nce_triton(leaf, key, temperature=TEMPERATURE, groups=groups)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            return loss, gradient

        check(call, leaf, key, shape, dtype)
        with torch.cuda.stream(torch.cuda.Stream()), torch.no_grad():
            ms: float = do_bench_cudagraph(
                lambda: patch_nce_triton(query, key, temperature=TEMPERATURE, groups=groups),
                return_mode="median",
            )
    return ms
