"""An image made by the workers of a dask cluster: two processes of this machine."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sincut.errors import Interrupted, SincutError
from sincut.translation import cluster
from sincut.translation.plan import Plan
from sincut.translation.translate import Progress, translate
from tests.translation.test_shards import REPOSITORY, files, noise

pytest.importorskip("zarr", reason="the package zarr is not installed")
distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")

# What dask leaves open when processes are killed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """A cluster of two processes with a thread each."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=50,
    ) as found:
        yield found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 × 12,000 pixels: six shards."""
    path = tmp_path_factory.mktemp("image") / "in.png"
    rows = np.arange(12_000)[:, None] * np.arange(300)[None] % 251
    Image.fromarray(np.stack([rows, rows[::-1], rows[:, ::-1]], axis=2).astype(np.uint8)).save(path)
    return path


def made_alone(model: Path, image: Path, target: Path) -> dict[str, bytes]:
    """The files that one process makes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        translate(model, image, target)
    finally:
        torch.set_num_threads(threads)
    return files(target)


@pytest.fixture(scope="module")
def expected(
    image: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    return made_alone(tiny_run, image, tmp_path_factory.mktemp("one") / "one.ome.zarr")


@pytest.fixture(scope="module")
def expected_norms(
    image: Path, normalising_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    return made_alone(normalising_model, image, tmp_path_factory.mktemp("norms") / "one.ome.zarr")


def test_a_cluster_makes_the_same_bytes(
    two_workers: Any, image: Path, tiny_run: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    seen: list[Progress] = []
    address = two_workers.scheduler_address
    (done,) = translate(
        tiny_run, image, tmp_path / "out.ome.zarr", cluster=address, on_tile=seen.append
    )
    assert (done.height, len(seen)) == (12_000, 6)
    assert files(tmp_path / "out.ome.zarr") == expected


@pytest.mark.long
def test_passes_with_workers_killed_at_five_random_moments(
    two_workers: Any,
    image: Path,
    normalising_model: Path,
    tmp_path: Path,
    expected_norms: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a network that normalises over the whole image: 12 passes of 6 parts, and 6 shards."""
    chance = random.Random(3)
    moments = sorted(chance.sample(range(1, 78), 5))
    killed: list[int] = []
    # What ran on a killed worker is given up by the scheduler, and begun again by the command.
    monkeypatch.setattr(two_workers.scheduler, "allowed_failures", 0)

    def kill(progress: Progress) -> None:
        assert progress.total == 78
        if progress.done in moments:
            worker, limit = chance.choice(list(two_workers.workers.values())), time.monotonic() + 30
            while worker.pid is None and time.monotonic() < limit:  # it is just being started
                time.sleep(0.02)
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    target, address = tmp_path / "out.ome.zarr", two_workers.scheduler_address
    translate(normalising_model, image, target, cluster=address, on_tile=kill)
    assert len(killed) == 5
    assert files(target) == expected_norms
    assert not list(tmp_path.glob(".*"))


def test_a_task_that_ends_every_worker_is_given_up(
    two_workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_workers.scheduler, "allowed_failures", 0)

    def end(item: int, version: str, common: Any) -> int:
        os._exit(1)

    with cluster.connected(two_workers.scheduler_address, None, "a thing") as connected:
        with pytest.raises(SincutError, match=r"^a thing could not be made on the cluster \("):
            list(connected.outcomes(end, [0]))
        assert list(connected.outcomes(end, [7], lambda item, why: item)) == [7]


def test_a_killed_client_is_gone_on_with(
    two_workers: Any,
    image: Path,
    normalising_model: Path,
    tmp_path: Path,
    expected_norms: dict[str, bytes],
) -> None:
    """With SIGKILL, between the passes and once more later."""
    target, address = tmp_path / "out.ome.zarr", two_workers.scheduler_address
    command = [sys.executable, "-m", "sincut", "translate", str(normalising_model), str(image)]
    command += ["-o", str(target), "--cluster", address, "--resume"]
    part = tmp_path / ".out.ome.zarr.part"
    for pattern in ("passes/04.npy", "0/c/0/*/0"):
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not list(part.glob(pattern)):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert not target.exists()
    translate(normalising_model, image, target, cluster=address, resume=True)
    assert files(target) == expected_norms


def test_a_killed_worker_and_a_stopped_client_lose_nothing(
    two_workers: Any,
    image: Path,
    tiny_run: Path,
    tmp_path: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, address = tmp_path / "out.ome.zarr", two_workers.scheduler_address

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"of 6 shards done; the same command with --resume"):
        translate(tiny_run, image, target, cluster=address, on_tile=stop)
    with distributed.Client(address, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())

    def kill() -> None:
        part = tmp_path / ".out.ome.zarr.part"
        before = len(list(part.glob("0/c/0/*/0")))
        limit = time.monotonic() + 30
        while len(list(part.glob("0/c/0/*/0"))) == before and time.monotonic() < limit:
            time.sleep(0.02)
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    plans: list[Plan] = []
    killer.start()
    translate(tiny_run, image, target, cluster=address, resume=True, on_plan=plans.append)
    killer.join()
    assert plans[0].done >= 2
    assert files(target) == expected


def test_a_cluster_translates_many_files(
    two_workers: Any, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task each; one cannot be read, and a worker is killed."""
    folder, out, alone = (tmp_path / name for name in ("in", "out", "alone"))
    folder.mkdir()
    for index in range(6):
        noise(folder / f"{index}.png", 200 + index, 300)
    (folder / "3.png").write_bytes(b"nothing")
    messages = []
    with pytest.raises(SincutError) as caught:
        made_alone(tiny_run, folder, alone)
    messages.append(str(caught.value))

    def kill(progress: Progress) -> None:
        if progress.done == 2:
            os.kill(next(iter(two_workers.workers.values())).pid, signal.SIGKILL)

    seen: list[Progress] = []
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere
    with pytest.raises(SincutError) as caught:
        translate(
            tiny_run,
            Path("in"),
            Path("out"),
            cluster=two_workers.scheduler_address,
            on_tile=lambda progress: (seen.append(progress), kill(progress)),
        )
    messages.append(str(caught.value))
    assert messages[1].replace("in/3.png", f"{folder}/3.png") == messages[0]
    assert [(each.done, each.total) for each in seen] == [(n, 6) for n in range(1, 7)]
    assert [each.name for each in sorted(out.iterdir())] == [f"{n}.png" for n in (0, 1, 2, 4, 5)]
    for path in alone.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    (folder / "3.png").unlink()
    skipped: list[Path] = []
    (out / "4.png").unlink()
    options: dict[str, Any] = {"resume": True, "on_skip": skipped.append}
    (done,) = translate(tiny_run, folder, out, cluster=two_workers.scheduler_address, **options)
    assert (done.input, done.output) == (folder / "4.png", out / "4.png")
    assert len(skipped) == 4


def test_trouble_with_a_cluster_is_a_line(
    two_workers: Any,
    image: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, address = tmp_path / "out.ome.zarr", two_workers.scheduler_address

    def refusal(where: str) -> str:
        with pytest.raises(SincutError) as caught:
            translate(tiny_run, image, target, cluster=where, force=True)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    monkeypatch.setattr(cluster, "_PATIENCE", "1s")
    told = refusal("tcp://127.0.0.1:1")
    assert told.startswith("no dask scheduler answers at tcp://127.0.0.1:1 (")
    assert told.endswith("); start one with dask scheduler, or correct --cluster")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as nobody:
        monkeypatch.setattr(cluster, "_WORKERS_PATIENCE", 0.5)
        where = nobody.scheduler_address
        assert refusal(where) == (
            f"the scheduler at {where} has no workers; start some with dask worker {where}"
        )
    monkeypatch.setattr(cluster, "_WORKERS_PATIENCE", 60)
    here = cluster.__version__
    monkeypatch.setattr(cluster, "__version__", "9.9")
    assert refusal(address) == f"a worker has sincut {here}, and 9.9 asks; install the same"
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert refusal(address) == (
        f"--cluster {address} takes the package distributed, which is not installed; try "
        "pip install 'sincut[cluster]'"
    )
