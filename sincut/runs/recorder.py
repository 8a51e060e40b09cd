"""What a run writes while it goes on: log, previews, figures, checkpoints, pages.

The loop calls :meth:`Recorder.on_step` and knows nothing else. Every file is written beside its
place and renamed, the state before the model, so that whatever happens the folder holds the last
saved point of a run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sincut.compute.devices import environment
from sincut.compute.processes import ALONE, Processes
from sincut.config.training import TrainConfig
from sincut.errors import SincutError
from sincut.files import write_text
from sincut.images.writing.png import write_png
from sincut.models.generator import Generator
from sincut.models.model_file import MODEL_FILE, load_model, save_model
from sincut.runs.events import (
    Listener,
    Measured,
    Noticed,
    Previewed,
    Reported,
    Reporting,
    Stepped,
    View,
)
from sincut.runs.folder import (
    BOARD,
    CARD_FILE,
    CONFIG_FILE,
    IMAGES,
    LIVE_DATA,
    LIVE_PAGE,
    LOG_FILE,
    MASK_FILE,
    PREVIEWS,
    REPORT_FILE,
    damaged_text,
    read_run,
    whole_lines,
)
from sincut.runs.live_page import LiveView
from sincut.runs.model_card import is_own, write_card
from sincut.runs.subject import Subject
from sincut.runs.tensorboard import EventFiles
from sincut.signals import stoppable
from sincut.training.loop import Record
from sincut.training.state import STATE_FILE, State, save_state
from sincut.version import __version__

_WORTH_TELLING = 0.05
BEST_BY = "KID_lite"  # lower is better


class Recorder:
    """The callback of the loop, with what it needs to write.

    Of several processes the first writes; in the others :meth:`on_step` is all that may be called.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        subject: Subject,
        tell: Listener,
        processes: Processes = ALONE,
    ) -> None:
        self.folder, self.config, self.tell = folder, config, tell
        self.subject, self.processes = subject, processes
        self.finished: tuple[int, Generator] | None = None  # at which step
        self.header = {
            "config": config.to_dict(),
            "processes": processes.count,
            **subject.records,
            "origin": "sincut train",
        }
        self.received: list[int] = []  # signals
        self.logged = (0, 0.0)  # step and seconds of the last record
        self.saved = 0  # the step of the last saved state
        self.best: tuple[float, int] | None = None  # figure and step of the model that is kept
        self.waited = 0.0  # share of the time in which steps waited for images
        self.session = 0  # which start or resumption this is
        self.views: list[View] = []  # what shows the run while it goes on

    @property
    def signal(self) -> int:
        """The number of the first signal, or 0."""
        return self.received[0] if self.received else 0

    def open(
        self, state: State, foreseen: tuple[float, float] | None, *, tensorboard: bool
    ) -> None:
        """Make the folder, or bring its log and previews back to where ``state`` is.

        ``foreseen`` holds seconds, to the end and for a step.
        """
        self.logged = state.step, 0.0
        self.saved = state.step
        fresh = state.step == -self.config.warm_steps
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.folder, everything=fresh)
            (self.folder / PREVIEWS).mkdir(exist_ok=True)
        except OSError as error:
            raise SincutError(
                f"cannot write to {self.folder} ({error.strerror}); give another -o"
            ) from None
        sessions = [] if fresh else _sessions(self.folder / CONFIG_FILE)
        self.session = len(sessions)
        if state.step < self.config.steps:
            made_with = environment(self.config.device)
            if self.processes.count > 1:
                made_with["processes"] = self.processes.count
            length = {"start": state.step, "steps": self.config.steps}
            sessions.append({**length, "environment": made_with})
        record = {"sincut_version": __version__, **self.header, "sessions": sessions}
        write_text(self.folder / CONFIG_FILE, json.dumps(record, indent=2) + "\n")
        lines, damaged = ([], 0) if fresh else _log_until(self.folder / LOG_FILE, state.step)
        if damaged:
            self.tell(Noticed(LOG_FILE, damaged_text(damaged)))
        write_text(self.folder / LOG_FILE, "".join(lines))
        for line in map(json.loads, lines):
            self.is_best(line.get("figures", {}), line["step"])
        for step, path in read_run(self.folder).previews:
            if step > state.step:  # of what a kill has undone
                path.unlink(missing_ok=True)
        seconds, of_step = foreseen or (None, None)
        self.live = LiveView(read_run(self.folder), state.step, seconds, seconds_per_step=of_step)
        self.views.append(self.live)
        if tensorboard:
            self.views.append(EventFiles(self.folder / BOARD, None if fresh else state.step + 1))
        if fresh:
            self.save(state)
            if state.step == 0:
                self.preview(state)

    def close(self, state: State, *, report: bool) -> None:
        """Say what the run has come to, finished or interrupted; with a report if it is wanted."""
        outcome = "finished" if state.step == self.config.steps else "interrupted"
        if self.waited > _WORTH_TELLING:
            text = (
                f"steps waited {self.waited:.0%} of the time for them; try --set workers=N or a "
                "larger --set image_memory"
            )
            self.tell(Noticed("the images", text))
        try:
            if not write_card(read_run(self.folder)):
                text = "it was changed by hand and stays; without it a new one is written"
                self.tell(Noticed(CARD_FILE, text))
            if report:
                self.report(state)
        finally:
            for view in self.views:
                view.close(outcome, max(state.step, 0))

    def report(self, state: State) -> None:
        """The report, which the live page then links to.

        Whatever goes wrong here is told and no more: the run is whole without it. Ctrl-C leaves it
        out, and counts as a signal that was received.
        """
        self.live.close("reporting", state.step)
        path = self.folder / REPORT_FILE

        received: list[int] = []

        def on_progress(text: str, done: int, total: int) -> None:
            self.tell(Reporting(text, done, total))

        try:
            if self.best is None:
                step, generator = state.step, copy.deepcopy(self.generator(state))
                generator.brushwork = self.subject.brushwork(self.config)
            else:
                step, generator = self.best[1], load_model(self.folder).generator
            generator.to(self.config.device)
            with stoppable() as received:
                self.subject.write_report(read_run(self.folder), path, generator, step, on_progress)
        except KeyboardInterrupt:
            self.received.append(received[0] if received else signal.SIGINT)
        except Exception as error:
            text = str(error) or type(error).__name__
            self.tell(Noticed("the report, which was not made", text))
        else:
            self.live.report = path.name
            self.tell(Reported(str(path)))

    def abandon(self) -> None:
        """Let go of a run that an error ends, which matters more than what fails here."""
        for view in self.views:
            with suppress(SincutError):
                view.close("stopped", max(self.saved, 0))

    def on_step(self, record: Record) -> bool:
        """Log, preview and save what is due after a step; true after the first signal."""
        step, config = record.step, self.config
        finished = step == config.steps
        interrupted = bool(self.received)
        save_due = step % config.checkpoint_every == 0 or finished or interrupted
        log_due = step % config.log_every == 0 or finished
        if not self.processes.leads:
            if save_due or log_due:
                record.values()  # the first process wants their average
            return interrupted
        if save_due or log_due:
            self.check(record)
        if log_due:
            self.log(record)
        every = config.preview_every
        if step == 0 or finished or (step > 0 and every and step % every == 0):
            self.preview(record.state)
        if config.evaluate_every and step >= 0 and step % config.evaluate_every == 0:
            self.evaluate(record)
        # A signal that comes during a preview is served here, not a step later.
        interrupted = interrupted or bool(self.received)
        if save_due or interrupted:
            self.check(record)
            self.check_networks(record)
            self.save(record.state)
        return interrupted

    def check(self, record: Record) -> None:
        """Refuse to go on with losses that are broken."""
        if not all(math.isfinite(value) for value in record.values().values()):
            raise self.diverged(record, "a loss")

    def check_networks(self, record: Record) -> None:
        """Refuse to save what a step broke whose losses, from before its update, were good."""
        for name, network in record.state.networks().items():
            if not all(bool(each.isfinite().all()) for each in network.parameters()):
                raise self.diverged(record, f"a weight of the {name.replace('_', ' ')}")

    def diverged(self, record: Record, what: str) -> SincutError:
        """The one line for it."""
        return SincutError(
            f"training diverged at step {record.step}: {what} is not finite; the last saved "
            f"state is kept; try --set learning_rate={self.config.learning_rate / 4:g}"
        )

    def log(self, record: Record) -> None:
        """One line in the log, the same to the listener."""
        steps, seconds = record.step - self.logged[0], record.seconds - self.logged[1]
        self.logged = record.step, record.seconds
        self.append(
            Stepped(
                record.step,
                self.session,
                record.steps,
                round(record.seconds, 3),
                round(steps / max(seconds, 1e-6), 3),
                record.learning_rate,
                record.values(),
                round(record.waited, 3),
            )
        )
        self.waited = record.waited / max(record.seconds, 1e-6)

    def evaluate(self, record: Record) -> None:
        """The figures of the translation, in the log and to the listener."""
        generator = self.generator(record.state)
        figures = self.subject.figures(generator)
        if self.is_best(figures, record.step):
            self.save_model(record.state)
        self.append(Measured(record.step, self.session, round(record.seconds, 3), figures))

    def append(self, event: Stepped | Measured) -> None:
        """One more line in the log, shown by the views and told to the listener."""
        line = dataclasses.asdict(event)
        try:
            with open(self.folder / LOG_FILE, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise SincutError(
                f"cannot write {self.folder / LOG_FILE} ({error.strerror}); check the place and "
                "its free space"
            ) from None
        for view in self.views:
            view.record(line)
        self.tell(event)

    def preview(self, state: State) -> None:
        """The translation, reduced, as a PNG."""
        pixels = self.subject.preview(self.generator(state), self.config)
        path = self.folder / PREVIEWS / f"{state.step:06d}.png"
        write_png(path, pixels)
        for view in self.views:
            view.preview(state.step, pixels)
        self.tell(Previewed(state.step, str(path)))

    def save(self, state: State) -> None:
        """The state, then the model."""
        save_state(self.folder / STATE_FILE, state, self.header)
        if self.best is None:
            self.save_model(state)
        self.saved = state.step

    def save_model(self, state: State) -> None:
        """The model as it is now."""
        header = {**self.header, "step": max(state.step, 0)}
        save_model(
            self.folder / MODEL_FILE,
            self.generator(state),
            state.averaged_projector,
            header,
            self.subject.brushwork(self.config),
        )

    def is_best(self, figures: Mapping[str, float], step: int) -> bool:
        """Whether the best model is to be kept, and these are its figures so far."""
        value = figures.get(BEST_BY)
        if value is None or not self.config.keeps_best:
            return False
        if self.best is not None and self.best[0] <= value:
            return False
        self.best = value, step
        return True

    def generator(self, state: State) -> Generator:
        """The generator as it is written and shown, worked out once per step."""
        if self.finished is None or self.finished[0] != state.step:
            self.finished = state.step, self.subject.final(state)
        return self.finished[1]


def _remove_leftovers(folder: Path, *, everything: bool) -> None:
    """Remove what a kill left half written, or everything that a run writes; nothing else."""
    files = [
        MODEL_FILE,
        STATE_FILE,
        CONFIG_FILE,
        LOG_FILE,
        LIVE_PAGE,
        LIVE_DATA,
        CARD_FILE,
        REPORT_FILE,
        *map(MASK_FILE.format, ("content", "style")),
    ]
    leftovers = [path for name in files for path in folder.glob(f".{name}.*.part")]
    leftovers += folder.glob(f"{PREVIEWS}/.[0-9]*.png.*.part")
    leftovers += folder.glob(f"{IMAGES}/.[cs]*.*.part")
    if everything:
        card = folder / CARD_FILE
        leftovers += [folder / name for name in files if folder / name != card or is_own(card)]
        leftovers += folder.glob(f"{PREVIEWS}/[0-9]*.png")
        leftovers += folder.glob(f"{BOARD}/events.out.tfevents.*")
    for path in leftovers:
        path.unlink(missing_ok=True)


def _sessions(path: Path) -> list[dict[str, Any]]:
    """What ``config.json`` has recorded of earlier starts; nothing where it cannot be read."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found


def _log_until(path: Path, step: int) -> tuple[list[str], int]:
    """As :func:`whole_lines`, up to a step."""
    lines, damaged = whole_lines(path)
    return [line for line in lines if json.loads(line)["step"] <= step], damaged
