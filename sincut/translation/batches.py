"""Many files, of which several processes take one each until all are done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sincut.compute.cuda_graph import own_stream
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError
from sincut.images.writing.part_file import begun
from sincut.translation.one_image import LoadedModel, OneImage, Translated
from sincut.translation.plan import Plan
from sincut.translation.tiles import memory_limit

_TRIES = 3  # of a file whose process is killed


@dataclass(frozen=True)
class FileTask:
    """A file of a batch, by its number from 1."""

    index: int
    source: Path
    target: Path


@dataclass(frozen=True)
class FileDone:
    """What came of a file: ``result``, or ``failure``, why there is none; ``plan`` where there
    was one."""

    task: FileTask
    plan: Plan | None = None
    result: Translated | None = None
    failure: str = ""


def one_file(model: LoadedModel, task: FileTask, config: TranslateConfig) -> FileDone:
    """Translate a file as one process does alone; it goes on with what a killed one left."""
    plans: list[Plan] = []
    try:
        with own_stream(model.device.type):
            image = OneImage(model, task.source, task.target, config)
            result = image.run(plans.append, lambda done, total: None)
    except (SincutError, MemoryError, OSError) as error:
        return FileDone(task, failure=failure_text(task.source, error))
    return FileDone(task, plans[0], result)


def of_processes(config: TranslateConfig) -> TranslateConfig:
    """That of processes which take files: what was killed there goes on, as with ``resume``."""
    return config.replaced(workers=1, shard="", cluster="", resume=True)


def begun_before(config: TranslateConfig, tasks: Sequence[FileTask]) -> list[FileDone]:
    """Those that were begun before, where going on with them is not asked for."""
    if config.resume or config.force:
        return []
    return [
        FileDone(
            task,
            failure=f"{task.target} was begun before; try --resume, or --force to start anew",
        )
        for task in tasks
        if begun(task.target) is not None
    ]


def by_workers(
    model: LoadedModel, config: TranslateConfig, tasks: Sequence[FileTask]
) -> Generator[FileDone]:
    """Have processes of this machine translate files; what came of each, as it ends.

    They end with the iteration.
    """
    if not tasks:
        return
    count = min(config.workers, len(tasks))
    files = of_processes(config).replaced(max_memory=f"{memory_limit(config) // count}B")
    job = {"model": str(model.path), "config": files.to_dict()}
    todo: queue.SimpleQueue[FileTask] = queue.SimpleQueue()
    done: queue.SimpleQueue[FileDone] = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)
    workers = [_Worker(job, config.workers) for _ in range(count)]
    threads = [threading.Thread(target=each.serve, args=(todo, done)) for each in workers]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            yield done.get()
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                todo.get_nowait()
        for worker in workers:
            worker.end()
        for thread in threads:
            thread.join()


class _Worker:
    """A process that translates files, begun again when it is killed."""

    def __init__(self, job: Mapping[str, Any], count: int) -> None:
        self._job, self._count = job, count
        self._process: subprocess.Popen[str] | None = None
        self._ended, self._lock = False, threading.Lock()

    def serve(self, todo: queue.SimpleQueue[FileTask], done: queue.SimpleQueue[FileDone]) -> None:
        """Do one after the other, until there are no more."""
        with tempfile.TemporaryFile("w+") as said:
            try:
                with contextlib.suppress(queue.Empty):
                    while True:
                        done.put(self._done(todo.get_nowait(), said))
            finally:
                self.end()
                self._close()

    def end(self) -> None:
        """Stop what it does; what is whole of it stays."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.terminate()

    def _done(self, task: FileTask, said: IO[str]) -> FileDone:
        for _ in range(_TRIES):
            process = self._running(said)
            if process is None:
                break
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps([str(task.source), str(task.target)]) + "\n")
                process.stdin.flush()
            if line := process.stdout.readline():
                return _of_text(task, line)
            self._close()
            if process.returncode > 0:
                said.seek(0)
                return FileDone(task, failure=said.read().strip().rpartition("\n")[2])
        return FileDone(
            task,
            failure=f"{task.source} could not be translated: {_TRIES} processes that tried were "
            "killed; try fewer --workers",
        )

    def _running(self, said: IO[str]) -> subprocess.Popen[str] | None:
        """The process, begun if there is none; nothing where it is to end."""
        with self._lock:
            if self._ended:
                return None
            if self._process is None:
                pipes = {"stdin": subprocess.PIPE, "stderr": said}
                self._process = started(self._job, self._count, **pipes)
            return self._process

    def _close(self) -> None:
        """Wait for the end of the process."""
        process = self._process
        if process is None:
            return
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        with self._lock:
            self._process = None


def started(job: Mapping[str, Any], count: int, **pipes: Any) -> subprocess.Popen[str]:
    """A process of ``count`` of this machine, of :mod:`sincut.translation.worker`."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return subprocess.Popen(
        [sys.executable, "-m", "sincut.translation.worker", json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": str(threads), **os.environ},
        start_new_session=True,  # Ctrl-C is for this process, which ends them
        **pipes,
    )


def as_text(done: FileDone) -> str:
    """What came of a file as a line of JSON."""
    values = [
        None if each is None else dataclasses.asdict(each) for each in (done.plan, done.result)
    ]
    return json.dumps([*values, done.failure], default=str)


def _of_text(task: FileTask, line: str) -> FileDone:
    plan, result, failure = json.loads(line)
    paths = {"input": task.source, "output": task.target}
    if plan is not None:
        working = tuple(plan["working"]) if plan["working"] else None
        plan = Plan(**{**plan, **paths, "working": working})
    if result is not None:
        result = Translated(**{**result, **paths, "notices": tuple(result["notices"])})
    return FileDone(task, plan, result, failure)


def failure_text(source: Path, error: Exception) -> str:
    """What went wrong with one image, in one line: the others go on."""
    if isinstance(error, MemoryError):
        return (
            f"{source} could not be translated: memory ended; try --max-memory or a smaller --tile"
        )
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{source} could not be translated ({reason}); check the place and its permissions"
    return str(error)
