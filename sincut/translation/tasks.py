"""What a worker of a dask cluster does: a shard, a shard's part of a pass, or a file.

Nothing of an image travels: input and output lie on storage that all share. Each task computes with
one thread, so that all workers round alike.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from sincut.compute.devices import chosen_device
from sincut.config.translating import TranslateConfig
from sincut.images.writing.ome_zarr import OmeZarr
from sincut.models.model_file import model_file
from sincut.translation.batches import FileDone, FileTask, of_processes, one_file
from sincut.translation.cluster import connected, require_version
from sincut.translation.one_image import LoadedModel, loaded_model
from sincut.translation.shards import ShardedImage, ShardMaker

Made = TypeVar("Made")


@dataclass(frozen=True)
class Piece:
    """A shard, or a shard's part of a pass over the image."""

    shard: int
    of_pass: int | None = None


@dataclass(frozen=True)
class Job:
    """What all tasks have to know: a model file's bytes and the configuration; and of an image that
    is made in pieces, its places as all see them."""

    model: bytes
    config: Mapping[str, Any]
    source: Path = Path()
    target: Path = Path()


def by_cluster(
    model: LoadedModel, config: TranslateConfig, tasks: Sequence[FileTask]
) -> Generator[FileDone]:
    """Have a dask cluster translate files; what came of each, as it ends."""
    if not tasks:
        return
    files = of_processes(config).to_dict()
    job = Job(model_file(model.path).read_bytes(), files)
    there = [FileTask(it.index, it.source.absolute(), it.target.absolute()) for it in tasks]

    def given_up(task: FileTask, why: str) -> FileDone:
        return FileDone(
            task, failure=f"{task.source} could not be translated on the cluster ({why})"
        )

    with connected(config.cluster, job, "a file") as cluster:
        for done in cluster.outcomes(translate_file, there, given_up):
            yield _of_here(done, tasks)


def _of_here(done: FileDone, tasks: Sequence[FileTask]) -> FileDone:
    """With paths as they were given."""
    (task,) = (each for each in tasks if each.index == done.task.index)
    paths: dict[str, Any] = {"input": task.source, "output": task.target}
    plan = None if done.plan is None else replace(done.plan, **paths)
    result = None if done.result is None else replace(done.result, **paths)
    failure = done.failure.replace(str(done.task.source), str(task.source))
    return FileDone(task, plan, result, failure)


_HERE = threading.local()  # a worker runs a task in each of its threads


def make_piece(piece: Piece, version: str, common: Job) -> list[str]:
    """A task: make and write one piece; what is to be told of it."""
    require_version(version)
    output, maker = _kept(common, _opened)
    if piece.of_pass is not None:
        assert maker.passes is not None
        maker.passes.make(piece.of_pass, piece.shard)
    elif not output.has(0, piece.shard):
        output.write(piece.shard, maker.make(output.place(0, piece.shard)))
    return maker.notices


def translate_file(task: FileTask, version: str, common: Job) -> FileDone:
    """A task: translate a file, as one process does alone."""
    require_version(version)
    config = TranslateConfig.from_dict(common.config)
    return one_file(_kept(common, _model), task, config)


def _kept(job: Job, make: Callable[[Job, ExitStack], Made]) -> Made:
    """What a thread keeps from task to task, made where the job is another than before."""
    torch.set_num_threads(1)
    of_job = repr((job.config, job.source, job.target, make.__name__))
    key = hashlib.sha256(job.model).hexdigest(), of_job
    if getattr(_HERE, "key", None) != key:
        if hasattr(_HERE, "stack"):
            _HERE.stack.close()
        _HERE.stack, _HERE.key = ExitStack(), None
        _HERE.made = make(job, _HERE.stack)
        _HERE.key = key
    made: Made = _HERE.made
    return made


def _model(job: Job, stack: ExitStack) -> LoadedModel:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = folder / "model.safetensors"
    path.write_bytes(job.model)
    config = TranslateConfig.from_dict(job.config)
    return loaded_model(path, torch.device(chosen_device(config.device)))


def _opened(job: Job, stack: ExitStack) -> tuple[OmeZarr, ShardMaker]:
    config = TranslateConfig.from_dict(job.config)
    image = ShardedImage(_model(job, stack), job.source, job.target, config)
    return image.maker(stack)
