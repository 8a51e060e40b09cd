"""The benchmarks run, compare before they time, and write what they say they write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import patch_nce as bench
from benchmarks.__main__ import main, parts
from benchmarks.crops import by_pillow, compare
from benchmarks.record import write_result
from sincut.config.presets import train_config
from sincut.data.pair import Pair
from sincut.demo import render_content

SMALL = (bench.Shape(16), bench.Shape(32, groups=2), bench.Shape(64))


def test_patch_nce_compares_every_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "CPU_SHAPES", SMALL)
    rows = bench.measure("cpu", torch.float32, compiled=False)
    assert [row["method"] for row in rows] == ["ours", "published", "compact", "chunked"] * 3
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


def test_patch_nce_goes_on_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def published(query: torch.Tensor, key: torch.Tensor, groups: int) -> torch.Tensor:
        if len(query) > 32:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 16 GiB")
        return bench.compact(query, key, groups)

    monkeypatch.setattr(bench, "CPU_SHAPES", SMALL)
    monkeypatch.setattr(bench, "published", published)
    shapes: list[list[dict[str, Any]]] = []
    rows = bench.measure("cpu", torch.float32, compiled=False, on_shape=shapes.append)
    assert [row for of_shape in shapes for row in of_shape] == rows
    errors = [row["error"] for row in rows if "error" in row]
    assert errors == ["CUDA out of memory. Tried to allocate 16 GiB"] * 2
    assert sum("ours_is_faster" in row for row in rows) == len(rows) - 2


def test_crops_are_compared_with_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    image, config = render_content(256, 192), train_config("paper", device="cpu")
    pair = Pair(image, image)
    feed = pair.feed(config, warm=False)
    compare(pair, feed)
    assert by_pillow(image, 0, config, 0).shape == (16, 3, 128, 128)

    def shifted(image: np.ndarray, *arguments: Any) -> Any:
        return by_pillow(np.roll(image, 3, axis=1), *arguments)

    monkeypatch.setattr("benchmarks.crops.by_pillow", shifted)
    with pytest.raises(RuntimeError, match="crops differ by"):
        compare(pair, feed)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_calls_commands_that_exist(device: str, tmp_path: Path) -> None:
    """With options that they know and values that they take."""
    (tmp_path / "patch-nce.json").write_text("{}")
    for file, (name, *arguments) in parts(device, tmp_path).values():
        flag = "--json" if file.endswith(".json") else "--output"
        main.commands[name].make_context(name, [*arguments, flag, str(tmp_path / file)])


def test_all_goes_on_after_a_failure_and_leaves_out_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def run(command: list[str], cwd: Path) -> Any:
        assert command[:3] == [sys.executable, "-m", "benchmarks"]
        name, target = command[3], Path(command[-1])
        calls.append(name)
        target.write_text(name)
        return SimpleNamespace(returncode=int(name == "crops"))

    monkeypatch.setattr("benchmarks.__main__.subprocess.run", run)
    command = ["all", "--output", str(tmp_path), "--part", "aot", "--part", "crops"]
    first = CliRunner().invoke(main, [*command, "--part", "patch-nce"])
    assert calls == ["patch-nce", "crops", "aot"]
    assert (first.exit_code, first.stderr) == (1, "Error: failed: crops\n")
    assert (tmp_path / "aot.json").read_text() == "aot"
    assert not (tmp_path / "crops.json").exists()
    CliRunner().invoke(main, command)
    assert calls[3:] == ["crops"]


def test_all_refuses_parts_that_it_does_not_have(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["all", "--output", str(tmp_path), "--part", "nothing"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: --part must be one of profile, draft-to-quality, patch-nce, plot, crops, changes, "
        "translate, train-step, folder-step, aot, got nothing; try --part crops"
    )


def test_what_the_compiler_cannot_do_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(query: torch.Tensor, key: torch.Tensor, groups: int) -> torch.Tensor:
        raise torch._dynamo.exc.BackendCompilerFailed(None, RuntimeError("no\nmore"), None)

    monkeypatch.setattr(bench, "CPU_SHAPES", SMALL[:1])
    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    rows = {row["method"]: row for row in bench.measure("cpu", torch.float32)}
    assert "no more" in rows["compile"]["error"]
    assert "median_ms" not in rows["compile"]
    assert rows["compact"]["ours_is_faster"] > 0


def test_without_git_the_figures_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    write_result(tmp_path / "found.json", "cpu", [])
    assert json.loads((tmp_path / "found.json").read_text())["commit"] is None


def test_the_picture_of_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.seams._WIDTH", 256)
    monkeypatch.setattr("benchmarks.seams._HEIGHT", 192)
    monkeypatch.setattr("benchmarks.seams._TILE", 64)
    result = CliRunner().invoke(main, ["seams", str(tmp_path / "seams.jpg")])
    assert result.output in (
        f"Tiles differ from one piece by at most {n} of 255.\n" for n in (0, 1)
    )
    with Image.open(tmp_path / "seams.jpg") as picture:
        assert picture.size == (3 * 256 + 16, 192)
