"""The kernels against float64: on CUDA where there is one, else through Triton's interpreter.

What is allowed is what the eager reference itself loses in float32, plus what the lane loses.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sincut.kernels import patch_nce as module
from sincut.kernels.patch_nce import (
    CONFIGURATIONS,
    MAX_WIDTH,
    configuration,
    multilayer_patch_nce,
    patch_nce,
    patch_nce_reference,
    patch_nce_triton,
)

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []

# Largest loss error times temperature, and relative gradient errors for random rows and for q = k:
# four times the emulated errors of three bf16 products and of one, at N = 1024 and D = 256.
# Roundings are independent: with fewer to average the relative error grows by the square root.
ALLOWED = {
    # loss, gradient of random rows, of rows at a cosine of 0.9, of equal rows
    torch.float32: (4 * 2.4e-5 * 0.07, 4 * 4e-7, 4 * 7e-6, 4 * 4e-5),
    # The result itself is rounded; what that costs small gradients is added in `check`.
    torch.float16: (4 * 2.4e-5 * 0.07, 2**-11, 2**-11, 2**-11),
    torch.bfloat16: (4 * 7e-3 * 0.07, 4 * 2e-4 + 2**-8, 4 * 1e-3 + 2**-8, 4 * 4e-3),
}
KINDS = {"near": 2, "collapsed": 3, "equal": 3}


def rows(count: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pair(kind: str, count: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    query, key = rows(count, width, 0), rows(count, width, 1)
    if kind == "equal":
        key = query.clone()
    elif kind == "near":
        key = query + 0.48 * key  # cosine of about 0.9
    elif kind == "collapsed":
        query, key = query[:1] + 0.05 * query, query[:1] + 0.05 * key
    elif kind == "large":
        query, key = query * 1e15, key * 1e15
    elif kind == "small":
        query, key = query * 1e-15, key * 1e-15
    elif kind == "mixed":
        query, key = query * 1e15, key * 1e-15
    return query.to(dtype).to(DEVICE), key.to(dtype).to(DEVICE)


def evaluate(
    function: Any, query: Tensor, key: Tensor, weight: Tensor, dtype: torch.dtype, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and both gradients, in float64, of the function on rows converted to a type."""
    query, key = (each.detach().to(dtype, copy=True).requires_grad_() for each in (query, key))
    loss = function(query, key, **options)
    (loss * weight.to(loss.dtype)).sum().backward()
    assert query.grad is not None
    assert key.grad is not None
    assert query.grad.dtype == dtype
    return loss.detach().double(), query.grad.double(), key.grad.double()


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-300))


def check(kind: str, count: int, width: int, dtype: torch.dtype, **options: Any) -> None:
    query, key = pair(kind, count, width, dtype)
    weight = rows(count, 1, 2)[:, 0].to(DEVICE)
    exact = evaluate(patch_nce_reference, query, key, weight, torch.float64, **options)
    eager = evaluate(patch_nce_reference, query, key, weight, torch.float32, **options)
    fused = evaluate(patch_nce_triton, query, key, weight, dtype, **options)
    of_loss, of_gradient = ALLOWED[dtype][0], ALLOWED[dtype][KINDS.get(kind, 1)]
    temperature = options.get("temperature", 0.07)
    own = (eager[0] - exact[0]).abs().max()
    slack = max(1.0, (256 / width) ** 0.5) * of_loss / temperature
    assert (fused[0] - exact[0]).abs().max() <= own + slack
    steep = max(1.0, 0.07 / temperature)
    fewer = min(16.0, max(1.0, (1024 / count * 256 / width) ** 0.5))
    allowed = of_gradient * steep
    for index in (1, 2):
        own = error(eager[index], exact[index])
        if dtype == torch.float16:  # below 6e-5 its numbers lose places
            own += error(exact[index].half().double(), exact[index])
        assert error(fused[index], exact[index]) <= own + fewer * allowed


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [2, 15, 16, 17, 65, 255, 257])
def test_sizes(count: int, dtype: torch.dtype) -> None:
    check("random", count, 32, dtype)


def test_one_row_has_no_negatives() -> None:
    query, key = pair("random", 1, 32, torch.float32)
    query.requires_grad_()
    loss = patch_nce_triton(query, key)
    loss.sum().backward()
    assert loss.item() == 0
    assert query.grad is not None
    assert query.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["equal", "near", "collapsed", "large", "small", "mixed"])
def test_kinds_of_rows(kind: str, dtype: torch.dtype) -> None:
    check(kind, 64, 48, dtype)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("random", torch.float32),
        ("near", torch.float32),
        ("equal", torch.float32),
        ("near", torch.float16),  # gradients at q = k are too small for float16 itself
        ("near", torch.bfloat16),
        ("equal", torch.bfloat16),
    ],
    ids=str,
)
def test_lanes_at_full_width(kind: str, dtype: torch.dtype) -> None:
    check(kind, 512, 256, dtype)


@pytest.mark.parametrize("temperature", [0.01, 0.024, 0.026, 1.0])
@pytest.mark.parametrize("kind", ["random", "near"])
def test_temperatures(kind: str, temperature: float) -> None:
    """Below 0.025 the running maximum takes over from the static one."""
    check(kind, 80, 32, torch.float32, temperature=temperature)


@pytest.mark.parametrize(("count", "groups"), [(64, 4), (96, 2), (51, 3), (32, 32)])
def test_groups(count: int, groups: int) -> None:
    check("random", count, 24, torch.float32, groups=groups)


@pytest.mark.parametrize("width", [3, 16, 33, 100, 256])
def test_widths(width: int) -> None:
    check("random", 40, width, torch.float32)


def test_rows_of_one_entry_have_no_direction_to_turn() -> None:
    query, key = pair("random", 40, 1, torch.float32)
    weight = torch.ones(40, device=DEVICE)
    exact = evaluate(patch_nce_reference, query, key, weight, torch.float64)
    fused = evaluate(patch_nce_triton, query, key, weight, torch.float32)
    assert torch.allclose(fused[0], exact[0], atol=1e-4)
    assert (fused[1] * query).abs().max() < 1e-4
    assert (fused[2] * key).abs().max() < 1e-4


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_splits_agree(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the columns are divided among programs, also unevenly, also with empty shares."""
    original = module._plan

    def split(*arguments: Any) -> Any:
        import dataclasses

        return dataclasses.replace(original(*arguments), splits=splits)

    monkeypatch.setattr(module, "_plan", split)
    check("random", 200, 32, torch.float32)
    check("random", 120, 32, torch.float32, temperature=0.01)


@pytest.mark.parametrize(
    ("programs", "tiles", "expected"),
    [
        (8, 16, 8),  # 1024 rows of 132 processors: as many as there may be
        (32, 64, 4),  # 4096: one round of 128 programs
        (96, 64, 1),  # three layers of it: four would take as long, and leave more sums
        (192, 64, 2),  # six: three rounds of 32 tiles instead of two of 64
        (128, 256, 1),  # 16384 fill the GPU by themselves
        (66, 2, 1),  # two tiles are too few to share
        (1, 1, 1),
    ],
)
def test_splits_leave_few_processors_idle(programs: int, tiles: int, expected: int) -> None:
    assert module.best_splits(programs, tiles, 132) == expected


def test_zero_rows_have_zero_gradient() -> None:
    query, key = pair("random", 24, 32, torch.float32)
    query[3], key[5] = 0, 0
    weight = torch.ones(24, device=DEVICE)
    fused = evaluate(patch_nce_triton, query, key, weight, torch.float32)
    exact = evaluate(patch_nce_reference, query, key, weight, torch.float64)
    assert (fused[1][3] == 0).all()
    assert (fused[2][5] == 0).all()
    assert torch.allclose(fused[0], exact[0], atol=1e-2)


def test_no_rows_have_no_losses() -> None:
    empty = torch.zeros(0, 16, device=DEVICE, requires_grad=True)
    loss = patch_nce_triton(empty, empty.detach())
    loss.sum().backward()
    assert loss.shape == (0,)


def test_invariances() -> None:
    query, key = pair("random", 20, 32, torch.float32)
    query.requires_grad_()
    loss = patch_nce_triton(query, key)
    loss.sum().backward()
    assert query.grad is not None
    # A longer row is the same row, so its gradient is orthogonal to it.
    assert torch.allclose(patch_nce_triton(query * 8, key / 4), loss, atol=1e-4)
    assert (query.grad * query).sum(dim=1).abs().max() < 1e-5
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    assert torch.allclose(patch_nce_triton(query[order], key[order]), loss[order], atol=1e-4)


def test_three_launches_forward_and_none_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """With constant keys the backward pass is one multiplication; with others three launches."""
    launches: list[str] = []

    class Counted:
        def __init__(self, name: str, kernel: Any) -> None:
            self.name, self.kernel = name, kernel

        def __getitem__(self, grid: Any) -> Any:
            launches.append(self.name)
            return self.kernel[grid]

    interpreted = module.interpreted(module.attend)  # asks what kind of thing it is
    monkeypatch.setattr(module, "interpreted", lambda _: interpreted)
    for name in ("prepare", "attend", "finish_query", "finish_key"):
        monkeypatch.setattr(module, name, Counted(name, getattr(module, name)))
    query, key = (each.requires_grad_() for each in pair("random", 20, 16, torch.float32))
    patch_nce_triton(query, key.detach()).sum().backward()
    assert launches == ["prepare", "attend", "finish_query"]
    patch_nce_triton(query.detach(), key).sum().backward()
    assert launches[6:] == ["prepare", "attend", "finish_key"] or launches[3:] == [
        "prepare", "attend", "finish_query", "prepare", "attend", "finish_key",
    ]  # fmt: skip


def test_nothing_uninitialised_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All memory the kernels are given to write is filled with NaN before."""
    original = torch.empty, torch.empty_like, Tensor.new_empty

    def poisoned(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Tensor:
            result: Tensor = function(*arguments, **options)
            return result.fill_(float("nan")) if result.is_floating_point() else result

        return call

    for place, name, function in zip(
        (torch, torch, Tensor), ("empty", "empty_like", "new_empty"), original, strict=True
    ):
        monkeypatch.setattr(place, name, poisoned(function))
    check("random", 37, 20, torch.float32)
    check("random", 48, 20, torch.float32, groups=3, temperature=0.01)


def test_rows_need_not_be_contiguous() -> None:
    wide = rows(40, 96, 0).to(DEVICE)
    query, key = wide[:, ::3], wide[:, 1::3]
    assert not query.is_contiguous()
    together = patch_nce_triton(query.contiguous(), key.contiguous())
    assert torch.equal(patch_nce_triton(query, key), together)


def test_only_those_who_ask_get_a_gradient() -> None:
    query, key = (each.requires_grad_() for each in pair("random", 20, 16, torch.float32))
    patch_nce_triton(query, key.detach()).sum().backward()
    assert query.grad is not None
    assert key.grad is None
    both = query.grad.clone()
    query.grad = None
    patch_nce_triton(query.detach(), key).sum().backward()
    assert query.grad is None
    assert key.grad is not None
    assert not torch.equal(both, key.grad)
    assert not patch_nce_triton(query.detach(), key.detach()).requires_grad


@pytest.mark.parametrize("of", ["query", "key"])
def test_a_second_derivative_is_refused(of: str) -> None:
    rows_of = dict(zip(("query", "key"), pair("random", 20, 16, torch.float32), strict=True))
    leaf = rows_of[of].requires_grad_()
    loss = patch_nce_triton(rows_of["query"], rows_of["key"]).sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="patch_nce has no second derivative"):
        (gradient.square().sum() + leaf.square().sum()).backward()


def test_two_runs_agree_bit_for_bit() -> None:
    query, key = pair("random", 100, 32, torch.float32)
    weight = rows(100, 1, 2)[:, 0].to(DEVICE)
    first, second = (
        evaluate(patch_nce_triton, query, key, weight, torch.float32) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_layers_are_joined_where_their_shapes_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = ([rows(24, 16, 10 * s + n) for n in range(3)] for s in (0, 1))
    calls = []

    def counted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(options["groups"])
        return patch_nce_reference(*arguments, **options)

    monkeypatch.setattr(module, "patch_nce", counted)
    joined = multilayer_patch_nce(queries, keys, groups=2)
    assert calls == [6]
    for query, key, loss in zip(queries, keys, joined, strict=True):
        assert torch.allclose(loss, patch_nce_reference(query, key, groups=2), atol=1e-6)
    ragged = multilayer_patch_nce([queries[0], queries[1][:8]], [keys[0], keys[1][:8]])
    assert [len(loss) for loss in ragged] == [24, 8]
    assert calls[1:] == [1, 1]


def test_operators_are_registered_properly() -> None:
    query, key = (each.requires_grad_() for each in pair("random", 20, 16, torch.float32))
    # Not through its derivative: opcheck would ask for that of the saved gradient, too.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(module._forward, (query, key, 0.07, 2), test_utils=checks)
    with torch.no_grad():
        loss, _, normaliser, miss = module._forward(query, key, 0.07, 2)
        arguments = (query, key, torch.ones_like(loss), normaliser, miss, 0.07, 2)
        torch.library.opcheck(module._key_gradient, arguments)


def test_eager_code_does_without_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dispatch takes longer than a small loss; gradients are the same, bit for bit."""
    query, key = (each.requires_grad_() for each in pair("random", 20, 16, torch.float32))
    by_operator = module._forward(query, key, 0.07, 2)[0]
    expected = torch.autograd.grad(by_operator.sum(), (query, key))
    monkeypatch.setattr(module, "_forward", None)
    loss = patch_nce_triton(query, key, groups=2)
    assert torch.equal(loss, by_operator)
    for mine, theirs in zip(torch.autograd.grad(loss.sum(), (query, key)), expected, strict=True):
        assert torch.equal(mine, theirs)


def test_torch_compile_does_not_break_the_graph() -> None:
    query, key = pair("random", 20, 16, torch.float32)

    def step(query: Tensor) -> Tensor:
        return patch_nce_triton(2 * query, key).mean() * 3

    leaves = [query.clone().requires_grad_() for _ in range(2)]
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for function, leaf in zip((step, compiled), leaves, strict=True):
        function(leaf).backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="rows must have at most 256 entries, got 257"):
        patch_nce_triton(torch.ones(4, MAX_WIDTH + 1), torch.ones(4, MAX_WIDTH + 1))
    with pytest.raises(ValueError, match=r"or float16, got torch\.float64"):
        patch_nce_triton(torch.ones(4, 3).double(), torch.ones(4, 3).double())
    with pytest.raises(ValueError, match=r"of one type, got torch.float32 and torch.bfloat16"):
        patch_nce_triton(torch.ones(4, 3), torch.ones(4, 3).bfloat16())


def test_every_size_has_a_configuration() -> None:
    for capability in (80, 89, 90, 100):
        for parts in (1, 2):
            sizes = [configuration(parts, size, capability).smallest for size in (1, 64, 256, 4096)]
            assert sizes == sorted(sizes)
    for table in CONFIGURATIONS.values():
        assert list(table) == sorted(table, key=lambda c: (c.parts, -c.smallest))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("count", "groups"), [(16, 1), (4096, 16), (4095, 1), (4096, 1), (12288, 3)]
)
def test_training_shapes_on_cuda(count: int, groups: int, dtype: torch.dtype) -> None:
    check("random", count, 256, dtype, groups=groups)
    check("near", count, 256, dtype, groups=groups)


@pytest.mark.gpu
def test_cuda_tensors_go_through_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "patch_nce_triton", lambda *a, **k: calls.append(1))
    patch_nce(torch.ones(4, 8, device="cuda"), torch.ones(4, 8, device="cuda"))
    patch_nce(torch.ones(4, 8), torch.ones(4, 8))
    patch_nce(torch.ones(4, 8, device="cuda").double(), torch.ones(4, 8, device="cuda").double())
    assert calls == [1]


@pytest.mark.gpu
def test_replay_of_a_captured_graph() -> None:
    query, key = (each.requires_grad_() for each in pair("random", 512, 256, torch.bfloat16))
    expected = patch_nce_triton(query, key.detach())
    (gradient,) = torch.autograd.grad(expected.sum(), query)
    expected = expected.detach()  # a graph made on this stream would be waited for while recording
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(patch_nce_triton(query, key.detach()).sum(), query)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = patch_nce_triton(query, key.detach())
        (captured,) = torch.autograd.grad(loss.sum(), query)
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(loss, expected)
        assert torch.equal(captured, gradient)


@pytest.mark.gpu
def test_memory_is_linear_in_the_rows() -> None:
    peaks = []
    for count in (8192, 16384):
        query, key = pair("random", count, 256, torch.bfloat16)
        query.requires_grad_()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        patch_nce_triton(query, key).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 2.2 * peaks[0]
    assert peaks[1] < 16384**2  # a byte per logit would already be more


@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1.0])
def test_epsilon_of_cut(scale: float) -> None:
    """v / (‖v‖ + 1e-7), with rows as short as at the start of a training."""
    query, key = (scale * rows(64, 32, s).to(DEVICE) for s in (0, 1))
    query[5] = 0
    gradients = []
    for run, dtype in ((patch_nce_triton, torch.float32), (patch_nce_reference, torch.float64)):
        leaves = [each.to(dtype, copy=True).requires_grad_() for each in (query, key)]
        loss = run(*leaves, groups=2, epsilon=1e-7)
        (loss * torch.linspace(0.5, 1.5, 64, device=DEVICE)).sum().backward()
        gradients.append([loss, *(each.grad for each in leaves)])
    for ours, expected in zip(*gradients, strict=True):
        assert ours is not None
        assert expected is not None
        assert (ours - expected).norm() <= 2e-5 * expected.norm()
    assert (gradients[0][1][5] == 0).all()
