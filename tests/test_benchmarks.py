"""The benchmarks run, compare before they time, and write what they say they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import patch_nce as bench
from benchmarks.crops import by_pillow, compare
from benchmarks.record import write_result
from sincut.config import train_config
from sincut.crops import ResidentImage
from sincut.example import render_content

SMALL = (bench.Shape(16), bench.Shape(32, groups=2), bench.Shape(64))


def test_patch_nce_compares_every_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "CPU_SHAPES", SMALL)
    rows = bench.measure("cpu", torch.float32, compiled=False)
    assert [row["method"] for row in rows] == ["published", "compact", "chunked", "ours"] * 3
    assert all(row["median_ms"] > 0 and row["forward_ms"] > 0 for row in rows)
    assert [row["ours_is_faster"] for row in rows if row["method"] == "ours"] == [1, 1, 1]

    write_result(tmp_path / "patch-nce.json", "cpu", rows)
    written = json.loads((tmp_path / "patch-nce.json").read_text())
    assert {"date", "commit", "device", "torch", "triton", "rows"} <= set(written)

    pytest.importorskip("matplotlib")
    from benchmarks.plot import plot

    plot(tmp_path / "patch-nce.json", tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 500


def test_patch_nce_refuses_to_report_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(query: torch.Tensor, key: torch.Tensor, groups: int) -> torch.Tensor:
        return 1.01 * bench.compact(query, key, groups)

    monkeypatch.setattr(bench, "CPU_SHAPES", SMALL)
    monkeypatch.setattr(bench, "ours", wrong)
    with pytest.raises(RuntimeError, match="loss off by"):
        bench.measure("cpu", torch.float32, compiled=False)


def test_crops_are_compared_with_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = render_content(256, 192)
    resident = ResidentImage(image, train_config("paper"))
    compare(image, resident)
    assert by_pillow(image, 0).shape == (16, 3, 128, 128)

    def shifted(image: np.ndarray, *arguments: Any) -> Any:
        return by_pillow(np.roll(image, 3, axis=1), *arguments)

    monkeypatch.setattr("benchmarks.crops.by_pillow", shifted)
    with pytest.raises(RuntimeError, match="crops differ by"):
        compare(image, resident)
