"""The benchmark of a step on two folders: a gate that closes, complete rows, published parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import folder_step, literal_folders
from benchmarks.__main__ import main
from benchmarks.folder_step import Job, Literal, Ours, check, check_cycle_gan, measured
from benchmarks.literal_folders import POOL, LiteralCut, LiteralCycleGan, Pool
from sincut.training import losses

METHODS = [
    "cut, literal", "cut, ours, fp32", "cut, ours, bf16",
    "fastcut, literal", "fastcut, ours, fp32", "fastcut, ours, bf16",
    "cyclegan, literal",
]  # fmt: skip


def small(method: str, precision: str = "") -> Job:
    return Job(method, precision, "cpu", 32, 4)


def test_rows_are_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory = {"start_bytes": 1, "peak_bytes": 2}
    monkeypatch.setattr(folder_step, "_in_a_process", lambda job: memory)
    target = tmp_path / "folder-step.json"
    command = ["folder-step", "--size", "32", "--channels", "4", "--rounds", "2"]
    result = CliRunner().invoke(main, [*command, "--json", str(target)])
    assert result.exit_code == 0, result.output
    rows = json.loads(target.read_text())["rows"]
    assert [row["method"] for row in rows] == METHODS
    for row in rows:
        assert 0 < row["p20_ms"] <= row["ms_per_step"] <= row["p80_ms"]
        assert (row["timed_steps"], row["peak_bytes"]) == (2, 2)
        assert row["of_literal_cut"] > 0
        assert row["faster_than_literal"] > 0
    assert rows[0]["of_literal_cut"] == rows[6]["faster_than_literal"] == 1


def test_memory_is_that_of_a_process() -> None:
    found = folder_step._in_a_process(small("cut"))
    assert 1e8 < found["start_bytes"] < found["peak_bytes"] < 1e9
    assert set(measured(small("fastcut", "bf16"))) == set(found)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["adversarial_generator", "adversarial_discriminator"])
@pytest.mark.parametrize("method", ["cut", "fastcut"])
def test_a_wrong_step_is_refused(monkeypatch: pytest.MonkeyPatch, method: str, name: str) -> None:
    jobs = [small(method), small(method, "fp32")]
    check(jobs)
    right = getattr(losses, name)
    monkeypatch.setattr(losses, name, lambda *args: 1.001 * right(*args))
    with pytest.raises(RuntimeError, match=rf"{method}, ours, fp32: [DG]\w* is off by"):
        check(jobs)


def test_a_wrong_gradient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = losses.adversarial_generator

    def wrong(*arguments: Any) -> torch.Tensor:
        value = right(*arguments)
        return value.detach() + 3 * (value - value.detach())

    monkeypatch.setattr(losses, "adversarial_generator", wrong)
    with pytest.raises(RuntimeError, match="the gradient of the generator is off by"):
        check([small("cut"), small("cut", "fp32")])


def test_a_wrong_cycle_gan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_cycle_gan()
    right = literal_folders.towards
    monkeypatch.setattr(
        literal_folders, "towards", lambda logits, target: right(logits.detach() * 2, target)
    )
    with pytest.raises(RuntimeError, match="CycleGAN: a slope is"):
        check_cycle_gan()


def test_networks_have_the_published_sizes() -> None:
    """32 places of G, and weights as counted there, biases without influence included."""
    config = Job("cut", "", "cpu", 32, 64).config
    cut = LiteralCut(config)
    counts = [sum(p.numel() for p in network.parameters()) for network in cut.networks().values()]
    assert counts == [11_378_179, 2_764_737, 560_384]
    assert len(cut.generator.model) == 32


def test_cycle_gan_learns() -> None:
    """G's loss is mostly of pixels, so it falls from the very first steps."""
    job = small("cyclegan")
    model, images = LiteralCycleGan(job.config), job.images()
    found = [model.step(*images)["G"].item() for _ in range(12)]
    assert found[-1] < found[0]
    assert [len(pool.kept) for pool in model.pools] == [12, 12]


def test_pool_gives_earlier_fakes() -> None:
    pool = Pool()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shown = [pool.exchanged(torch.full((1, 3, 1, 1), float(n)))[0, 0, 0, 0] for n in range(200)]
    assert [int(n) for n in shown[:POOL]] == list(range(POOL))
    later = [(n, int(each)) for n, each in enumerate(shown) if n >= POOL]
    older = [n - each for n, each in later if each != n]
    assert 40 < len(older) < 110
    assert len(pool.kept) == POOL


@pytest.mark.parametrize("kind", [Literal, Ours])
def test_steps_are_told_apart(kind: Any) -> None:
    """Those of FastCUT that are mirrored cost more; both methods mirror the same ones."""
    method = kind(small("fastcut", "fp32" if kind is Ours else ""))
    first, later = method.run(1, 2), method.run(0, 2)
    assert [mirrored for mirrored, _ in first + later] == [False, True, True, False]
