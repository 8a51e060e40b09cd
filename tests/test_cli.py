"""The command line: its words, exit codes, output for people and for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import sincut
from sincut.cli import main
from sincut.cli.console import duration, size
from tests.conftest import TINY, size_of

SETTINGS = [
    "--preset=draft", "--device=cpu", "--precision=fp32", "--steps=4",
    *[f"--set={name}={value}" for name, value in TINY.items()
      if name not in ("preset", "device", "precision", "steps")],
]  # fmt: skip


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def refused(*arguments: Any) -> str:
    """Standard error of a call that must exit with 2, say one line there and nothing else."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").rstrip()


def test_help_answers_within_a_third_of_a_second() -> None:
    """Beyond a bare interpreter's start; the best of several, since machines are shared."""

    def best(*arguments: str) -> float:
        times = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert best("-m", "sincut", "--help") - best("-c", "pass") < 0.3


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"sincut, version {sincut.__version__}\n")


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_and_option_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(main.commands[command].help or "") > 20
    for parameter in main.commands[command].params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", None), parameter.name


def test_train_translate_and_info(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run("train", *pair, "-o", folder, *SETTINGS)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == (
        f"sincut {sincut.__version__}: preset draft (as asked), method sincut, "
        "4 steps on cpu in fp32, seed 0"
    )
    assert re.fullmatch(
        r"Estimate: \d+ s at [\d.e-]+ s a step, [\d.]+ [MG]B of memory at the peak\.", lines[1]
    )
    assert lines[2:] == [
        f"Trained 4 steps. To translate: sincut translate {folder} IMAGE -o OUTPUT.png"
    ]
    assert result.stderr == ""  # no terminal, no progress

    target = tmp_path / "out.png"
    result = run("translate", folder, pair[0], "-o", target, "--tile", 64, "--verify", 2)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        rf"{re.escape(str(target))}: 160×128 in \d+ s, 6 tiles\n"
        r"Tiles with twice the halo differ by at most [\d.e-]+ of 255\.\n",
        result.stdout,
    )
    assert size_of(target) == (160, 128)

    for given in (folder, folder / "model.safetensors"):
        result = run("info", given)
        assert "preset: draft" in result.stdout
        assert "layers: 0,2,4" in result.stdout
        facts = json.loads(run("info", given, "--json").stdout)
        assert (facts["step"], facts["halo"], facts["config"]["channels"]) == (4, 30, 4)

    assert run("train", *pair, "-o", folder, "--resume", "--steps", 6, "--quiet").output == ""
    assert json.loads(run("info", folder, "--json").stdout)["step"] == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_default_preset_is_said_in_the_first_line(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    small = [each for each in SETTINGS if not each.startswith(("--preset", "--device"))]
    result = run("train", *pair, "-o", tmp_path / "run", *small)
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"sincut {sincut.__version__}: preset draft (the default on cpu), ")


def test_json_is_one_object_per_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("train", *pair, "-o", tmp_path / "run", *SETTINGS, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["event"] for r in records if r["event"] != "preview"] == [
        "start", "estimate", *["step"] * 6, "done",
    ]  # fmt: skip
    assert records[0]["config"]["steps"] == 4
    result = run("translate", tmp_path / "run", *pair, "-o", tmp_path / "out", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(r["output"]).name for r in records] == ["content.png", "style.png"]


def test_quiet_says_nothing(pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path) -> None:
    assert run("train", *pair, "-o", tmp_path / "run", *SETTINGS, "--quiet").output == ""
    assert run("translate", tiny_run, pair[0], "-o", tmp_path / "o.png", "-q").output == ""


def test_errors_are_one_line_and_exit_with_2(
    pair: tuple[Path, Path], tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    missing = tmp_path / "none.png"
    assert refused("train", missing, pair[1], "-o", out) == (
        f"{missing} does not exist; give an image file"
    )
    assert refused("train", *pair, "-o", out, "--preset", "best") == (
        "preset must be one of paper, published, draft, got best; try --preset draft"
    )
    assert refused("train", *pair, "-o", out, "--set", "speed=9").startswith(
        "there is no field speed in the configuration; allowed: batch, "
    )
    assert refused("train", *pair, "-o", out, "--steps", "0") == (
        "steps must be at least 1, got 0; try --steps 100000"
    )
    assert refused("train", *pair, "-o", tiny_run) == (
        f"{tiny_run} holds a run already; try --resume to continue it, --force to start anew, "
        "or another -o"
    )
    assert refused("translate", tiny_run, missing, "-o", tmp_path / "out.png") == (
        f"{missing} does not exist; give an image file"
    )
    assert refused("translate", missing, pair[0], "-o", tmp_path / "out.png") == (
        f"{missing} does not exist or is not a file; give a model.safetensors that sincut wrote; "
        "for a latest_net_G.pth try sincut import"
    )
    assert refused("translate", tiny_run, pair[0], "-o", tmp_path / "out.png", "--tile", "3") == (
        "tile must be a number of pixels from 16, auto or whole, got 3; try --tile 512"
    )
    if not torch.cuda.is_available():
        for command in (("train", *pair), ("translate", tiny_run, pair[0])):
            assert refused(*command, "-o", tmp_path / "o.png", "--device", "cuda") == (
                "--device cuda needs an NVIDIA GPU and a CUDA build of PyTorch, and none was "
                "found; try --device cpu"
            )
    assert not list(tmp_path.iterdir())


def test_usage_errors_exit_with_2() -> None:
    for arguments in (["train"], ["translate"], ["nothing"], ["train", "a", "b"]):
        assert run(*arguments).exit_code == 2


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with the pair and the network made small; the real one is `make demo`."""
    from sincut.config import PRESETS
    from sincut.example import render_content, render_style

    small = {name: value for name, value in TINY.items() if name != "preset"}
    monkeypatch.setitem(PRESETS, "draft", ("small", small))
    monkeypatch.setattr("sincut.demo.render_content", lambda: render_content(96, 80))
    monkeypatch.setattr("sincut.demo.render_style", lambda: render_style(80, 96))
    result = run("demo", "-o", tmp_path / "demo", "--steps", 2)
    assert result.exit_code == 0, result.output
    for name in ("content", "style", "result"):
        assert (tmp_path / "demo" / f"{name}.png").exists()
        assert f"  {name:<8} {tmp_path / 'demo' / name}.png" in result.stdout
    assert size_of(tmp_path / "demo" / "result.png") == (96, 80)
    assert refused("demo", "-o", tmp_path / "demo") == (
        f"{tmp_path / 'demo'} holds a demo already; try --force or another -o"
    )
    assert run("demo", "-o", tmp_path / "demo", "--steps", 1, "--force", "-q").exit_code == 0


def test_durations_and_sizes_for_people() -> None:
    assert [duration(s) for s in (0.4, 59, 95, 3700, 90000)] == [
        "0 s", "59 s", "1 min 35 s", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
    assert [size(b) for b in (674e6, 2.34e9)] == ["674 MB", "2.3 GB"]


def test_progress_on_a_terminal(tiny_run: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """On a pseudo-terminal a bar with counts is drawn on standard error."""
    import os
    import pty

    master, slave = pty.openpty()
    command = [
        sys.executable, "-m", "sincut", "translate", str(tiny_run), str(pair[0]),
        "-o", str(tmp_path / "o.png"), "--tile", "32",
    ]  # fmt: skip
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run(
        command, stderr=slave, stdout=subprocess.DEVNULL, env=environment, check=True, timeout=60
    )
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "content.png (1 of 1)" in shown
    assert "/20" in shown
