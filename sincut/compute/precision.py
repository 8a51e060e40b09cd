"""Which precision convolutions are computed in, where that is left to the machine.

On CUDA the generation tells: 8.0 and later have matrix units for bf16. Among CPUs the instructions
alone do not, so where there are some both precisions are timed, in turns, so that whatever else the
machine does hits both, and the shortest of each count. The result is remembered for the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from sincut.compute.devices import chosen_device, limit_threads, processor_name
from sincut.config.training import TrainConfig
from sincut.errors import SincutError
from sincut.files import write_text

Settings = TypeVar("Settings", bound=TrainConfig)

_WORTH_IT = 1.25  # times as fast: below it bf16's rounding buys too little
_TURNS, _MOST_SECONDS = 12, 1.0


@dataclass(frozen=True)
class Precision:
    """``fp32`` or ``bf16``, and why, in a few words."""

    name: str
    why: str


def resolved(config: Settings) -> Settings:
    """The configuration with ``auto`` replaced by what this machine has."""
    return resolved_with_reason(config)[0]


def resolved_with_reason(config: Settings) -> tuple[Settings, Precision]:
    """As :func:`resolved`, and why the precision is what it is."""
    device = chosen_device(config.device)
    if device == "cpu":
        limit_threads()
    precision = precision_of(config, device)
    return config.replaced(device=device, precision=precision.name), precision


def precision_of(config: TrainConfig, device: str) -> Precision:
    """The precision that is asked for, or the faster one on a ``cuda`` or ``cpu`` device."""
    if config.precision != "auto":
        return Precision(config.precision, "as asked")
    return faster_precision(device)


def faster_precision(device: str) -> Precision:
    """bf16 where convolutions are clearly faster in it, else fp32."""
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        known = f"compute capability {major}.{minor}"
        return Precision("bf16" if (major, minor) >= (8, 0) else "fp32", known)
    found = torch.cpu.get_capabilities()
    if not (found.get("amx_bf16") or found.get("avx512_bf16")):
        return Precision("fp32", "the processor has no bf16 instructions")
    machine = f"{processor_name()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    remembered = _remembered()
    ratio = remembered.get(machine)
    if ratio is None:
        ratio = fp32_over_bf16()
        _remember({**remembered, machine: ratio})
    faster = "faster" if ratio >= 1 else "slower"
    why = f"bf16 is {max(ratio, 1 / ratio):.1f} times {faster} here"
    return Precision("bf16" if ratio >= _WORTH_IT else "fp32", why)


def fp32_over_bf16() -> float:
    """Times of a small generator's convolution, forwards and backwards: float32's by bf16's."""
    shortest = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    started = time.perf_counter()
    for turn in range(_TURNS):
        if turn >= 3 and time.perf_counter() - started > _MOST_SECONDS:
            break
        for dtype in shortest:
            shortest[dtype] = min(shortest[dtype], convolution_seconds(dtype))
    return shortest[torch.float32] / shortest[torch.bfloat16]


def convolution_seconds(dtype: torch.dtype) -> float:
    """Seconds of one forward and backward pass of a small generator's convolution."""
    random = torch.Generator().manual_seed(0)
    image = torch.randn((8, 32, 64, 64), generator=random).to(dtype)
    weight = torch.randn((32, 32, 3, 3), generator=random).to(dtype).requires_grad_()
    image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
    started = time.perf_counter()
    output = torch.nn.functional.conv2d(image, weight, padding=1)
    output.sum().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


def memory_file() -> Path:
    """Where ratios are remembered, by machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sincut" / "precision.json"


def _remembered() -> dict[str, float]:
    """What was measured before; nothing where the file is missing or not ours."""
    try:
        found = json.loads(memory_file().read_text(encoding="utf-8"))
        return {str(machine): float(ratio) for machine, ratio in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _remember(ratios: dict[str, float]) -> None:
    with contextlib.suppress(OSError, SincutError):  # a home that cannot be written is no trouble
        memory_file().parent.mkdir(parents=True, exist_ok=True)
        write_text(memory_file(), json.dumps(ratios, indent=1) + "\n")
