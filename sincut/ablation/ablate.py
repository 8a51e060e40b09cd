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
import re
import shutil
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sincut.ablation.folder import (
    FAILURE_FILE,
    FIGURES_FILE,
    TRACEBACK_FILE,
    TRIALS,
    check_folder,
    check_images,
    check_same,
    machine_of,
    outcomes_of,
    read_plan,
    refuse_settings,
    remove_former,
    write_json,
    write_plan,
)
from sincut.ablation.images import TrialImages, read_images
from sincut.ablation.page import (
    RESULT_FILE,
    SHEET_FILE,
    THUMBNAIL_FILE,
    csv_table,
    markdown_tables,
    page,
    sheet,
    thumbnail,
)
from sincut.ablation.trials import AblationPlan, Outcome, Trial, planned
from sincut.compute.memory import memory_in_words
from sincut.compute.processes import ALONE, Processes
from sincut.compute.public import public
from sincut.config.fields import as_text
from sincut.config.parts import ImageSettings, PairImageSettings, PlaceSettings
from sincut.errors import SincutError, one_line
from sincut.files import write_atomically, write_text
from sincut.images.reading.open import read_picture
from sincut.images.reading.source import Pixels
from sincut.images.writing.png import write_png
from sincut.models.model_file import load_generator
from sincut.runs.events import (
    AblationPlanned,
    Event,
    Listener,
    Noticed,
    OfTrial,
    TrialFailed,
    TrialMeasured,
    TrialStarted,
)
from sincut.runs.train import train
from sincut.signals import stoppable
from sincut.training.state import STATE_FILE
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
    processes = Processes.from_environment()
    if torch.cuda.is_available() and changes.get("device") != "cpu":
        processes.choose_gpu("cuda")  # before anything is asked of another one
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
    work = _Work(folder, plan, images, machine, tell)
    number = work.run([trial for index, trial in enumerate(plan.trials) if processes.mine(index)])
    return Ablation(folder, outcomes_of(folder, plan), number)


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


class _Work:
    """What the trials share."""

    def __init__(
        self,
        folder: Path,
        plan: AblationPlan,
        images: TrialImages,
        machine: dict[str, Any],
        tell: Listener,
    ) -> None:
        self.folder, self.plan, self.images = folder, plan, images
        self.machine, self.tell = machine, tell
        self.told: set[Noticed] = set()
        self.received: list[int] = []  # signals

    def run(self, trials: Sequence[Trial]) -> int:
        """Do what is not finished of these; returns the signal that stopped it, or 0.

        A signal that comes while a trial trains, in its last step or save too, ends it there: it is
        measured when the ablation is resumed.
        """
        states = {it.trial.folder: it.status for it in outcomes_of(self.folder, self.plan)}
        left = [trial for trial in trials if states[trial.folder] != "finished"]
        for trial in trials:
            run = self.folder / TRIALS / trial.folder
            # Tried again: until then they count as unfinished, for the other processes too.
            (run / FAILURE_FILE).unlink(missing_ok=True)
            if states[trial.folder] == "finished":  # a kill may have come before
                (run / STATE_FILE).unlink(missing_ok=True)
        with stoppable() as self.received:
            try:
                for trial in trials:
                    if states[trial.folder] == "finished":
                        self.complete(self.folder / TRIALS / trial.folder)
                if left:
                    self.images.prepare(self.plan.trials[0].config)
                for number, trial in enumerate(left, start=1):
                    self.tell(TrialStarted(trial.folder, trial.name, number, len(left)))
                    self.one(trial)
                    if self.received:
                        break
                    self.write_tables()
                if not left:
                    self.write_tables()
            except KeyboardInterrupt:
                if not self.received:
                    raise
        return self.received[0] if self.received else 0

    def complete(self, run: Path) -> None:
        """The thumbnail of a trial that an earlier version measured, or that somebody removed."""
        if not (run / THUMBNAIL_FILE).exists():
            with suppress(SincutError):  # no result, or a damaged one: the sheet has no picture
                self.write_thumbnail(run, read_picture(run / RESULT_FILE).rgb)

    def write_thumbnail(self, run: Path, pixels: Pixels) -> None:
        """The result as the sheet has it."""
        write_png(run / THUMBNAIL_FILE, thumbnail(pixels, self.images.kind.cell))

    def one(self, trial: Trial) -> None:
        """Train, translate and measure, unless a signal comes; a failure is written down."""
        run = self.folder / TRIALS / trial.folder
        try:
            with memory_in_words():
                self.train(trial, run)
                if self.received:
                    return
                generator = load_generator(run).to(torch.device(self.machine["device"]))
                pixels = self.images.picture(generator, trial.config)
                write_png(run / RESULT_FILE, pixels)
                self.write_thumbnail(run, pixels)
                figures = self.images.figures(generator, pixels)
        except Exception as error:
            run.mkdir(parents=True, exist_ok=True)  # it may have failed before there was a folder
            if isinstance(error, SincutError):
                message = _with_names(str(error), run, *self.images.places)
            else:  # a mistake of ours; the other trials are worth as much as before
                write_text(run / TRACEBACK_FILE, traceback.format_exc())
                message = (
                    f"{type(error).__name__}, a fault of sincut's own ({one_line(error)}); its "
                    f"{TRACEBACK_FILE} says where"
                )
            write_json(run / FAILURE_FILE, {"message": message})
            self.tell(TrialFailed(trial.folder, message))
            return
        write_json(run / FIGURES_FILE, figures)
        (run / STATE_FILE).unlink(missing_ok=True)
        self.tell(TrialMeasured(trial.folder, trial.name, figures))

    def train(self, trial: Trial, run: Path) -> None:
        """From where it was saved, or from the beginning."""
        resume = (run / STATE_FILE).exists()
        if not resume and run.exists():
            shutil.rmtree(run)  # a kill came before the first save
        run.parent.mkdir(exist_ok=True)

        def listen(event: Event) -> None:
            if isinstance(event, Noticed):
                if event in self.told:
                    return
                self.told.add(event)
            self.tell(OfTrial(event, trial.folder))

        config = {**trial.config.to_dict(), **self.machine, **self.images.options}
        train(
            *self.images.paths,
            run,
            resume=resume,
            report=False,
            listener=listen,
            processes=ALONE,
            **config,
        )

    def write_tables(self) -> None:
        """Tables, sheet and page of what is in the folder.

        Another process may finish a trial meanwhile, and its tables be overwritten by these:
        whoever finds that writes again, so that the last tables are complete.
        """
        outcomes, written = outcomes_of(self.folder, self.plan), None
        while outcomes != written:
            with write_atomically(self.folder / "table.csv") as file:
                file.write(csv_table(self.plan, outcomes).encode("utf-8", "replace"))
            write_text(self.folder / "table.md", markdown_tables(self.plan, outcomes))
            picture, _ = sheet(self.images.shown, self.plan, outcomes)
            write_png(self.folder / SHEET_FILE, picture)
            write_text(self.folder / "index.html", page(self.plan, outcomes))
            written, outcomes = outcomes, outcomes_of(self.folder, self.plan)


# Folders before a name, from the root or the home, as they may stand in a message.
_FOLDERS = re.compile(r"(?<![\w.:/-])~?/(?:[^\s/]+/)+")


def _with_names(message: str, *places: Path) -> str:
    """A message with names instead of places: tables are shown to others.

    Files of a folder, the run's among them, keep their place inside it.
    """
    for path in places:
        for known in {str(path), str(path.absolute()), str(path.resolve())}:
            place = rf"(?<![\w./-]){re.escape(known)}"
            message = re.sub(rf"{place}/(?=[^\s/])", "", message)
            message = path.name.join(re.split(rf"{place}(?![\w/-])", message))
    return _FOLDERS.sub("", message)
