"""Shards as tasks of a dask cluster, whose workers come and go. Needs the extra ``cluster``.

A task makes one shard, or a shard's part of a pass, and writes it; the scheduler gives the tasks of
a worker that is lost to others. Nothing of an image travels but the model, once to each worker:
input and output lie on storage that all share. Each task computes with one thread, so that all
workers round alike.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sincut.compute.devices import chosen_device
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError, one_line
from sincut.images.reading.extras import library
from sincut.images.writing.ome_zarr import OmeZarr
from sincut.translation.one_image import loaded_model
from sincut.translation.shards import ShardedImage, ShardMaker
from sincut.version import __version__

_PATIENCE = "10s"  # for the scheduler's answer
_WORKERS_PATIENCE = 60  # seconds, for a first worker


@dataclass(frozen=True)
class Job:
    """What a worker has to know beside the model: paths as all see them, the configuration, and the
    version of sincut that asks."""

    source: Path
    target: Path
    config: Mapping[str, Any]
    version: str


@dataclass(frozen=True)
class Piece:
    """A task: a shard, or a shard's part of a pass over the image."""

    shard: int
    of_pass: int | None = None


def make_on_cluster(
    address: str,
    job: Job,
    model: bytes,
    stages: Iterable[Sequence[Piece]],
    tell: Callable[[], None],
) -> list[str]:
    """Have pieces made, those of a stage in any order; returns what is to be told of them.

    Raises:
        SincutError: nobody answers, there are no workers, or of another version; a shard failed.
    """
    distributed = library("distributed", "distributed", "cluster", f"--cluster {address}")
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SincutError(
            f"no dask scheduler answers at {address} ({one_line(error)}); start one with dask "
            "scheduler, or correct --cluster"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKERS_PATIENCE)
        except TimeoutError:
            raise SincutError(
                f"the scheduler at {address} has no workers; start some with dask worker {address}"
            ) from None
        with warnings.catch_warnings():  # of the model's size: what is scattered dies with a worker
            warnings.filterwarnings("ignore", "Sending large graph")
            sent = client.submit(_same, model, pure=False)
        notices: dict[str, None] = {}
        submit = partial(client.map, make_piece, job=job, model=sent, pure=False, retries=0)
        try:
            for stage in stages:
                for told in _results(client, distributed, submit, stage):
                    notices |= dict.fromkeys(told)
                    tell()
        except SincutError:
            raise
        except Exception as error:  # of the workers, of every kind
            raise SincutError(
                f"a shard could not be made on the cluster ({one_line(error)}); the workers need "
                f"sincut {__version__} and the paths of input and output"
            ) from None
    return list(notices)


def _results(
    client: Any,
    distributed: Any,
    submit: Callable[[Sequence[Piece]], list[Any]],
    stage: Sequence[Piece],
) -> Iterator[list[str]]:
    """What tasks return, as they end; those that a cluster gives up are begun again.

    A scheduler gives up a task with which some workers died, though it need not be its fault: that
    is only believed when nothing else was done since the last time.
    """
    left = dict(zip(submit(stage), stage, strict=True))
    try:
        while left:
            lost: list[Any] = []
            done = 0
            for task in distributed.as_completed(list(left), loop=client.loop):
                if task.status == "error" and isinstance(
                    task.exception(), distributed.KilledWorker
                ):
                    lost.append(task)
                    continue
                result = task.result()
                del left[task]
                done += 1
                yield result
            if lost and not done:
                lost[0].result()
            again = [left[task] for task in lost]
            left = dict(zip(submit(again), again, strict=True))
    finally:
        client.cancel(list(left))


def _same(model: bytes) -> bytes:
    return model


_HERE = threading.local()  # a worker runs a task in each of its threads


def make_piece(piece: Piece, job: Job, model: bytes) -> list[str]:
    """A task: make and write one piece; what is to be told of it."""
    if job.version != __version__:
        raise SincutError(
            f"a worker has sincut {__version__}, and {job.version} asks; install the same"
        )
    torch.set_num_threads(1)
    key = hashlib.sha256(model).hexdigest(), repr(job)
    if getattr(_HERE, "key", None) != key:
        if hasattr(_HERE, "stack"):
            _HERE.stack.close()
        _HERE.stack, _HERE.key = ExitStack(), key
        _HERE.output, _HERE.maker = _prepared(job, model, _HERE.stack)
    output, maker = _HERE.output, _HERE.maker
    if piece.of_pass is not None:
        maker.passes.make(piece.of_pass, piece.shard)
    elif not output.has(0, piece.shard):
        output.write(piece.shard, maker.make(output.place(0, piece.shard)))
    told: list[str] = maker.notices
    return told


def _prepared(job: Job, model: bytes, stack: ExitStack) -> tuple[OmeZarr, ShardMaker]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = folder / "model.safetensors"
    path.write_bytes(model)
    config = TranslateConfig.from_dict(job.config)
    device = torch.device(chosen_device(config.device))
    image = ShardedImage(loaded_model(path, device), job.source, job.target, config)
    return image.maker(stack)
