"""Which device and which precision to compute in, and the contexts that make it so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sincut.errors import SincutError


def chosen_device(name: str) -> str:
    """``auto`` as ``cuda`` or ``cpu``; ``cuda`` where there is none raises."""
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise SincutError(
            "--device cuda needs an NVIDIA GPU and a CUDA build of PyTorch, and none was found; "
            "try --device cpu"
        )
    return ("cuda" if present else "cpu") if name == "auto" else name


def multiplies_bf16(device: str) -> bool:
    """Whether the processor has matrix units for bf16; only then is it chosen by itself."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def mixed_precision(device: str, precision: str) -> torch.autocast:
    """Convolutions and linear layers in bf16 where ``precision`` is ``bf16``."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """float32 convolutions are float32: cuDNN would otherwise round their inputs to TF32."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    saved, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = saved


def peak_memory(device: str) -> int:
    """Bytes at the highest point so far: of the device on CUDA, of the process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ModuleNotFoundError:  # Windows does not tell
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
