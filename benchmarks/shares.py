"""One image by several processes: the same bytes, in how much less time, and up to how many.

An OME-Zarr is translated to another by one process and by some, in turns, each with one thread. The
results must be the same, byte for byte. What a shard costs to read, to compute and to write is
measured, too; from these figures follows how time would go on with more workers, if each had a
processor of its own and all shared one storage: it is simulated shard by shard.
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
from pathlib import Path
from typing import Any

import torch

from benchmarks.translate import save_random_model, write_synthetic
from sincut.config.translating import TranslateConfig
from sincut.translation.one_image import loaded_model
from sincut.translation.shards import ShardedImage
from sincut.translation.translate import translate

SIMULATED = (1, 2, 4, 8, 16, 32, 64)
STORAGES = {"a disk of 0.5 GB/s": 0.5e9, "a server of 5 GB/s": 5e9}


def measure(
    side: int, channels: int, workers: Sequence[int], rounds: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of measured and of simulated seconds for an image of ``side``² pixels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.safetensors"
        save_random_model(model, channels)
        write_synthetic(folder / "in.tif", side)
        translate(model, folder / "in.tif", folder / "in.ome.zarr", strength=0)  # a copy
        (folder / "in.tif").unlink()
        costs = _costs(model, folder)
        tell(", ".join(f"{name} {value:.3f}" for name, value in costs.items()))
        times: dict[int, list[float]] = {count: [] for count in workers}
        first: Path | None = None
        for turn in range(rounds):
            for count in workers if turn % 2 == 0 else reversed(workers):
                target = folder / f"out-{count}-{turn}.ome.zarr"
                times[count].append(_seconds(model, folder / "in.ome.zarr", target, count))
                tell(f"{count} processes: {times[count][-1]:.1f} s")
                if first is None:
                    first = target
                    continue
                _require_equal(first, target)
                shutil.rmtree(target)
    alone = statistics.median(times[workers[0]])
    rows: list[dict[str, Any]] = [
        {
            "workers": count,
            "megapixels": side * side / 1e6,
            "seconds": statistics.median(found),
            "least": min(found),
            "share_of_one": statistics.median(found) / alone,
        }
        for count, found in times.items()
    ]
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


def _seconds(model: Path, source: Path, target: Path, count: int) -> float:
    command = [sys.executable, "-m", "sincut", "translate", str(model), str(source), "--quiet"]
    started = time.perf_counter()
    subprocess.run(
        [*command, "-o", str(target), "--workers", str(count)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return time.perf_counter() - started


def _require_equal(one: Path, other: Path) -> None:
    """Stop where two results are not the same but for the names in their metadata."""
    for path in sorted(one.rglob("*")):
        same = other / path.relative_to(one)
        if path.is_file() and path.name != "zarr.json" and path.read_bytes() != same.read_bytes():
            raise SystemExit(f"{same} is not what one process makes")
