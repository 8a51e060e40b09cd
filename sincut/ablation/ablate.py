"""Train on the same images under several settings and seeds, measure every result, show all.

======================  ============================================================
``ablation.json``       the plan: version, digests of the images, every trial's configuration
``trials/NAME/``        a run folder each, with ``result.png``, ``thumbnail.png`` for the sheet
                        and ``figures.json``, or with ``failed.json``; its state is deleted when
                        it is measured
``table.csv, table.md`` figures of every trial, mean and spread of every setting
``sheet.png``           what it is made of and every result, reduced
``index.html``          tables, sheet and curves
======================  ============================================================

Nothing but the folder is shared: several processes, started by ``torchrun`` or by hand with
``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, take every so-many-th trial, and whoever finishes one
writes the tables anew from what is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sincut.ablation.folder import (
    check_folder,
    check_images,
    check_same,
    machine_of,
    outcomes_of,
    read_plan,
    refuse_settings,
    remove_former,
    write_plan,
)
from sincut.ablation.images import read_images
from sincut.ablation.on_cluster import run_on_cluster, trials_job
from sincut.ablation.trials import AblationPlan, Outcome, planned
from sincut.ablation.work import Work
from sincut.compute.processes import Processes
from sincut.compute.public import public
from sincut.config.fields import as_text
from sincut.config.parts import ImageSettings, PairImageSettings, PlaceSettings
from sincut.errors import SincutError
from sincut.runs.events import (
    AblationPlanned,
    Listener,
    Noticed,
)
from sincut.version import __version__


@dataclass(frozen=True)
class Ablation:
    """How an ablation stands: every trial in order; ``signal`` is the number of the signal that
    interrupted it, or 0."""

    folder: Path
    outcomes: tuple[Outcome, ...]
    signal: int = 0

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The trials that failed."""
        return tuple(it for it in self.outcomes if it.status == "failed")

    @property
    def unfinished(self) -> tuple[Outcome, ...]:
        """The trials that were interrupted, not begun, or are with another process."""
        return tuple(it for it in self.outcomes if it.status == "unfinished")


@public
def ablate(
    content: Path | str,
    style: Path | str | None,
    output: Path | str,
    *,
    over: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | str | None = None,
    paper: bool = False,
    preset: str | None = None,
    method: str | None = None,
    resume: bool = False,
    force: bool = False,
    dry_run: bool = False,
    skip_bad: bool = False,
    held_out: tuple[Path | str, Path | str] | None = None,
    cluster: str = "",
    listener: Listener | None = None,
    **changes: Any,
) -> Ablation:
    """Train every combination of settings on the same images, measure the results, write tables.

    Args:
        content, style: a pair, of sides from 128 pixels, or two folders; as for
            :func:`sincut.runs.train.train`, with ``skip_bad`` and ``held_out``.
        output: the folder; made where it does not exist.
        over: for each field of :class:`sincut.config.training.PairConfig`, of folders of
            :class:`sincut.config.training.FolderConfig` (``preset`` and ``method`` too), the values
            to try, as they are or as text; layers as text are joined by ``+``.
        seeds: trials per setting, with the seeds from ``changes["seed"]`` (0) on; 1 by default.
        paper: instead of ``over``, the paper's ablations: a base and one change in it each.
        preset, method, changes: of all trials, as for :func:`sincut.runs.train.train`.
        resume: go on with the ablation in ``output``. Without ``over`` or ``paper`` everything is
            taken from its plan; with them they must agree with it. ``device`` and ``record_steps``
            may be others, for the trials that are left. Failed trials are tried again.
        force: start anew in a folder that holds one.
        dry_run: plan only; nothing is written.
        cluster: address of a dask scheduler, such as ``tcp://HOST:8786``, whose workers do the
            trials; images and ``output`` lie where they all read and write.
        listener: gets JSON-able records: ``ablation`` with all trials, ``trial``, the records of
            :func:`sincut.train` with the key ``trial`` added, ``measured`` or ``failed``.

    Returns:
        All trials, also where some failed: their messages are in the outcomes.

    Raises:
        SincutError: before the work, for what is wrong with settings, images or folder. What goes
            wrong in a trial, memory included, is recorded and the others go on.
    """
    folder = Path(output)
    tell = listener or (lambda _: None)
    processes = _processes(cluster, changes)
    check_folder(folder, resume=resume, force=force, several=processes.count > 1)
    images = read_images(content, style, held_out, skip_bad)
    # What another process of the same start has planned already is gone on with.
    former = None if force else read_plan(folder)
    if former is not None:
        check_images(folder, former, images.records)
    if resume and not (over or paper):
        assert former is not None
        refuse_settings(folder, preset, method, seeds, changes)
        plan = former
    else:
        if former is not None and preset is None:
            preset = former.trials[0].config.preset if "preset" not in (over or {}) else None
        plan = planned(images, over or {}, seeds, paper, preset, method, changes)
        _refuse_values(plan)
    if former is not None:
        _check_former(folder, former, plan, tell)
        plan = former
    elif not dry_run:
        # Refused before anything is written, and not after hours: what cannot be measured.
        images.prepare(plan.trials[0].config)
        if force and folder.exists():
            remove_former(folder)
        plan = write_plan(folder, plan, several=processes.count > 1)
    machine = machine_of(plan, changes)
    outcomes = outcomes_of(folder, plan)
    if dry_run and force:
        outcomes = tuple(Outcome(it.trial, it.folder) for it in outcomes)
    tell(_planned_event(folder, outcomes))
    if dry_run:
        return Ablation(folder, outcomes)
    work = Work(folder, plan, images, machine, tell)
    if cluster:
        job = trials_job(folder.absolute(), content, style, held_out, skip_bad, machine)
        number = run_on_cluster(work, cluster, job, plan.trials)
    else:
        number = work.run([it for index, it in enumerate(plan.trials) if processes.mine(index)])
    return Ablation(folder, outcomes_of(folder, plan), number)


def _processes(cluster: str, changes: Mapping[str, Any]) -> Processes:
    """Which of several this is, with its GPU chosen; a cluster has none of them."""
    processes = Processes.from_environment()
    if torch.cuda.is_available() and changes.get("device") != "cpu":
        processes.choose_gpu("cuda")  # before anything is asked of another one
    if cluster and processes.count > 1:
        raise SincutError(
            f"--cluster {cluster} and torchrun both divide an ablation; try one of them"
        )
    return processes


def _refuse_values(plan: AblationPlan) -> None:
    """Refuse settings of how images are read: all trials share the images as they are stored."""
    for trial in plan.trials:
        for field in (*dataclasses.fields(PairImageSettings), *dataclasses.fields(PlaceSettings)):
            value = getattr(trial.config, field.name, field.default)
            if value != field.default:
                values = hasattr(ImageSettings, field.name)
                hint = "scaled to all values of their type" if values else "of that part"
                raise SincutError(
                    f"ablate takes images as they are stored, got {field.name}={as_text(value)}; "
                    f"try copies {hint}"
                )


def _check_former(folder: Path, former: AblationPlan, plan: AblationPlan, tell: Listener) -> None:
    """Refuse to go on with a plan of other settings; tell of another version."""
    check_same(folder, former, plan)
    if former.version != __version__:
        text = f"it was begun with sincut {former.version}, and this is {__version__}"
        tell(Noticed(f"the ablation in {folder}", text))


def _planned_event(folder: Path, outcomes: Sequence[Outcome]) -> AblationPlanned:
    """Which trials there are, and how each stands."""
    trials = [
        {
            "trial": it.trial.folder,
            "setting": it.trial.setting,
            "seed": it.trial.seed,
            "status": it.status,
        }
        for it in outcomes
    ]
    return AblationPlanned(str(folder), trials)
