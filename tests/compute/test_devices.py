"""Threads and precision fit the machine."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sincut.compute import devices
from sincut.compute.devices import convolutions, limit_threads
from sincut.compute.memory import peak_memory
from sincut.errors import SincutError


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("200000 100000\n", 2),
        ("50000 100000\n", 1),
        ("800000 100000\n", 4),
        ("max 100000\n", 4),
        ("", 4),
        (None, 4),
    ],
)
def test_threads_keep_to_the_share_of_a_container(
    four_threads: None, tmp_path: Path, text: str | None, threads: int
) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    limit_threads(tmp_path / "cpu.max")
    assert torch.get_num_threads() == threads


def test_the_users_number_of_threads_stays(
    four_threads: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    limit_threads(tmp_path / "cpu.max")
    assert torch.get_num_threads() == 4


def test_settings_of_convolutions_are_put_back() -> None:
    backend = torch.backends.cudnn
    before = backend.conv.fp32_precision, backend.benchmark
    with convolutions("bf16", search=True):
        assert (backend.conv.fp32_precision, backend.benchmark) == ("tf32", True)
        for exact in ("fp32", "auto"):  # auto is what translating is asked for by itself
            with convolutions(exact):
                assert (backend.conv.fp32_precision, backend.benchmark) == ("ieee", False)
    assert (backend.conv.fp32_precision, backend.benchmark) == before


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33, which tells of its heap"
)
def test_freed_memory_is_kept_for_the_next_tile() -> None:
    """Large blocks come from the heap and stay in it, instead of going back to the system."""
    code = """
import ctypes, sys, torch
from sincut.compute.memory import keep_freed_memory

class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost").split()]

heap = ctypes.CDLL(None).mallinfo2
heap.restype = Heap
if sys.argv[1] == "keep":
    keep_freed_memory()
blocks = [torch.ones(5_000_000) for _ in range(4)]
mapped = heap().hblkhd
del blocks
print(mapped, heap().fordblks)
"""
    mapped, kept = {}, {}
    for how in ("keep", "as it is"):
        command = [sys.executable, "-c", code, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        mapped[how], kept[how] = map(int, done.stdout.split())
    assert mapped["keep"] < 20_000_000 < 80_000_000 <= mapped["as it is"]
    assert kept["as it is"] < 20_000_000 < 80_000_000 <= kept["keep"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells it")
def test_a_peak_is_that_of_the_process_alone() -> None:
    """Not of the one that started it, as getrusage has it."""
    code = "from sincut.compute.memory import peak_memory; print(peak_memory('cpu'))"
    held = bytearray(900_000_000)
    held[::4096] = b"x" * len(held[::4096])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 50_000_000 < int(done.stdout) < 700_000_000 < peak_memory("cpu")


def launched(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> str:
    """What the first launch of a kernel comes to: nothing, or the message."""

    def words(*_: Any) -> torch.Tensor:
        if error is not None:
            raise error
        return torch.zeros(4, 1, 4)

    zeros = torch.zeros
    monkeypatch.setattr(devices, "random_words", words)
    monkeypatch.setattr(torch, "zeros", lambda *a, device=None, **k: zeros(*a, **k))
    try:
        devices.check_launches.__wrapped__()
    except SincutError as refusal:
        return str(refusal)
    return ""


@pytest.mark.skipif(devices.triton is None, reason="needs Triton")
def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched(monkeypatch, None) == ""
    missing = RuntimeError("Failed to find C compiler. Please specify via CC.\nmore")
    assert launched(monkeypatch, missing) == (
        "--device cuda needs a C compiler and Python's headers, with which Triton builds what "
        "launches its kernels, got: Failed to find C compiler. Please specify via CC.; try apt-get "
        "install gcc python3-dev, or compute on the CPU"
    )
    failed = subprocess.CalledProcessError(1, ["gcc", "launcher.c"])
    assert "got: Command '['gcc', 'launcher.c']' returned" in launched(monkeypatch, failed)


@pytest.mark.skipif(devices.triton is None, reason="needs Triton")
def test_what_cuda_says_of_itself_is_not_called_a_missing_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")
    with pytest.raises(RuntimeError, match="are busy or unavailable"):
        launched(monkeypatch, busy)


def test_without_triton_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "triton", None)
    assert launched(monkeypatch, None) == (
        "--device cuda needs Triton, which is not installed; try pip install triton, or compute on "
        "the CPU"
    )
