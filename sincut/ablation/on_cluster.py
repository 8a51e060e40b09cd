"""Trials as tasks of a dask cluster: each is trained and measured by a worker, in its own folder.

Images and folder lie on storage that all share. A worker does one trial at a time, with one thread,
so that all compute alike. The trial of a worker that is lost goes on at another from where it was
saved. What a command has begun ends with it: a file of its own in the folder says that it is there.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sincut.ablation.folder import FAILURE_FILE, TRIALS, check_images, read_plan, write_json
from sincut.ablation.images import Held, read_images
from sincut.ablation.trials import Trial
from sincut.ablation.work import Work
from sincut.errors import SincutError
from sincut.files import FolderLock, write_text
from sincut.runs.events import Event, Noticed, OfTrial, TrialFailed, TrialMeasured, TrialStarted
from sincut.signals import stoppable
from sincut.translation.cluster import connected, require_version

_PREFIX = ".cluster-"
_LOOK_SECONDS = 2.0  # between two looks whether the command is still there
_FREE_SECONDS = 60.0  # for a training of an earlier command to end


@dataclass(frozen=True)
class TrialsJob:
    """What all trials have to know: the folder and the images as all see them, what belongs to the
    machine, and the file that says that the command is there."""

    folder: Path
    content: Path
    style: Path | None
    held_out: Held | None
    skip_bad: bool
    machine: dict[str, Any]
    there: Path

    def work(self) -> Work:
        """What trials share, on the worker that does them.

        Raises:
            SincutError: images or folder are not there, or others than those of the plan.
        """
        plan = read_plan(self.folder)
        if plan is None:
            raise SincutError(f"a worker sees no ablation in {self.folder}; give a shared folder")
        images = read_images(self.content, self.style, self.held_out, self.skip_bad)
        check_images(self.folder, plan, images.records)
        images.prepare(plan.trials[0].config)
        return Work(self.folder, plan, images, self.machine, lambda _: None)


def trials_job(
    folder: Path,
    content: Path | str,
    style: Path | str | None,
    held_out: Held | None,
    skip_bad: bool,
    machine: dict[str, Any],
) -> TrialsJob:
    """That of a command, whose sign is like no other's."""
    paths = Path(content).absolute(), None if style is None else Path(style).absolute()
    held = (
        None if held_out is None else (Path(held_out[0]).absolute(), Path(held_out[1]).absolute())
    )
    there = folder / f"{_PREFIX}{uuid.uuid4().hex}"
    return TrialsJob(folder, *paths, held, skip_bad, machine, there)


def run_on_cluster(work: Work, address: str, job: TrialsJob, trials: Sequence[Trial]) -> int:
    """Have a cluster do what is not finished of some trials; the signal that stopped it, or 0.

    Raises:
        SincutError: as :func:`sincut.translation.cluster.connected`.
    """
    with stoppable() as received:
        try:
            left = {trial.folder: trial for trial in work.left(trials)}
            if left:
                with _there(job.there), connected(address, job, "a trial") as cluster:
                    told: set[Event] = set()
                    ended = cluster.outcomes(do_trial, list(left), lambda *it: _lost(job, *it))
                    for number, (name, events) in enumerate(ended, start=1):
                        trial = left[name]
                        work.tell(TrialStarted(trial.folder, trial.name, number, len(left)))
                        _tell(work, events, told)
                        work.write_tables()
            else:
                work.write_tables()
        except KeyboardInterrupt:
            if not received:
                raise
    return received[0] if received else 0


def _tell(work: Work, events: Sequence[Event], told: set[Event]) -> None:
    """Pass on what a worker tells, notices once."""
    for event in events:
        if isinstance(event, OfTrial):
            if event.told in told:
                continue
            told.add(event.told)
        work.tell(event)


def _lost(job: TrialsJob, name: str, why: str) -> tuple[str, list[Event]]:
    """A trial with which every worker ends."""
    message = f"it could not be made on the cluster ({why})"
    run = job.folder / TRIALS / name
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / FAILURE_FILE, {"message": message})
    return name, [TrialFailed(name, message)]


@contextmanager
def _there(file: Path) -> Iterator[None]:
    """Say that the command is there, and that no earlier one is."""
    for other in file.parent.glob(f"{_PREFIX}*"):
        other.unlink(missing_ok=True)
    write_text(file, "The trials of this command go on while this file is there.\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


_ALONE = threading.Lock()  # a worker may have several threads
_here: tuple[str, Work] | None = None


def do_trial(name: str, version: str, common: TrialsJob) -> tuple[str, list[Event]]:
    """A task: train and measure a trial; its name, and what is to be told of it."""
    global _here
    require_version(version)
    with _ALONE:
        torch.set_num_threads(1)
        if _here is None or _here[0] != repr(common):
            _here = repr(common), common.work()
        work = _here[1]
        (trial,) = (each for each in work.plan.trials if each.folder == name)
        told: list[Event] = []
        looked = time.monotonic()

        def listen(event: Event) -> None:
            nonlocal looked
            if isinstance(event, (TrialMeasured, TrialFailed)) or (
                isinstance(event, OfTrial) and isinstance(event.told, Noticed)
            ):
                told.append(event)
            elif time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if not common.there.exists():
                    raise KeyboardInterrupt  # the command has ended

        work.tell = listen
        _wait_until_free(common.folder / TRIALS / name)
        with suppress(KeyboardInterrupt):
            work.one(trial)
    return name, told


def _wait_until_free(run: Path) -> None:
    """Wait for the end of a training that an earlier command began, and that will end."""
    until = time.monotonic() + _FREE_SECONDS
    while time.monotonic() < until:
        lock = FolderLock()
        try:
            lock.take(run)
        except SincutError:
            time.sleep(_LOOK_SECONDS)
        else:
            lock.close()
            return
