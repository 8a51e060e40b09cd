"""Trials done by the workers of a dask cluster: two processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from sincut.ablation.ablate import Ablation, ablate
from sincut.ablation.on_cluster import TrialsJob
from sincut.cli import main
from sincut.errors import SincutError
from sincut.files import FolderLock
from sincut.translation import cluster
from tests.ablation.test_ablation import GRID, SMALL, make_quick, options, quick
from tests.conftest import heard

distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")

__all__ = ["quick"]  # a fixture

# What dask leaves open when processes are killed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Quick:
    """Figures and estimates of workers take as little as those of the tests."""

    name = "quick"

    def setup(self, worker: Any) -> None:
        from sincut.evaluation import figures
        from sincut.runs import train
        from sincut.runs.estimate import Estimate

        figures._STROKES = figures._PATCHES = 512
        figures._FLOOR_SPLITS = 1
        train.measure = lambda *_: Estimate(1, 0, 1, 1, 0, 0, 0, 10**9)  # type: ignore[assignment]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    kinds = type("Quick", (Quick, distributed.WorkerPlugin), {})
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as found,
        distributed.Client(found, set_as_default=False) as client,
    ):
        client.register_plugin(kinds())
        yield found


@pytest.fixture(scope="module")
def alone(images: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    """Done by one process with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        found = ablate(*images, tmp_path_factory.mktemp("alone") / "a", over=GRID, **SMALL)
    torch.set_num_threads(threads)
    return found


def require_equal(found: Ablation, expected: Ablation) -> None:
    assert [it.figures for it in found.outcomes] == [it.figures for it in expected.outcomes]
    for ours, theirs in zip(found.outcomes, expected.outcomes, strict=True):
        assert ours.status == "finished"
        assert (ours.folder / "result.png").read_bytes() == (
            theirs.folder / "result.png"
        ).read_bytes()
    for name in ("table.csv", "sheet.png"):
        assert (found.folder / name).read_bytes() == (expected.folder / name).read_bytes()
    assert not list(found.folder.glob(".*"))


def test_a_cluster_does_the_same_trials(
    two_workers: Any, images: tuple[Path, Path], alone: Ablation, tmp_path: Path
) -> None:
    """A worker is killed while the first trial trains: another goes on with it."""
    place, records = tmp_path / "a", []

    def kill() -> None:
        limit = time.monotonic() + 60
        while not list(place.glob("trials/*")) and time.monotonic() < limit:
            time.sleep(0.02)
        os.kill(next(iter(two_workers.workers.values())).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    address = two_workers.scheduler_address
    found = ablate(
        *images, place, over=GRID, cluster=address, listener=heard(records.append), **SMALL
    )
    killer.join()
    require_equal(found, alone)
    events = [record["event"] for record in records if record["event"] != "notice"]
    assert events == ["ablation", "trial", "measured", "trial", "measured"]
    assert [(it["number"], it["count"]) for it in records if it["event"] == "trial"] == [
        (1, 2), (2, 2)
    ]  # fmt: skip


@pytest.mark.long
def test_a_trial_that_fails_is_told_and_tried_again(
    two_workers: Any, images: tuple[Path, Path], alone: Ablation, tmp_path: Path
) -> None:
    place, address = tmp_path / "a", two_workers.scheduler_address

    def broken(*arguments: Any, **config: Any) -> None:
        from sincut.errors import SincutError
        from sincut.runs.train import train

        if config["patches"] == 8:
            raise SincutError(f"{arguments[0]} is too loud")
        train(*arguments, **config)

    def change(new: Any) -> None:
        from sincut.ablation import work
        from sincut.runs.train import train

        work.train = new or train

    words = [*map(str, images), "-o", str(place), "--cluster", address]
    with distributed.Client(address, set_as_default=False) as client:
        client.run(change, broken)
        told = CliRunner().invoke(main, ["ablate", *words, "--over", "patches=16,8", *options()])
        client.run(change, None)
    assert told.exit_code == 2
    assert "  Failed: content.png is too loud\n" in told.output
    assert told.output.endswith(
        "Error: 1 of 2 trials failed: patches=8, seed 0: content.png is too loud\n"
    )
    require_equal(ablate(*images, place, resume=True, cluster=address), alone)


@pytest.mark.long
def test_a_stopped_command_ends_its_trials(
    two_workers: Any, images: tuple[Path, Path], tmp_path: Path
) -> None:
    """With Ctrl-C, in a trial that would take hours; and what goes on waits for its end."""
    place = tmp_path / "a"
    settings = {**SMALL, "steps": 1_000_000, "checkpoint_every": 5}

    def stop() -> None:
        limit = time.monotonic() + 60
        while len(list(place.glob("trials/*/state*"))) < 2 and time.monotonic() < limit:
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    stopper = threading.Thread(target=lambda: (stop(), None))
    stopper.start()
    found = ablate(*images, place, over=GRID, cluster=two_workers.scheduler_address, **settings)
    stopper.join()
    assert found.signal == signal.SIGINT
    assert len(found.unfinished) == 2
    assert not list(place.glob(".cluster-*"))
    limit = time.monotonic() + 30
    for outcome in found.outcomes:
        while time.monotonic() < limit:
            lock = FolderLock()
            try:
                lock.take(outcome.folder)
            except SincutError:
                time.sleep(0.2)
                continue
            lock.close()
            break
        else:
            pytest.fail("a trial goes on")


@pytest.mark.long
def test_trouble_is_a_line(
    two_workers: Any,
    images: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, address = tmp_path / "a", two_workers.scheduler_address

    def refusal(where: str, **more: Any) -> str:
        with pytest.raises(SincutError) as caught:
            ablate(*images, place, over=GRID, cluster=where, force=True, **more, **SMALL)
        return str(caught.value)

    monkeypatch.setattr(cluster, "_PATIENCE", "1s")
    told = refusal("tcp://127.0.0.1:1")
    assert told.startswith("no dask scheduler answers at tcp://127.0.0.1:1 (")
    with monkeypatch.context() as patched:
        here = cluster.__version__
        patched.setattr(cluster, "__version__", "9.9")
        assert refusal(address) == f"a worker has sincut {here}, and 9.9 asks; install the same"
    with pytest.raises(SincutError) as caught:
        TrialsJob(tmp_path, *images, None, False, {}, tmp_path / "x").work()
    assert str(caught.value) == (f"a worker sees no ablation in {tmp_path}; give a shared folder")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert refusal(address) == (
        f"--cluster {address} and torchrun both divide an ablation; try one of them"
    )
