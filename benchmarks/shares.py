"""One image by several processes: the same bytes, in how much less time, and up to how many.

An OME-Zarr is translated to another by one process and by some, in turns, each with one thread. The
results must be the same, byte for byte, also of a dask cluster. What a shard costs to read, to
compute and to write is measured, too; from these figures follows how time would go on with more
workers, if each had a processor of its own and all shared one storage: it is simulated shard by
shard.
"""

from __future__ import annotations

import heapq
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.translate import save_random_model, write_synthetic
from sincut.config.translating import TranslateConfig
from sincut.files import file_digest
from sincut.images.reading.extras import library
from sincut.models.model_file import save_model
from sincut.models.resnet import ResnetGenerator
from sincut.translation.one_image import loaded_model
from sincut.translation.shards import ShardedImage
from sincut.translation.translate import translate
from sincut.units import byte_text

SIMULATED = (1, 2, 4, 8, 16, 32, 64)
STORAGES = {"a disk of 0.5 GB/s": 0.5e9, "a server of 5 GB/s": 5e9}


@dataclass(frozen=True)
class Way:
    """How many processes share an image: workers of a dask cluster, or the command's own."""

    workers: int
    cluster: bool = False

    def __str__(self) -> str:
        return f"{self.workers} {'workers of a cluster' if self.cluster else 'processes'}"


def measure(
    side: int,
    channels: int,
    ways: Sequence[Way],
    rounds: int,
    folder: Path,
    norms: bool,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Rows of measured and of simulated seconds for an image of ``side``² pixels.

    Args:
        ways: the first is compared with.
        folder: where all files are, of which nothing stays: at most twice the image.
        norms: the network normalises over the whole image; nothing is simulated then.
    """
    _require_room(folder, side)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        model = place / "model.safetensors"
        if norms:
            _save_normalising(model, channels)
        else:
            save_random_model(model, channels)
        write_synthetic(place / "in.tif", side)
        translate(model, place / "in.tif", place / "in.ome.zarr", strength=0)  # a copy
        (place / "in.tif").unlink()
        costs = {} if norms else _costs(model, place)
        tell(", ".join(f"{name} {value:.3f}" for name, value in costs.items()))
        times: dict[Way, list[float]] = {way: [] for way in ways}
        first: dict[str, str] = {}
        for turn in range(rounds):
            for way in ways if turn % 2 == 0 else reversed(ways):
                target = place / "out.ome.zarr"
                times[way].append(_seconds(model, place / "in.ome.zarr", target, way))
                tell(f"{way}: {times[way][-1]:.1f} s")
                made = _digests(target)
                first = first or made
                if made != first:
                    raise SystemExit(f"{way} do not make what {ways[0]} make")
                shutil.rmtree(target)
    alone = statistics.median(times[ways[0]])
    rows: list[dict[str, Any]] = [
        {
            "workers": way.workers,
            "cluster": way.cluster,
            "norms": norms,
            "megapixels": side * side / 1e6,
            "seconds": statistics.median(found),
            "least": min(found),
            "share_of_one": statistics.median(found) / alone,
        }
        for way, found in times.items()
    ]
    if not costs:
        return rows
    rows.append({"costs_of_a_shard": costs})
    across = -(-side // 2048)
    for storage, rate in STORAGES.items():
        for count in SIMULATED:
            seconds = simulated(across * across, count, costs, rate)
            rows.append({"simulated_workers": count, "storage": storage, "seconds": seconds})
    return rows


def simulated(shards: int, workers: int, costs: dict[str, float], rate: float) -> float:
    """Seconds until the last of some workers ends: each starts, then reads, computes and writes its
    shards. Bytes go through one storage of ``rate`` bytes a second, one request after the other;
    decoding and encoding are the workers' own."""
    left = [shards * (i + 1) // workers - shards * i // workers for i in range(workers)]
    # (time, worker, what comes next); the storage is free from `free` on.
    events = [(costs["start"], worker, "read") for worker in range(workers) if left[worker]]
    heapq.heapify(events)
    free = end = 0.0
    while events:
        now, worker, step = heapq.heappop(events)
        if step == "read":
            free = max(now, free) + costs["read_bytes"] / rate
            work = costs["read"] + costs["compute"] + costs["write"]
            heapq.heappush(events, (free + work, worker, "write"))
            continue
        free = max(now, free) + costs["write_bytes"] / rate
        left[worker] -= 1
        if left[worker]:
            heapq.heappush(events, (free, worker, "read"))
        end = max(end, free)
    return end


def _costs(model: Path, folder: Path) -> dict[str, float]:
    """Seconds of starting and of a shard's reading, computing and writing, with one thread; bytes
    that it reads and writes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source, target = folder / "in.ome.zarr", folder / "costs.ome.zarr"
    config = TranslateConfig()
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import sincut.translation.translate"], check=True)
    costs = {"start": time.perf_counter() - started}
    with ExitStack() as stack:
        image = ShardedImage(loaded_model(model, torch.device("cpu")), source, target, config)
        output, maker = image.maker(stack)
        place = output.place(0, 0)
        maker.make(place)  # finds memory and algorithms
        started = time.perf_counter()
        pixels = maker.make(place)
        whole = time.perf_counter() - started
        started = time.perf_counter()
        maker.read(place)
        costs["read"] = time.perf_counter() - started
        costs["compute"] = whole - costs["read"]
        started = time.perf_counter()
        output.write(0, pixels)
        costs["write"] = time.perf_counter() - started
    written = (output.part / "0" / "c" / "0" / "0" / "0").stat().st_size
    costs["read_bytes"] = costs["write_bytes"] = float(written)
    shutil.rmtree(output.part)
    torch.set_num_threads(threads)
    return costs


def _seconds(model: Path, source: Path, target: Path, way: Way) -> float:
    """Of the command alone; a cluster is there before."""
    command = [sys.executable, "-m", "sincut", "translate", str(model), str(source), "--quiet"]
    command += ["-o", str(target)]
    with ExitStack() as stack:
        if way.cluster:
            distributed = library("distributed", "distributed", "cluster", "--cluster")
            shape = {"n_workers": way.workers, "threads_per_worker": 1, "dashboard_address": None}
            cluster = stack.enter_context(distributed.LocalCluster(**shape))
            command += ["--cluster", cluster.scheduler_address]
        else:
            command += ["--workers", str(way.workers)]
        started = time.perf_counter()
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        return time.perf_counter() - started


def _digests(folder: Path) -> dict[str, str]:
    """Of all files but the metadata, which holds names."""
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


def _require_room(folder: Path, side: int) -> None:
    """Stop where the disk has no room for twice the image, and its smaller levels."""
    needed, free = int(2.4 * 3 * side * side), shutil.disk_usage(folder).free
    if needed > free:
        raise SystemExit(
            f"{side}×{side} pixels take {byte_text(needed)} in {folder}, {byte_text(free)} are free"
        )


def _save_normalising(path: Path, channels: int) -> None:
    """A model file of a ResNet with random weights, which are large enough for norms to count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = ResnetGenerator(channels)
        with torch.no_grad():
            for parameter in generator.parameters():
                if parameter.ndim == 4:
                    torch.nn.init.xavier_normal_(parameter, gain=0.7)
    save_model(path, generator, None, {"origin": "random weights of a benchmark"})
