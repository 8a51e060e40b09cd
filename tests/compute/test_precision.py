"""The precision that is chosen by itself: by the processor, by a paired measurement, remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sincut.compute import precision as module
from sincut.compute.precision import (
    Precision,
    convolution_seconds,
    faster_precision,
    fp32_over_bf16,
    memory_file,
    precision_of,
    resolved,
)
from sincut.config.presets import train_config


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("found", "ratio", "expected"),
    [
        ({"amx_bf16": True}, 4.2, Precision("bf16", "bf16 is 4.2 times faster here")),
        ({"avx512_bf16": True}, 1.1, Precision("fp32", "bf16 is 1.1 times faster here")),
        ({"avx512_bf16": True}, 0.5, Precision("fp32", "bf16 is 2.0 times slower here")),
        ({"avx2": True}, 9.0, Precision("fp32", "the processor has no bf16 instructions")),
    ],
)
def test_the_processor_and_a_measurement_decide(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], ratio: float, expected: Precision
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(module, "fp32_over_bf16", lambda: ratio)
    assert faster_precision("cpu") == expected
    assert resolved(train_config("paper", device="cpu")).precision == expected.name
    asked = train_config("paper", device="cpu", precision="bf16")
    assert precision_of(asked, "cpu") == Precision("bf16", "as asked")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), Precision("bf16", "compute capability 9.0")),
        ((7, 5), Precision("fp32", "compute capability 7.5")),
    ],
)
def test_on_cuda_the_generation_decides(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert faster_precision("cuda") == expected


def test_it_is_measured_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[float] = []

    def measure() -> float:
        measured.append(3.0)
        return 3.0

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(module, "fp32_over_bf16", measure)
    assert faster_precision("cpu") == faster_precision("cpu")
    assert measured == [3.0]
    (machine,) = json.loads(memory_file().read_text())
    assert torch.__version__ in machine
    memory_file().write_text("[1, 2")  # damaged: measured again, and written anew
    faster_precision("cpu")
    assert measured == [3.0] * 2
    assert json.loads(memory_file().read_text()) == {machine: 3.0}


def test_a_home_that_cannot_be_written_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(module, "fp32_over_bf16", lambda: 2.0)
    assert faster_precision("cpu").name == "bf16"


def test_a_busy_machine_does_not_change_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four measurements are disturbed, in stretches that do not care for whom."""
    calls = 0

    def seconds(dtype: torch.dtype) -> float:
        nonlocal calls
        calls += 1
        disturbed = 7.0 if calls // 3 % 4 else 1.0
        return disturbed * (1.0 if dtype == torch.bfloat16 else 4.0)

    monkeypatch.setattr(module, "convolution_seconds", seconds)
    assert fp32_over_bf16() == 4.0


def test_the_measurement_is_a_real_one() -> None:
    assert convolution_seconds(torch.float32) > 0
    assert 0.01 < fp32_over_bf16() < 100
