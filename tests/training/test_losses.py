"""Each term against a hand calculation. Their values on networks are in test_golden.py."""

from __future__ import annotations

import math

import pytest
import torch

from sincut.kernels.patch_nce import multilayer_patch_nce
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


def test_contrastive_of_sets_is_that_of_each() -> None:
    queries, keys = ([torch.randn(12, 4), torch.randn(12, 4)] for _ in range(2))
    how = {"temperature": 0.5, "groups": 2, "epsilon": 1e-7}
    found = losses.contrastive(queries, keys, sets=3, **how)
    for number in range(3):
        part = slice(4 * number, 4 * number + 4)
        own = losses.contrastive([q[part] for q in queries], [k[part] for k in keys], **how)
        assert torch.allclose(found[number], own[0])
    half = losses.contrastive(queries, keys, temperature=0.5, groups=1, sets=2, parts=3)
    every = [
        multilayer_patch_nce([q], [k], temperature=0.5, groups=2)[0]
        for q, k in zip(queries, keys, strict=True)
    ]
    for number in range(2):
        counted = [loss[6 * number : 6 * number + 2].mean() for loss in every]
        assert torch.allclose(half[number], torch.stack(counted).mean())


def test_pixel_identity() -> None:
    assert (
        losses.pixel_identity(torch.full((2, 3, 4, 4), 0.5), torch.ones(2, 3, 4, 4)).item() == 0.5
    )


@pytest.mark.parametrize("internal", [False, True])
def test_negatives_of_a_bank(internal: bool) -> None:
    """Query by query, with logits as the formula has them."""
    random = torch.Generator().manual_seed(0)
    query, key, bank = (
        torch.randn(count, 5, generator=random, dtype=torch.float64) for count in (6, 6, 9)
    )
    bank = bank / bank.norm(dim=1, keepdim=True)
    found = losses.contrastive_with_bank(
        [query], [key], [bank], temperature=0.5, groups=2, epsilon=1e-7, internal=internal
    )
    q, k = (each / (each.norm(dim=1, keepdim=True) + 1e-7) for each in (query, key))
    expected = []
    for i in range(6):
        logits = [q[i] @ k[i], *(q[i] @ each for each in bank)]
        if internal:
            group = range(i // 3 * 3, i // 3 * 3 + 3)
            logits += [q[i] @ k[j] for j in group if j != i]
        scaled = torch.stack(logits) / 0.5
        expected.append(scaled.logsumexp(0) - scaled[0])
    assert torch.allclose(found, torch.stack(expected).mean())


def test_the_sliced_distance_compares_patches_wherever_they_lie() -> None:
    random = torch.Generator().manual_seed(0)
    output, target = torch.rand(2, 2, 3, 40, 40, generator=random)
    directions = [torch.randn(losses.DIRECTIONS, generator=random) for _ in losses.SCALES]
    expected = []
    for scale, numbers in zip(losses.SCALES, directions, strict=True):
        step = 2 if scale == 1 else 1
        for ours, theirs in zip(output, target, strict=True):
            projected = []
            for image in (ours, theirs):
                small = image.unfold(1, scale, scale).unfold(2, scale, scale).mean(dim=(3, 4))
                patches = small.unfold(1, 8, step).unfold(2, 8, step).permute(1, 2, 0, 3, 4)
                units = numbers.flatten(1) / numbers.flatten(1).norm(dim=1, keepdim=True)
                rows = patches.flatten(0, 1).flatten(1) @ units.T
                projected.append(rows.sort(dim=0).values)
            expected.append((projected[0] - projected[1]).abs().mean().item())
    # Of two crops at three scales.
    assert losses.sliced_distance(output, target, directions).item() == pytest.approx(
        sum(expected) / len(expected), rel=1e-4
    )
    assert losses.sliced_distance(target, target, directions).item() == 0
