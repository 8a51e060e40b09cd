"""Memory of the host and of the GPU: what is free, in use, at its peak, at its end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from sincut.errors import SincutError

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_BLOCK, _KEPT_BYTES = 1 << 25, 1 << 30  # no larger block is allowed


def peak_memory(device: str) -> int:
    """Bytes at the highest point so far: of the device on CUDA, of the process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):
        # What getrusage says on Linux counts the process that started this one.
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    try:
        import resource
    except ModuleNotFoundError:  # Windows does not tell
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes elsewhere


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next tile's tensors.

    By itself glibc gives blocks back to the system that are wanted again at once, and every page of
    them is cleared anew: a tenth of the time of translating with a small network on a CPU. Blocks
    above 32 MB still go that way.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def memory_in_use() -> int:
    """Bytes of the host's memory that this process has now; where that is not told, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory("cpu")
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_memory(
    host: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes of host memory that this process may still take, or ``None`` where that is not told.

    ``host`` is Linux's account of the machine, ``group`` the folder of the container's share.
    """
    try:
        lines = dict(line.split(":", 1) for line in host.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(stat.get("inactive_file", 0))  # the cache of files gives way
        free = min(free, max(limit - used, 0))
    return free


def unless_memory_ends(work: Callable[[], T]) -> T | None:
    """What some work comes to, or nothing where memory ends.

    The error is gone when this returns, and with it the tensors that its traceback kept alive.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    return None


@contextlib.contextmanager
def memory_in_words() -> Iterator[None]:
    """Memory that ends in a training becomes a line that says what to make smaller.

    Raises:
        SincutError: it has ended.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise SincutError(
            "memory ended; try smaller values of batch, crop, patches or channels"
        ) from None


def out_of_memory(error: Exception) -> bool:
    """Whether memory ended, on the device or, as PyTorch tells it, on the host."""
    told = "DefaultCPUAllocator", "not enough memory", "CUDNN_STATUS_ALLOC_FAILED"
    found: BaseException | None = error
    while found is not None:  # a recording that breaks off raises an error of its own over it
        if isinstance(found, (torch.cuda.OutOfMemoryError, MemoryError)):
            return True
        if any(text in str(found) for text in told):
            return True
        found = found.__context__
    return False
