"""What the trials of an ablation share, and how each is done."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from sincut.ablation.folder import (
    FAILURE_FILE,
    FIGURES_FILE,
    TRACEBACK_FILE,
    TRIALS,
    outcomes_of,
    write_json,
)
from sincut.ablation.images import TrialImages
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
from sincut.ablation.trials import AblationPlan, Trial
from sincut.compute.memory import memory_in_words
from sincut.compute.processes import ALONE
from sincut.errors import SincutError, one_line
from sincut.files import write_atomically, write_text
from sincut.images.reading.open import read_picture
from sincut.images.reading.source import Pixels
from sincut.images.writing.png import write_png
from sincut.models.model_file import load_generator
from sincut.runs.events import (
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


class Work:
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
        with stoppable() as self.received:
            try:
                left = self.left(trials)
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

    def left(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those of some trials that are not finished, which count as not begun from now on."""
        states = {it.trial.folder: it.status for it in outcomes_of(self.folder, self.plan)}
        for trial in trials:
            run = self.folder / TRIALS / trial.folder
            # Tried again: until then they count as unfinished, for the other processes too.
            (run / FAILURE_FILE).unlink(missing_ok=True)
            if states[trial.folder] == "finished":  # a kill may have come before
                (run / STATE_FILE).unlink(missing_ok=True)
                self.complete(run)
        return [trial for trial in trials if states[trial.folder] != "finished"]

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
