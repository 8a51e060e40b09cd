"""Each term against a hand calculation. Their values on networks are in test_golden.py."""

from __future__ import annotations

import math

import pytest
import torch

from sincut.training import losses


def test_adversarial_terms() -> None:
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [3.0]])
    softplus = lambda value: math.log1p(math.exp(value))  # noqa: E731
    g = (softplus(-0.5) + softplus(-3.0)) / 2
    d = ((softplus(0.5) + softplus(3.0)) / 2 + (softplus(-2.0) + softplus(1.0)) / 2) / 2
    assert losses.adversarial_generator(fake).item() == pytest.approx(g)
    assert losses.adversarial_discriminator(real, fake).item() == pytest.approx(d)


def test_r1_is_half_the_squared_gradient_summed_over_an_image() -> None:
    real = torch.randn(3, 3, 4, 5, requires_grad=True)
    weight = torch.randn(3, 4, 5, requires_grad=True)
    logits = (real * weight).sum(dim=(1, 2, 3))[:, None]  # ∂/∂real is the weight, per image
    penalty = losses.r1_penalty(logits, real)
    assert penalty.item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-5)
    penalty.backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, weight.detach(), atol=1e-5)


def test_contrastive_averages_layers_and_keeps_keys_constant() -> None:
    queries = [torch.randn(8, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)]
    keys = [torch.randn(8, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)]
    both = losses.contrastive(queries, keys, temperature=0.5, groups=2)
    each = [
        losses.contrastive([query], [key], temperature=0.5, groups=2)
        for query, key in zip(queries, keys, strict=True)
    ]
    assert both.item() == pytest.approx((each[0] + each[1]).item() / 2, rel=1e-6)
    both.backward()
    assert all(query.grad is not None for query in queries)
    assert all(key.grad is None for key in keys)


def test_pixel_identity() -> None:
    assert (
        losses.pixel_identity(torch.full((2, 3, 4, 4), 0.5), torch.ones(2, 3, 4, 4)).item() == 0.5
    )
