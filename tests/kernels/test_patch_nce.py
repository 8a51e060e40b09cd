"""PatchNCE against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sincut.kernels.patch_nce import patch_nce


def rows(count: int, width: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_hand(query: Tensor, key: Tensor, temperature: float, groups: int) -> list[float]:
    """One query at a time, in float64."""
    query, key = query.double(), key.double()
    size = len(query) // groups
    result = []
    for i in range(len(query)):
        block = range(i // size * size, i // size * size + size)
        s = [
            (query[i] @ key[j] / (query[i].norm() * key[j].norm()) / temperature).item()
            for j in block
        ]
        s_max = max(s)
        total = sum(2.718281828459045 ** (each - s_max) for each in s)
        result.append(float(torch.tensor(total).log()) + s_max - s[i % size])
    return result


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (16, 1), (16, 4), (17, 1), (34, 2)])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_loss_is_the_formula(count: int, groups: int, temperature: float) -> None:
    query, key = rows(count), rows(count, seed=1)
    loss = patch_nce(query, key, temperature=temperature, groups=groups)
    expected = torch.tensor(by_hand(query, key, temperature, groups))
    assert loss.shape == (count,)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, expected.float(), rtol=1e-5, atol=2e-6 / temperature)


@pytest.mark.parametrize("kind", ["random", "equal", "near", "collapsed", "large", "small"])
def test_gradient_against_float64(kind: str) -> None:
    query, key = rows(64), rows(64, seed=1)
    if kind == "equal":
        key = query.clone()
    elif kind == "near":
        key = query + 0.45 * key
    elif kind == "collapsed":
        query, key = query[:1] + 1e-3 * query, query[:1] + 1e-3 * key
    elif kind in ("large", "small"):
        query, key = (each * (1e15 if kind == "large" else 1e-15) for each in (query, key))
    weights = rows(64, 1, seed=2)[:, 0]
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = query.to(dtype, copy=True).requires_grad_()
        (patch_nce(leaf, key.to(dtype), groups=2) * weights.to(dtype)).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    # What float32 itself loses is largest where the similarities nearly agree.
    assert error < {"collapsed": 2e-2, "near": 1e-4, "equal": 1e-4}.get(kind, 2e-6)


def test_gradcheck_in_float64() -> None:
    query, key = (rows(8, 5, s, torch.float64).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(lambda q, k: patch_nce(q, k, groups=2), (query, key))
    assert patch_nce(query, key).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_computed_in_float32(dtype: torch.dtype) -> None:
    query, key = rows(32, dtype=dtype), rows(32, seed=1, dtype=dtype)
    assert torch.equal(patch_nce(query, key), patch_nce(query.float(), key.float()))


def test_a_callers_autocast_does_not_round_the_logits() -> None:
    query, key = rows(32), rows(32, seed=1)
    expected = patch_nce(query, key)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce(query, key), expected)


def test_no_rows_have_no_losses() -> None:
    assert patch_nce(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_only_those_who_ask_get_a_gradient() -> None:
    query, key = rows(8).requires_grad_(), rows(8, seed=1).requires_grad_()
    patch_nce(query, key.detach()).sum().backward()
    assert query.grad is not None
    assert key.grad is None
    patch_nce(query.detach(), key).sum().backward()
    assert key.grad is not None


def test_zero_rows_have_zero_gradient() -> None:
    query, key = rows(8), rows(8, seed=1)
    query[3], key[5] = 0, 0
    query.requires_grad_(), key.requires_grad_()
    loss = patch_nce(query, key)
    loss.sum().backward()
    assert query.grad is not None
    assert key.grad is not None
    assert loss.isfinite().all()
    assert query.grad.isfinite().all()
    assert (query.grad[3] == 0).all()
    assert key.grad.isfinite().all()
    assert (key.grad[5] == 0).all()


def test_invariances() -> None:
    query, key = rows(12).requires_grad_(), rows(12, seed=1)
    loss = patch_nce(query, key)
    assert torch.allclose(patch_nce(query * 7, key / 3), loss, atol=1e-5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(patch_nce(query[order], key[order]), loss[order], atol=1e-5)
    loss.sum().backward()
    assert query.grad is not None
    # A longer row is the same row: the gradient is orthogonal to it.
    assert (query.grad * query).sum(dim=1).abs().max() < 1e-4


def test_blocks_do_not_see_each_other() -> None:
    query, key = rows(12), rows(12, seed=1)
    both = patch_nce(query, key, groups=2)
    assert torch.allclose(both[:6], patch_nce(query[:6], key[:6]), atol=1e-6)
    assert not torch.allclose(both, patch_nce(query, key), atol=1e-2)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 3), (5, 3)), {}, r"query and key must both be \(N, D\), got \(4, 3\) and \(5, 3\)"),
        (((4,), (4,)), {}, r"query and key must both be \(N, D\), got \(4,\) and \(4,\)"),
        (((4, 3), (4, 3)), {"groups": 3}, "groups must divide the 4 rows, got 3"),
        (((4, 3), (4, 3)), {"groups": 0}, "groups must divide the 4 rows, got 0"),
        (((4, 3), (4, 3)), {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(
    shapes: tuple[tuple[int, ...], ...], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        patch_nce(*(torch.ones(shape) for shape in shapes), **options)  # type: ignore[arg-type]


def by_epsilon(query: Tensor, key: Tensor, epsilon: float) -> Tensor:
    """The formula of CUT's code: v / (‖v‖ + ε), float64."""
    query, key = (each / (each.norm(dim=1, keepdim=True) + epsilon) for each in (query, key))
    similarity = query @ key.T / 0.07
    return similarity.logsumexp(dim=1) - similarity.diagonal()


@pytest.mark.parametrize("scale", [1e-8, 1e-7, 1e-3, 1.0])
def test_epsilon_is_added_to_the_lengths(scale: float) -> None:
    """Rows as short as at the start of a training of CUT's."""
    query, key = (scale * rows(32, 16, s, torch.float64) for s in (0, 1))
    ours, theirs = (query.clone().requires_grad_() for _ in range(2))
    loss = patch_nce(ours, key, epsilon=1e-7)
    expected = by_epsilon(theirs, key, 1e-7)
    assert torch.allclose(loss, expected, rtol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert (ours.grad - theirs.grad).norm() <= 1e-10 * theirs.grad.norm()
    single = query.float().requires_grad_()
    patch_nce(single, key.float(), epsilon=1e-7).sum().backward()
    assert single.grad is not None
    assert (single.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


def test_zero_rows_get_no_gradient_with_epsilon() -> None:
    query, key = rows(8), rows(8, seed=1)
    query[3] = 0
    query.requires_grad_()
    patch_nce(query, key, epsilon=1e-7).sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert (query.grad[3] == 0).all()


def test_epsilon_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon must be at least 0, got -1"):
        patch_nce(rows(4), rows(4), epsilon=-1)
