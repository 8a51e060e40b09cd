"""PatchNCE: the fused kernels against eager PyTorch, torch.compile and the hardware's floor.

Correctness comes first: a method whose loss or gradient is off is not timed, and the run fails.
Every method gets the same rows and makes the loss and the query's gradient, keys held constant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sincut.kernels.patch_nce import patch_nce, patch_nce_reference

TEMPERATURE = 0.07
WIDTH = 256

# The most that was measured on each: operations a second in bf16, and bytes a second of a copy.
PEAKS = {"H100": (798e12, 3.0e12), "H200": (790e12, 4.3e12)}

Loss = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Shape:
    """``layers`` times ``groups`` blocks of ``size`` rows."""

    size: int
    groups: int = 1
    layers: int = 1

    @property
    def rows(self) -> int:
        """All rows."""
        return self.size * self.groups * self.layers

    def __str__(self) -> str:
        blocks = f"{self.layers * self.groups} × " if self.layers * self.groups > 1 else ""
        return f"{blocks}{self.size}²"


CUDA_SHAPES = (  # what matters most first, as the time on a GPU may be short
    Shape(16384), Shape(4096, layers=3), Shape(4096), Shape(256, groups=16), Shape(16),
    Shape(1024), Shape(65536),
)  # fmt: skip
CPU_SHAPES = (Shape(16), Shape(256, groups=4), Shape(512), Shape(512, layers=3), Shape(2048))


def published(query: Tensor, key: Tensor, groups: int) -> Tensor:
    """As the published code computes it: positives apart, the diagonal overwritten, joined."""
    query, key = (rows / (rows.norm(dim=1, keepdim=True) + 1e-7) for rows in (query, key))
    query, key = (rows.unflatten(0, (groups, -1)) for rows in (query, key))
    positive = (query * key).sum(dim=2, keepdim=True)
    negative = query @ key.mT
    own = torch.eye(negative.shape[1], dtype=torch.bool, device=query.device)
    negative = negative.masked_fill(own, -10.0)
    logits = torch.cat([positive, negative], dim=2).flatten(0, 1) / TEMPERATURE
    target = torch.zeros(len(logits), dtype=torch.long, device=query.device)
    return F.cross_entropy(logits.float(), target, reduction="none")


def compact(query: Tensor, key: Tensor, groups: int) -> Tensor:
    """The shortest eager form: one product and a cross entropy."""
    query, key = (F.normalize(rows).unflatten(0, (groups, -1)) for rows in (query, key))
    logits = (query @ key.mT / TEMPERATURE).flatten(0, 1)
    target = torch.arange(key.shape[1], device=query.device).repeat(groups)
    return F.cross_entropy(logits.float(), target, reduction="none")


def chunked(query: Tensor, key: Tensor, groups: int) -> Tensor:
    """The compact form in chunks of 1024 queries, recomputed in the backward pass."""
    size = len(query) // groups
    key = F.normalize(key)

    def part(rows: Tensor, first: int) -> Tensor:
        block = first // size * size
        logits = F.normalize(rows) @ key[block : block + size].T / TEMPERATURE
        target = torch.arange(first - block, first - block + len(rows), device=rows.device)
        return F.cross_entropy(logits.float(), target, reduction="none")

    step = min(1024, size)
    losses = [
        checkpoint(part, query[first : first + step], first, use_reentrant=False)
        for first in range(0, len(query), step)
    ]
    return torch.cat(losses)


def ours(query: Tensor, key: Tensor, groups: int) -> Tensor:
    """What training calls: the kernels on CUDA, the reference on a CPU."""
    return patch_nce(query, key, temperature=TEMPERATURE, groups=groups)


def measure(
    device: str,
    dtype: torch.dtype,
    *,
    compiled: bool = True,
    on_shape: Callable[[list[dict[str, Any]]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per shape and method; ``on_shape`` gets those of a shape when they are there."""
    methods: dict[str, Loss] = {"ours": ours, "published": published, "compact": compact}
    if compiled:
        # Recompiled per shape, and never in silence left to eager.
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        methods["compile"] = torch.compile(compact, dynamic=False, fullgraph=True)
    methods["chunked"] = chunked
    rows = []
    for shape in CUDA_SHAPES if device == "cuda" else CPU_SHAPES:
        random = torch.Generator(device).manual_seed(0)
        query, key = (
            torch.randn(shape.rows, WIDTH, generator=random, device=device).to(dtype)
            for _ in range(2)
        )
        key = (query.float() * 0.5 + key.float()).to(dtype)
        found = {
            name: _figures(name, method, query, key, shape, dtype)
            for name, method in methods.items()
        }
        own = found["ours"].get("median_ms")
        graph = found["ours"].get("graph_ms")
        of_shape = []
        for name, figures in found.items():
            row = {
                "shape": str(shape),
                "rows": shape.rows,
                "type": str(dtype).removeprefix("torch."),
                "method": name,
                **figures,
            }
            if "error" not in figures:
                floor = floor_ms(shape, dtype) if device == "cuda" else None
                fastest = figures.get("graph_ms") or figures["median_ms"]
                row["ours_is_faster"] = figures["median_ms"] / own if own else None
                row["ours_is_faster_in_a_graph"] = (
                    figures["graph_ms"] / graph if graph and "graph_ms" in figures else None
                )
                row["times_the_floor"] = fastest / floor if floor else None
            of_shape.append(row)
        rows += of_shape
        on_shape(of_shape)
    return rows


def _figures(
    name: str, method: Loss, query: Tensor, key: Tensor, shape: Shape, dtype: torch.dtype
) -> dict[str, Any]:
    """Times and memory of a method that was found right; or the error of what it cannot do."""
    device, leaf = query.device.type, query.clone().requires_grad_()
    call = _call(method, leaf, key, shape.groups * shape.layers)
    capturable = name != "chunked"  # recomputation cannot be captured
    try:
        check(call, leaf, key, shape, dtype)
        forward = forward_ms(method, leaf, key, shape, device)
        both = timed(call, device, capturable=capturable)
        memory = peak(call, device)
    except (torch._dynamo.exc.TorchDynamoException, torch.cuda.OutOfMemoryError) as error:
        # What the compiler, or memory, does not allow is a result.
        text = " ".join(str(error).split())[:200]
    else:
        backward = both["median_ms"] - forward
        return {"forward_ms": forward, "backward_ms": backward, **both, "peak_bytes": memory}
    torch.cuda.empty_cache()  # the error, and with it the tensors of its traceback, is gone
    return {"error": text}


def _call(
    method: Loss, leaf: Tensor, key: Tensor, groups: int
) -> Callable[[], tuple[Tensor, Tensor]]:
    def call() -> tuple[Tensor, Tensor]:
        loss = method(leaf, key, groups)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss, gradient

    return call


def check(
    call: Callable[[], tuple[Tensor, Tensor]],
    leaf: Tensor,
    key: Tensor,
    shape: Shape,
    dtype: torch.dtype,
) -> None:
    """Compare with float64 on the first rows of the first and the last block; raise if off."""
    loss, gradient = (each.detach().double() for each in call())
    count = min(shape.size, 256)
    for first in {0, shape.rows - shape.size}:
        block = slice(first, first + shape.size)
        exact = leaf.detach()[first : first + count].double().requires_grad_()
        # The rest of the block takes part as keys alone.
        similarity = F.normalize(exact) @ F.normalize(key[block].double()).T / TEMPERATURE
        expected = similarity.logsumexp(dim=1) - similarity.diagonal()
        (slope,) = torch.autograd.grad(expected.sum(), exact)
        part = slice(first, first + count)
        off_loss = (loss[part] - expected.detach()).abs().max().item()
        off_gradient = ((gradient[part] - slope).norm() / slope.norm()).item()
        allowed = (1e-3, 1e-4) if dtype == torch.float32 else (0.2, 5e-2)
        if off_loss > allowed[0] or off_gradient > allowed[1]:
            raise RuntimeError(
                f"{shape}: loss off by {off_loss:.2g}, gradient by {off_gradient:.2g}"
            )


def timed(call: Callable[[], Any], device: str, *, capturable: bool) -> dict[str, float]:
    """Milliseconds: quantiles on the host's clock; on CUDA also of do_bench and graph replay."""

    def synchronise() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        call()
    synchronise()
    times = []
    deadline = time.perf_counter() + (1.0 if device == "cuda" else 0.6)
    while len(times) < 5 or (len(times) < 100 and time.perf_counter() < deadline):
        started = time.perf_counter()
        call()
        synchronise()
        times.append(1e3 * (time.perf_counter() - started))
    low, median, high = torch.tensor(times).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    figures: dict[str, float] = {"median_ms": median, "p20_ms": low, "p80_ms": high}
    if device == "cuda":
        from triton.testing import do_bench, do_bench_cudagraph

        figures["do_bench_ms"] = do_bench(call, return_mode="median")
        if capturable:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                figures["graph_ms"] = do_bench_cudagraph(call, return_mode="median")
    return figures


def forward_ms(method: Loss, leaf: Tensor, key: Tensor, shape: Shape, device: str) -> float:
    """Median milliseconds of the loss alone, without a graph for a backward pass."""
    rows, groups = leaf.detach(), shape.groups * shape.layers
    return timed(lambda: method(rows, key, groups), device, capturable=False)["median_ms"]


def peak(call: Callable[[], Any], device: str) -> int | None:
    """Bytes allocated on top of the rows by one call; not measured on a CPU."""
    if device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def floor_ms(shape: Shape, dtype: torch.dtype) -> float:
    """What one pass over the rows needs at the least on this GPU."""
    products = 1 if dtype == torch.bfloat16 else 3
    flops = 4 * shape.size**2 * WIDTH * shape.groups * shape.layers * products
    traffic = shape.rows * WIDTH * (2 * leaf_bytes(dtype) + 4)
    most_flops, most_bytes = peaks()
    return 1e3 * max(flops / most_flops, traffic / most_bytes)


def peaks() -> tuple[float, float]:
    """Operations (bf16) and bytes a second of this GPU; an H200's for any that is not listed."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((rates for key, rates in PEAKS.items() if key in name), PEAKS["H200"])


def leaf_bytes(dtype: torch.dtype) -> int:
    """Bytes per entry of a row."""
    return torch.empty((), dtype=dtype).element_size()


def same_curve(device: str, steps: int) -> dict[str, Any]:
    """Train twice, with what CUDA uses and with the reference, and compare the losses of G."""
    import numpy as np

    from sincut.compute.precision import resolved
    from sincut.config.presets import train_config
    from sincut.data.pair import Pair
    from sincut.demo import render_content, render_style
    from sincut.kernels.patch_nce import multilayer_patch_nce
    from sincut.training import losses as losses_module
    from sincut.training.loop import Record, train

    def reference(queries: Any, keys: Any, **options: Any) -> list[Tensor]:
        return [patch_nce_reference(q, k, **options) for q, k in zip(queries, keys, strict=True)]

    pair = Pair(render_content(384, 288), render_style(384, 288))
    settings = resolved(
        train_config("draft", device=device, precision="fp32", steps=steps, warm_steps=0)
    )
    curves = []
    for function in (multilayer_patch_nce, reference):
        curve: list[float] = []

        def on_step(record: Record, curve: list[float] = curve) -> None:
            curve.append(record.losses["NCE_x"].item())

        losses_module.multilayer_patch_nce = function
        train(pair, settings, on_step)
        curves.append(np.array(curve))
    losses_module.multilayer_patch_nce = multilayer_patch_nce
    ours_curve, eager_curve = curves
    return {
        "steps": steps,
        "largest_relative_difference_first_20": float(
            np.abs(ours_curve[:20] / eager_curve[:20] - 1).max()
        ),
        "relative_difference_of_the_last_20_means": float(
            abs(ours_curve[-20:].mean() / eager_curve[-20:].mean() - 1)
        ),
    }
