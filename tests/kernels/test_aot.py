"""Every shipped kernel configuration, compiled for the GPUs it is meant for, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]


@pytest.fixture(
    scope="module",
    params=[
        (["--for", "90"], ""),
        pytest.param(([], ""), marks=pytest.mark.long),
        pytest.param((["--for", "90"], "3.6.0"), marks=pytest.mark.long),
    ],
    ids=["Hopper", "all", "Hopper, oldest Triton"],
)
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Made by the documented command, in a process where Triton does not interpret."""
    arguments, triton = request.param
    folder = tmp_path_factory.mktemp("aot")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(folder)
    if triton:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--target", str(folder / "packages"), f"triton=={triton}"]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"pip cannot install Triton {triton} here")
        environment["PYTHONPATH"] = str(folder / "packages")
        command = [sys.executable, "-c", "import triton; print(triton.__version__)"]
        assert subprocess.check_output(command, env=environment, text=True).strip() == triton
    path = folder / "aot.json"
    command = [sys.executable, "-m", "benchmarks", "aot", *arguments, "--json", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def test_every_configuration_is_there(table: list[dict[str, Any]]) -> None:
    from sincut.kernels.patch_nce import CONFIGURATIONS

    per_target = {"sm_90a": 90, "sm_80": 80, "sm_89": 80, "sm_100a": 80, "sm_120a": 80}
    made = {row["target"] for row in table}
    assert made in ({"sm_90a"}, set(per_target))
    for target in made:
        capability = per_target[target]
        names = [row["kernel"] for row in table if row["target"] == target]
        for chosen in CONFIGURATIONS[capability]:
            for mode in ("static", "online", "key"):
                name = f"attend {chosen.rows}×{chosen.columns} parts={chosen.parts} {mode}"
                assert {name, f"{name} even"} <= set(names)
        assert {"prepare", "finish_query", "finish_key", "gather crops"} <= set(names)
        assert {"random words", "normal numbers"} <= set(names)
        assert {"blur bf16", "blur transposed fp32", "mask_and_sum bf16 bare"} <= set(names)


def test_nothing_spills(table: list[dict[str, Any]]) -> None:
    assert {row["kernel"]: row["spill_bytes"] for row in table if row["spill_bytes"]} == {}


def test_shared_memory_fits(table: list[dict[str, Any]]) -> None:
    for row in table:
        assert row["shared_bytes"] <= row["shared_limit"], row


def test_matrices_are_multiplied_by_matrix_units(table: list[dict[str, Any]]) -> None:
    for row in table:
        assert (row["tensor_core_instructions"] > 0) == row["multiplies_matrices"], row


def test_matrix_units_are_not_waited_for_after_every_product(table: list[dict[str, Any]]) -> None:
    counted = [row for row in table if row.get("products")]
    assert len(counted) >= 12  # all of Hopper's but the small ones, which use the older units
    for row in counted:
        assert row["waits"] <= row["products"] / 3, row
