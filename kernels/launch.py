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

__all__ = ["interpreted", "jit", "on_device_of", "rounded", "served", "tl", "triton", "unit_of"]

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def served(image: Tensor) -> bool:
    """Whether the kernels of images take it; a compiler is given PyTorch's operators to fuse."""
    return image.is_cuda and image.dtype in _TYPES and not torch.compiler.is_compiling()


def unit_of(channels: int) -> int:
    """What a kernel of images may take channels to be a multiple of: with 8, reads are of 16 bytes
    even in short types."""
    return 1 if channels % 8 else 8


@jit()
def rounded(x, TYPE: tl.constexpr, INTERPRETED: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 in another type, rounded to nearest; the interpreter would cut bf16 off."""
    if INTERPRETED and TYPE.is_bf16():
        bits = x.to(tl.int32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        x = ((bits >> 16) << 16).to(tl.float32, bitcast=True)
    return x.to(TYPE)
