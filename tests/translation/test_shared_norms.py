"""Networks that normalise over the whole image, whose passes many processes share."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sincut.errors import Interrupted, SincutError
from sincut.translation import shared_norms
from sincut.translation.plan import Plan
from sincut.translation.shared_norms import SharedNorms
from sincut.translation.translate import Progress, translate
from sincut.translation.whole_image_norms import Moments
from tests.translation.test_shards import REPOSITORY, files, level, noise, one_thread, small_shards

pytest.importorskip("zarr", reason="the package zarr is not installed")

__all__ = ["one_thread", "small_shards"]  # fixtures
PASSES = 12  # of a network of three blocks: 3 of the encoder, 1 that keeps, 6, 2 of the decoder


def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for other processes."""
    monkeypatch.setattr(shared_norms, "_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(shared_norms, "_SLOWER", 0.0)
    monkeypatch.setattr(shared_norms, "_LOOK_SECONDS", 0.001)


@pytest.mark.parametrize(("height", "width"), [(150, 170), (65, 129), (197, 3), (64, 128)])
def test_parts_equal_the_whole(
    small_shards: None, normalising_model: Path, tmp_path: Path, height: int, width: int
) -> None:
    source = noise(tmp_path / "in.png", height, width)
    translate(normalising_model, source, tmp_path / "whole.png", tile="whole")
    seen: list[Progress] = []
    plans: list[Plan] = []
    (done,) = translate(
        normalising_model,
        source,
        tmp_path / "out.ome.zarr",
        tile="32",
        verify=4,
        on_plan=plans.append,
        on_tile=seen.append,
    )
    with Image.open(tmp_path / "whole.png") as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(level(tmp_path / "out.ome.zarr") - expected).max() <= 1
    assert done.difference is not None
    assert done.difference < 2e-3
    parts = -(-height // 64) * -(-width // 64)
    total = (PASSES + 1) * parts
    assert [(each.done, each.total) for each in seen] == [(n + 1, total) for n in range(total)]
    assert plans[0].passes == PASSES + 1
    assert plans[0].scratch_bytes == 4 * 4 * -(-height // 4) * max(-(-width // 4), 2) * 16
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "out.ome.zarr" / "passes").exists()


def test_wrong_sums_are_found(
    small_shards: None, normalising_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(tmp_path / "in.png", 150, 170)
    real = Moments.of
    monkeypatch.setattr(Moments, "of", lambda parts, device: real(parts[:1], device))
    (done,) = translate(normalising_model, source, tmp_path / "out.ome.zarr", verify=4)
    assert done.difference is not None
    assert done.difference > 0.5


def test_sums_of_parts_are_the_same_in_any_order() -> None:
    torch.manual_seed(0)
    parts = []
    for _ in range(40):
        moments = Moments()
        moments.add(torch.randn(1, 3, 5, 7) * 10 ** torch.randint(-6, 6, (1,)).item())
        parts.append(moments.sums)
    once = Moments.of(parts, torch.device("cpu"))
    random.Random(1).shuffle(parts)
    again = Moments.of(parts, torch.device("cpu"))
    assert np.array_equal(once.sums, again.sums)
    assert once.sums[-1] == 40 * 5 * 7
    added = sum(parts[1:], parts[0].copy())
    assert np.allclose(added, once.sums, rtol=1e-9)


def test_one_process_does_what_others_leave(
    small_shards: None,
    normalising_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three, which run one after the other, the first makes all parts of all passes."""
    source = noise(tmp_path / "in.png", 150, 170)
    translate(normalising_model, source, tmp_path / "one.ome.zarr")
    hasty(monkeypatch)
    made: list[tuple[int, int]] = []
    real = SharedNorms.make

    def noted(self: SharedNorms, number: int, part: int) -> None:
        made.append((number, part))
        real(self, number, part)

    monkeypatch.setattr(SharedNorms, "make", noted)
    target, told = tmp_path / "shared.ome.zarr", []
    for index in (2, 0, 1):
        translate(normalising_model, source, target, shard=f"{index}/3", on_share=told.append)
        if index == 2:
            assert sorted(made) == [(n, part) for n in range(PASSES) for part in range(9)]
    assert len(made) == 9 * PASSES
    assert files(target) == files(tmp_path / "one.ome.zarr")
    assert told[0].notices[0] == (
        "72 parts of its passes were made in place of processes that did not go on"
    )
    assert not told[1].notices


@pytest.mark.parametrize("at", [1, 30, 95, 112])
def test_an_interrupted_pass_goes_on(
    small_shards: None,
    normalising_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    source, target = noise(tmp_path / "in.png", 150, 170), tmp_path / "out.ome.zarr"
    translate(normalising_model, source, tmp_path / "one.ome.zarr")

    def stop(progress: Progress) -> None:
        if progress.done == at:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        translate(normalising_model, source, target, on_tile=stop)
    assert str(caught.value) == (
        f"{target} is {max(at - 9 * PASSES, 0)} of 9 shards done; the same command with --resume "
        "goes on"
    )
    # Features that the pass reads and writes, and no older ones.
    assert len(list((tmp_path / ".out.ome.zarr.part" / "passes").glob("*.[xr]*"))) <= 4
    seen: list[Progress] = []
    translate(normalising_model, source, target, resume=True, on_tile=seen.append)
    assert (seen[0].done, seen[0].total) == (at + 1, 9 * (PASSES + 1))
    assert files(target) == files(tmp_path / "one.ome.zarr")


def test_what_an_earlier_pass_left_and_is_gone(
    small_shards: None,
    normalising_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = noise(tmp_path / "in.png", 150, 170), tmp_path / "out.ome.zarr"
    monkeypatch.setattr(shared_norms, "_VISIBLE_SECONDS", 0.0)
    passes = tmp_path / ".out.ome.zarr.part" / "passes"

    def remove(progress: Progress) -> None:
        if progress.done == 9 * 4:
            (passes / "03.x" / "4").unlink()

    with pytest.raises(SincutError) as caught:
        translate(normalising_model, source, target, on_tile=remove)
    assert str(caught.value) == (
        f"cannot read what an earlier pass left in {passes / '03.x' / '4'} (No such file or "
        "directory); check the place, or try --force to start anew"
    )


def test_a_full_disk_between_passes(
    small_shards: None,
    normalising_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = noise(tmp_path / "in.png", 150, 170), tmp_path / "out.ome.zarr"

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwritev", full)
    with pytest.raises(SincutError) as caught:
        translate(normalising_model, source, target)
    folder = tmp_path / ".out.ome.zarr.part" / "passes" / "03.x"
    assert str(caught.value) == (
        f"cannot keep what is between two passes in {folder} (No space left on device); free some "
        "space there, or try another place for the output"
    )
    assert not list(folder.iterdir())
    monkeypatch.undo()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """520 × 6,200 pixels: four shards of true size."""
    return noise(tmp_path_factory.mktemp("large") / "large.png", 6200, 520)


def test_workers_share_passes(
    large: Path, normalising_model: Path, tmp_path: Path, one_thread: None
) -> None:
    translate(normalising_model, large, tmp_path / "one.ome.zarr")
    seen: list[Progress] = []
    translate(normalising_model, large, tmp_path / "two.ome.zarr", workers=2, on_tile=seen.append)
    assert (seen[-1].done, seen[-1].total) == (4 * (PASSES + 1),) * 2
    assert len(seen) == 4 * (PASSES + 1)
    assert files(tmp_path / "one.ome.zarr") == files(tmp_path / "two.ome.zarr")


SMALL = (
    "from sincut.images.writing import ome_zarr; ome_zarr.SHARD, ome_zarr.CHUNK = 64, 16; "
    "from sincut.cli import main; main()"
)


@pytest.mark.long
def test_two_shares_one_of_which_is_killed_at_random_moments(
    small_shards: None, normalising_model: Path, tmp_path: Path, one_thread: None
) -> None:
    """Five kills, after a random number of parts and shards more than at the last; begun again
    each time. The other waits meanwhile, and goes on."""
    source, target = noise(tmp_path / "in.png", 150, 170), tmp_path / "two.ome.zarr"
    translate(normalising_model, source, tmp_path / "one.ome.zarr")
    part = tmp_path / ".two.ome.zarr.part"

    def begun(index: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SMALL, "translate", str(normalising_model), str(source)]
        return subprocess.Popen(
            [*command, "-o", str(target), "--shard", f"{index}/2"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def done() -> int:
        sums = len(list(part.glob("passes/??.npy"))) * 9
        last = f"passes/{sums // 9:02d}.sums/[!.]*"
        return sums + len(list(part.glob(last))) + len(list(part.glob("0/c/0/*/[!.]")))

    chance = random.Random(5)
    moments = sorted(chance.sample(range(1, 9 * (PASSES + 1) - 6), 5))
    running, kills, limit = [begun(0), begun(1)], 0, time.monotonic() + 300
    for moment in moments:
        index = chance.randrange(2)
        while done() < moment and running[index].poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.001)
        if running[index].poll() is None:
            running[index].send_signal(signal.SIGKILL)
            kills += 1
        running[index].communicate()
        running[index] = begun(index)
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert kills >= 4
    assert files(target) == files(tmp_path / "one.ome.zarr")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are told by Linux")
def test_memory_stays_below_the_plan(normalising_model: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "in.png", 2100, 2100)
    code = (
        "import sincut.cli\n"
        "try: sincut.cli.main()\n"
        "finally: print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    )
    command = ["translate", str(normalising_model), str(source), "--json", "-o"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command, str(tmp_path / "out.ome.zarr")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    plan, *_, peak = (line for line in done.stdout.splitlines() if line)
    assert int(peak.split()[1]) * 1024 < json.loads(plan)["host_bytes"]
