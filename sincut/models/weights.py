"""The weights of a network made ready for a pass, all at once.

Every layer uses its weight times a constant, and in mixed precision rounded. Layer by layer that is
two launches for each use of each weight, and two for its gradient; a GPU spends more time on the
launches than on the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Weighted(nn.Module):
    """A layer that uses ``weight`` times ``weight_gain``, which it gets as ``scaled_weight``."""

    weight: Tensor
    weight_gain: float = 1.0
    _ready: Tensor | None = None

    @property
    def scaled_weight(self) -> Tensor:
        """The weight times its gain; inside :func:`ready_weights` as that made it."""
        if self._ready is not None:
            return self._ready
        return self.weight if self.weight_gain == 1 else self.weight * self.weight_gain


class Linear(nn.Linear, Weighted):
    """PyTorch's linear layer, with a weight that can be made ready."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return nn.functional.linear(input, self.scaled_weight, self.bias)


@contextlib.contextmanager
def ready_weights(network: nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Inside, the network's layers use weights that are scaled and rounded once.

    Their gradients reach the weights when the pass is differentiated, which may be later; once.

    Args:
        dtype: what they are rounded to; by default they keep their type.
    """
    layers = [module for module in network.modules() if isinstance(module, Weighted)]
    gains = [layer.weight_gain for layer in layers]
    made = _Made.apply(dtype, gains, *(layer.weight for layer in layers))  # type: ignore[no-untyped-call]
    try:
        for layer, weight in zip(layers, made, strict=True):
            layer._ready = weight
        yield
    finally:
        for layer in layers:
            layer._ready = None


class _Made(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype | None, gains: list[float], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.gains, ctx.dtype = gains, weights[0].dtype if weights else None
        ctx.set_materialize_grads(False)
        return tuple(_cast([*torch._foreach_mul(weights, gains)], dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Any, ...]:
        there = [index for index, slope in enumerate(slopes) if slope is not None]
        found = _cast([slope for slope in slopes if slope is not None], ctx.dtype)
        torch._foreach_mul_(found, [ctx.gains[index] for index in there])
        result: list[Tensor | None] = [None] * len(slopes)
        for index, each in zip(there, found, strict=True):
            result[index] = each
        return None, None, *result


def _cast(tensors: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """Copies of a type, or what is of it already."""
    if not tensors or dtype in (None, tensors[0].dtype):
        return tensors
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, tensors)
    return copies
