"""Which device and which precision to compute in, and the contexts that make it so."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sincut.config.training import TrainConfig
from sincut.errors import SincutError
from sincut.kernels.philox import random_words
from sincut.version import __version__


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with ``auto`` replaced by what this machine has."""
    device = chosen_device(config.device)
    if device == "cpu":
        limit_threads()
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if faster_in_bf16(device) else "fp32"
    return config.replaced(device=device, precision=precision)


def chosen_device(name: str) -> str:
    """``auto`` as ``cuda`` or ``cpu``; ``cuda`` where there is none raises."""
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise SincutError(
            "--device cuda needs an NVIDIA GPU and a CUDA build of PyTorch, and none was found; "
            "try --device cpu"
        )
    chosen = ("cuda" if present else "cpu") if name == "auto" else name
    if chosen == "cuda":
        check_launches()
    return chosen


@functools.cache
def check_launches() -> None:
    """Launch a kernel. Triton compiles what launches it on the first time it does, with the
    machine's C compiler; where that is missing its own error is a page long."""
    try:
        random_words(0, torch.zeros((), dtype=torch.int64, device="cuda"), 1, 0, 4, 0, 0)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        line = str(error).strip().partition("\n")[0]
        raise SincutError(
            "--device cuda needs a C compiler and Python's headers, with which Triton builds what "
            f"launches its kernels, got: {line}; try apt-get install gcc python3-dev, or "
            "--device cpu"
        ) from error


def environment(device: str) -> dict[str, Any]:
    """What something is computed with: the processor's name, threads and versions, by name."""
    found = {
        "processor": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sincut": __version__,
    }
    with contextlib.suppress(ModuleNotFoundError):  # it exists for Linux only
        import triton

        found["triton"] = triton.__version__
    return found


def faster_in_bf16(device: str) -> bool:
    """Whether convolutions are clearly faster in bf16 here; only then is it chosen by itself.

    On CUDA the generation tells (8.0 and later have the units). Among CPUs the instructions alone
    do not: where they are present, both are timed, which takes some hundredths of a second.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    found = torch.cpu.get_capabilities()
    if not (found.get("amx_bf16") or found.get("avx512_bf16")):
        return False
    return convolution_seconds(torch.bfloat16) < 0.8 * convolution_seconds(torch.float32)


def convolution_seconds(dtype: torch.dtype) -> float:
    """The shortest of some forward and backward passes of a small generator's convolution."""
    random = torch.Generator().manual_seed(0)
    image = torch.randn((8, 32, 64, 64), generator=random).to(dtype)
    weight = torch.randn((32, 32, 3, 3), generator=random).to(dtype).requires_grad_()
    image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        output = torch.nn.functional.conv2d(image, weight, padding=1)
        output.sum().backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - started)
    return min(times)


def limit_threads(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> None:
    """Compute with no more threads than a container's share of the processor allows.

    PyTorch starts one for every core it sees; where a quota grants fewer, they wait for each other.
    ``OMP_NUM_THREADS`` is the user's word and stays. ``quota`` is the file of Linux's control
    group: microseconds granted in each period, or ``max``, and the period.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    try:
        granted, _, period = quota.read_text().partition(" ")
    except OSError:  # not Linux, or not in a container
        return
    if granted.isdigit() and period.strip().isdigit():
        cores = max(1, round(int(granted) / int(period)))
        torch.set_num_threads(min(torch.get_num_threads(), cores))


def mixed_precision(device: str, precision: str) -> torch.autocast:
    """Convolutions and linear layers in bf16 where ``precision`` is ``bf16``."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def convolutions(precision: str, *, search: bool = False) -> Iterator[None]:
    """How cuDNN computes convolutions; ``search`` has it time its algorithms for each new shape.

    By itself cuDNN rounds the inputs of float32 convolutions to TF32, which is forbidden here. Only
    where bf16 is allowed anyway (what is left in float32 is R1), TF32 is finer and welcome.
    """
    of_cudnn = torch.backends.cudnn
    saved = of_cudnn.conv.fp32_precision, of_cudnn.benchmark  # type: ignore[attr-defined]
    of_cudnn.conv.fp32_precision = "tf32" if precision in ("bf16", "tf32") else "ieee"  # type: ignore[attr-defined]
    of_cudnn.benchmark = search
    try:
        yield
    finally:
        of_cudnn.conv.fp32_precision, of_cudnn.benchmark = saved  # type: ignore[attr-defined]


def _processor() -> str:
    """The processor's name and the matrix extensions that matter here."""
    features = torch.cpu.get_capabilities()
    found = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if features.get(name)]
    info = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if info.exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, name).partition(":")[2].strip() or name
    return f"{name} ({', '.join(found)})"
