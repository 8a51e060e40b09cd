"""Triton where there is one, and what launching a kernel takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:  # Triton exists for Linux; elsewhere references serve the CPU
    triton = tl = None

__all__ = ["interpreted", "jit", "on_device_of", "tl", "triton"]


def jit(*, sizes: Sequence[str] = ()) -> Callable[[Any], Any]:
    """Decorate a kernel.

    It is not compiled anew for other values of the arguments in ``sizes``; by itself Triton makes
    a kernel of its own of every one that is 1 or a multiple of 16, which takes a second each.
    """

    def decorated(function: Any) -> Any:
        return triton.jit(function, do_not_specialize=list(sizes)) if triton else function

    return decorated


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def interpreted(kernel: Any) -> bool:
    """Whether Triton interprets the kernel, on a CPU, instead of compiling it."""
    return not isinstance(kernel, triton.JITFunction)
