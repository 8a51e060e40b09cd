"""Which device and which precision to compute in, and the contexts that make it so."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sincut.errors import SincutError, first_line
from sincut.kernels.launch import triton
from sincut.kernels.philox import random_words
from sincut.version import __version__


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
    if triton is None:
        raise SincutError(
            "--device cuda needs Triton, which is not installed; try pip install triton, or "
            "compute on the CPU"
        )
    first = torch.zeros((), dtype=torch.int64, device="cuda")  # what CUDA says of itself is said
    try:
        random_words(0, first, 1, 0, 4, 0, 0)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        line = first_line(error)
        if "CUDA" in line:
            raise
        raise SincutError(
            "--device cuda needs a C compiler and Python's headers, with which Triton builds what "
            f"launches its kernels, got: {line}; try apt-get install gcc python3-dev, or "
            "compute on the CPU"
        ) from error


def environment(device: str) -> dict[str, Any]:
    """What something is computed with: the processor's name, threads and versions, by name."""
    found = {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sincut": __version__,
    }
    if triton is not None:
        found["triton"] = triton.__version__
    return found


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


def processor_name() -> str:
    """The processor's name and the matrix extensions that matter here."""
    features = torch.cpu.get_capabilities()
    found = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if features.get(name)]
    info = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if info.exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, name).partition(":")[2].strip() or name
    return f"{name} ({', '.join(found)})"
