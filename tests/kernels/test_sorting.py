"""Sorted rows, and what their gradient comes to."""

from __future__ import annotations

import pytest
import torch

from sincut.kernels.sorting import in_order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(7,), (2, 3, 1), (2, 5, 300), (3, 0)])
@pytest.mark.parametrize("threads", [1, 32])
def test_it_is_pytorchs_order_with_its_gradient(
    threads: int, shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    random = torch.Generator().manual_seed(len(shape))
    values = torch.randn(shape, generator=random).to(dtype).requires_grad_()
    weight = torch.randn(shape, generator=random).to(dtype)
    found = []
    for function in (in_order, lambda each: each.sort(dim=-1).values):
        ordered = function(values)
        found.append((ordered, *torch.autograd.grad((weight * ordered).sum(), values)))
    assert found[0][0].dtype == dtype
    assert torch.equal(found[0][0], found[1][0])
    if dtype != torch.bfloat16:  # in which numbers are often equal, and no order is the right one
        assert torch.equal(found[0][1], found[1][1])
    constant = in_order(values.detach())
    assert torch.equal(constant, found[0][0])
    assert not constant.requires_grad


def test_rows_that_are_not_in_one_piece_and_no_numbers() -> None:
    values = torch.tensor([[3.0, 1.0, torch.nan], [2.0, torch.inf, -torch.inf]]).T
    expected = torch.tensor([[2.0, 3.0], [1.0, torch.inf], [-torch.inf, torch.nan]])
    assert torch.allclose(in_order(values), expected, equal_nan=True)
    assert values[0].tolist() == [3.0, 2.0]  # the values themselves stay


def test_equal_numbers_share_what_their_places_get() -> None:
    values = torch.tensor([1.0, 0.0, 1.0, 1.0], requires_grad=True)
    ordered = in_order(values)
    (slope,) = torch.autograd.grad((ordered * torch.tensor([5.0, 1.0, 2.0, 4.0])).sum(), values)
    assert slope[1] == 5
    assert sorted(slope[[0, 2, 3]].tolist()) == [1, 2, 4]
