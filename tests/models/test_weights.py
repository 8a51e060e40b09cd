"""Weights made ready for a pass at once: the same numbers, and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sincut.models.patchgan import PatchDiscriminator
from sincut.models.projector import PatchProjector
from sincut.models.stylegan2 import StyleGAN2Generator
from sincut.models.stylegan2_discriminator import TileDiscriminator
from sincut.models.weights import Weighted, ready_weights

NETWORKS = {
    "tiles": lambda: TileDiscriminator(8, 32, 16),
    "patches": lambda: PatchDiscriminator(4),
    "generator": lambda: StyleGAN2Generator(8, 1),
}


def gradients(network: nn.Module, images: Tensor, ready: bool, dtype: torch.dtype) -> list[Tensor]:
    """The output, and the gradient of every parameter."""
    network.zero_grad(set_to_none=True)
    rounded = dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounded):
        if ready:
            with ready_weights(network, torch.bfloat16 if rounded else None):
                out = network(images)
        else:
            out = network(images)
    out.float().square().sum().backward()
    assert all(layer._ready is None for layer in network.modules() if isinstance(layer, Weighted))
    grads = [each.grad for each in network.parameters() if each.grad is not None]
    return [out.detach(), *grads]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_changes(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    images = torch.randn(2, 3, 32, 32)
    usual, ready = (gradients(network, images, each, dtype) for each in (False, True))
    for wanted, got in zip(usual, ready, strict=True):
        assert got.dtype == wanted.dtype
        assert torch.equal(got, wanted)


def test_weights_that_are_not_used_get_no_gradient() -> None:
    projector = PatchProjector([4, 4], 8)
    features = torch.randn(1, 4, 5, 5)
    with ready_weights(projector, torch.bfloat16), torch.autocast("cpu", dtype=torch.bfloat16):
        rows = projector.heads[0](features.flatten(2).transpose(1, 2))
    rows.float().sum().backward()
    given = {name for name, each in projector.named_parameters() if each.grad is not None}
    assert given == {f"heads.0.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}


def test_after_an_error_the_layers_are_as_before() -> None:
    network = TileDiscriminator(8, 32, 16)
    with pytest.raises(RuntimeError), ready_weights(network):
        network(torch.zeros(1, 4, 32, 32))
    assert all(layer._ready is None for layer in network.modules() if isinstance(layer, Weighted))


def test_constant_weights_stay_constant() -> None:
    network = TileDiscriminator(8, 32, 16).requires_grad_(False)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    with ready_weights(network):
        network(images).sum().backward()
    assert images.grad is not None
    assert all(each.grad is None for each in network.parameters())
