"""A run folder: drives the loop and does on the way what has to be written.

:mod:`sincut.runfolder` lists the files. Every one is written beside its place and renamed, the
state before the model, so that whatever happens the folder holds the last saved point of a run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sincut import __version__
from sincut.board import Board, check_installed
from sincut.card import is_own, write_card
from sincut.checkpoint import (
    MODEL_FILE,
    STATE_FILE,
    State,
    load_tensors,
    restored_state,
    save_model,
    save_state,
)
from sincut.config import TrainConfig, train_config
from sincut.devices import chosen_device, environment
from sincut.errors import SincutError
from sincut.files.images import Picture, Pixels, file_digest, write_atomically, write_png
from sincut.files.sources import read_picture
from sincut.finish import finished, reduced, translated
from sincut.interruption import signals
from sincut.live import LiveView
from sincut.networks import Generator
from sincut.pace import Pace, fitted, measure
from sincut.quality import Comparison
from sincut.reporting import expected_seconds, write_report
from sincut.runfolder import (
    BOARD,
    CARD_FILE,
    CONFIG_FILE,
    LIVE_DATA,
    LIVE_PAGE,
    LOG_FILE,
    PREVIEWS,
    REPORT_FILE,
    read_run,
    whole_lines,
)
from sincut.training import Record, new_state, resolved
from sincut.training import train as train_loop

# May change when a run is continued; everything else is the run.
CHANGEABLE = ("steps", "device", "precision", "record_steps", "evaluate_every")

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RunResult:
    """Where a run stands: ``signal`` is the number of the signal that interrupted it, or 0."""

    folder: Path
    step: int
    steps: int
    signal: int = 0


def train(
    content: Path | str,
    style: Path | str,
    output: Path | str,
    *,
    preset: str | None = None,
    method: str | None = None,
    minutes: float | str | None = None,
    resume: bool = False,
    force: bool = False,
    tensorboard: bool = False,
    report: bool = True,
    listener: Listener | None = None,
    **changes: Any,
) -> RunResult:
    """Train on one pair of image files and write a run folder.

    Args:
        content: the image whose structure stays.
        style: the image whose look it gets.
        output: the run folder; made where it does not exist.
        preset: ``paper`` by default where there is CUDA, else ``draft``.
        method: ``sincut``, ``cut`` or ``fastcut``.
        minutes: choose ``steps`` so that the run, from this call to its end, takes so long on this
            machine; the number found is recorded like any other.
        resume: continue the run in ``output``; ``steps`` may be larger than before.
        force: start anew in a folder that holds a run.
        report: write :mod:`sincut.reporting`'s page into the folder when the run is finished.
        tensorboard: write event files for TensorBoard as well; takes the extra ``logging``.
        listener: gets a JSON-able record of everything worth telling: ``start``, ``estimate``,
            ``live``, ``step``, ``preview``, ``figures``, ``report``, ``notice``, ``done`` or
            ``interrupted``, under the key ``event``.
        changes: fields of :class:`sincut.config.TrainConfig`.

    Raises:
        SincutError: anything the caller can mend; nothing has been written then, or the last
            saved point is intact.
    """
    started = time.monotonic()
    folder = Path(output)
    tell = listener or (lambda _: None)
    budget = _budget(minutes, resume, changes)
    if tensorboard:
        check_installed()
    paths = {"content": Path(content), "style": Path(style)}
    if resume:
        tensors, header = _saved_state(folder)
        config = _resumed_config(header, preset, method, changes)
    else:
        _check_folder(folder, force)
        config = _fresh_config(preset, method, changes)
    config = resolved(config)
    if budget is None:
        tell(_start_record(config, preset, resume))

    pictures = {name: read_picture(path) for name, path in paths.items()}
    for name, picture in pictures.items():
        for notice in picture.notices:
            tell({"event": "notice", "about": f"the {name} image", "text": notice})
    content_pixels, style_pixels = pictures["content"].rgb, pictures["style"].rgb
    comparison = Comparison(content_pixels, style_pixels) if config.evaluate_every else None
    pace = None
    if budget is not None:
        pace = measure(content_pixels, style_pixels, config, comparison)
        left = budget - (time.monotonic() - started)
        if report:
            left -= expected_seconds(content_pixels, style_pixels)
        config = fitted(config, pace, left, keep_warm="warm_steps" in changes)
        tell(_start_record(config, preset, resume))
    images = {name: _describe(paths[name], pictures[name]) for name in paths}
    if resume:
        _check_images(folder, header, images)
        state = restored_state(tensors, header["step"], config)
        if config.steps < state.step:
            raise SincutError(
                f"the run has done {state.step} steps already, got --steps {config.steps}; "
                f"try --steps {2 * state.step}"
            )
        if config.steps != header["config"]["steps"] and config.schedule != "constant":
            text = f"its schedule ({config.schedule}) is now that of {config.steps} steps"
            tell({"event": "notice", "about": "the learning rate", "text": text})
    else:
        state = new_state(content_pixels, style_pixels, config)

    run = _Run(folder, config, images, (content_pixels, style_pixels), comparison, tell)
    foreseen = None
    if state.step < config.steps:
        pace = pace or measure(content_pixels, style_pixels, config, comparison)
        foreseen = pace.seconds(config, state.step)
        if report:
            foreseen += expected_seconds(content_pixels, style_pixels)
        tell(_estimate_record(pace, config, foreseen))
    try:
        run.open(state, foreseen, tensorboard=tensorboard)
        if resume:
            # A kill may have come between state and model, and the length may be a new one.
            run.save(state)
        if state.step < config.steps:
            tell({"event": "live", "path": str(folder / LIVE_PAGE)})
            with signals() as received:
                run.received = received
                state = train_loop(content_pixels, style_pixels, config, run.on_step, state)
    except BaseException:
        run.abandon()
        raise
    interrupted = state.step < config.steps
    if interrupted or not report:
        run.close("interrupted" if interrupted else "finished")
    else:
        run.close("finished", report_of=state)
    tell(
        {
            "event": "interrupted" if interrupted else "done",
            "folder": str(folder),
            "step": state.step,
            "steps": config.steps,
        }
    )
    return RunResult(folder, state.step, config.steps, run.received[0] if interrupted else 0)


class _Run:
    """The callback of the loop, with what it needs to write."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        images: dict[str, Any],
        pair: tuple[Pixels, Pixels],
        comparison: Comparison | None,
        tell: Listener,
    ) -> None:
        self.folder, self.config, self.tell = folder, config, tell
        self.pair, self.comparison = pair, comparison
        self.finished: tuple[int, Generator] | None = None  # at which step
        self.header = {"config": config.to_dict(), **images, "origin": "sincut train"}
        self.received: list[int] = []  # signals
        self.logged = (0, 0.0)  # step and seconds of the last record
        self.views: list[LiveView | Board] = []  # what shows the run while it goes on

    def open(self, state: State, foreseen: float | None, *, tensorboard: bool) -> None:
        """Make the folder, or bring its log back to where ``state`` is."""
        self.logged = state.step, 0.0
        fresh = state.step == -self.config.warm_steps
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.folder, everything=fresh)
            (self.folder / PREVIEWS).mkdir(exist_ok=True)
        except OSError as error:
            raise SincutError(
                f"cannot write to {self.folder} ({error.strerror}); give another -o"
            ) from None
        made_with = environment(self.config.device)
        record = {"sincut_version": __version__, **self.header, "environment": made_with}
        _write_text(self.folder / CONFIG_FILE, json.dumps(record, indent=2) + "\n")
        lines = [] if fresh else _log_until(self.folder / LOG_FILE, state.step)
        _write_text(self.folder / LOG_FILE, "".join(lines))
        self.live = LiveView(read_run(self.folder), state.step, foreseen)
        self.views.append(self.live)
        if tensorboard:
            self.views.append(Board(self.folder / BOARD, None if fresh else state.step + 1))
        if fresh:
            self.save(state)
            if state.step == 0:
                self.preview(state)

    def close(self, outcome: str, report_of: State | None = None) -> None:
        """Say what the run has come to: ``finished`` or ``interrupted``; with a report of it."""
        if not write_card(read_run(self.folder)):
            text = "it was changed by hand and stays; without it a new one is written"
            self.tell({"event": "notice", "about": CARD_FILE, "text": text})
        try:
            if report_of is not None:
                self.report(report_of)
        finally:
            for view in self.views:
                view.close(outcome)

    def report(self, state: State) -> None:
        """The report, which the live page then links to; without it the run is still whole."""
        self.live.close("reporting")
        path = self.folder / REPORT_FILE
        try:
            write_report(read_run(self.folder), path, self.generator(state), *self.pair)
        except SincutError as error:
            self.tell({"event": "notice", "about": "the report", "text": str(error)})
            return
        self.live.report = path.name
        self.tell({"event": "report", "path": str(path)})

    def abandon(self) -> None:
        """Let go of a run that an error ends, which matters more than what fails here."""
        for view in self.views:
            with suppress(SincutError):
                view.close("stopped")

    def on_step(self, record: Record) -> bool:
        """Log, preview and save what is due after a step; true after the first signal."""
        step, config = record.step, self.config
        finished = step == config.steps
        interrupted = bool(self.received)
        save_due = step % config.checkpoint_every == 0 or finished or interrupted
        log_due = step % config.log_every == 0 or finished
        if save_due or log_due:
            self.check(record)
        if log_due:
            self.log(record)
        every = config.preview_every
        if step == 0 or finished or (step > 0 and every and step % every == 0):
            self.preview(record.state)
        if self.comparison and step >= 0 and step % config.evaluate_every == 0:
            self.evaluate(record, self.comparison)
        # A signal that comes during a preview is served here, not a step later.
        interrupted = interrupted or bool(self.received)
        if save_due or interrupted:
            self.check(record)
            self.save(record.state)
        return interrupted

    def check(self, record: Record) -> None:
        """Refuse to go on with, and to save, numbers that are broken."""
        if not all(math.isfinite(value) for value in record.values().values()):
            raise SincutError(
                f"training diverged at step {record.step}: a loss is not finite; the last saved "
                f"state is kept; try --set learning_rate={self.config.learning_rate / 4:g}"
            )

    def log(self, record: Record) -> None:
        """One line in the log, the same to the listener."""
        steps, seconds = record.step - self.logged[0], record.seconds - self.logged[1]
        self.logged = record.step, record.seconds
        line = {
            "step": record.step,
            "steps": record.steps,
            "seconds": round(record.seconds, 3),
            "steps_per_second": round(steps / max(seconds, 1e-6), 3),
            "learning_rate": record.learning_rate,
            "losses": record.values(),
        }
        self.append(line)
        self.tell({"event": "step", **line})

    def evaluate(self, record: Record, comparison: Comparison) -> None:
        """The figures of the content translated at its own size, in the log and to the listener."""
        figures = dataclasses.asdict(
            comparison.figures(translated(self.pair[0], self.generator(record.state)))
        )
        line = {"step": record.step, "seconds": round(record.seconds, 3), "figures": figures}
        self.append(line)
        self.tell({"event": "figures", **line})

    def append(self, line: dict[str, Any]) -> None:
        """One more line in the log."""
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

    def preview(self, state: State) -> None:
        """The content at most ``preview_width`` wide, translated, as a PNG."""
        pixels = reduced(self.pair[0], self.config.preview_width, self.generator(state))
        path = self.folder / PREVIEWS / f"{state.step:06d}.png"
        write_png(path, pixels)
        for view in self.views:
            view.preview(state.step, pixels)
        self.tell({"event": "preview", "step": state.step, "path": str(path)})

    def save(self, state: State) -> None:
        """The state, then the model."""
        save_state(self.folder / STATE_FILE, state, self.header)
        header = {**self.header, "step": max(state.step, 0)}
        save_model(
            self.folder / MODEL_FILE, self.generator(state), state.averaged_projector, header
        )

    def generator(self, state: State) -> Generator:
        """The generator as it is written and shown, worked out once per step."""
        if self.finished is None or self.finished[0] != state.step:
            self.finished = state.step, finished(state, *self.pair, self.config)
        return self.finished[1]


def _fresh_config(preset: str | None, method: str | None, changes: dict[str, Any]) -> TrainConfig:
    if preset is None:
        device = chosen_device(changes.get("device", "auto"))
        preset = "paper" if device == "cuda" else "draft"
    return train_config(preset, method or "sincut", **changes)


def _saved_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of the run's saved state."""
    if not (folder / STATE_FILE).is_file():
        raise SincutError(
            f"{folder} holds no run to resume: it has no {STATE_FILE}; start one without --resume"
        )
    return load_tensors(folder / STATE_FILE, "sincut-state")


def _resumed_config(
    header: dict[str, Any], preset: str | None, method: str | None, changes: dict[str, Any]
) -> TrainConfig:
    """The saved configuration with what may change changed."""
    saved = TrainConfig.from_dict(header["config"])
    asked = {**changes}
    if preset is not None:
        asked["preset"] = preset
    if method is not None:
        asked["method"] = method
    wanted = saved.replaced(**asked)
    for name in asked:
        before, after = getattr(saved, name), getattr(wanted, name)
        if before != after and name not in CHANGEABLE:
            raise SincutError(
                f"--resume goes on with the run's own {name}, {before}, got {after}; allowed to "
                f"change: {', '.join(CHANGEABLE)}; try without it"
            )
    return wanted


def _start_record(config: TrainConfig, preset: str | None, resume: bool) -> dict[str, Any]:
    why = "as asked" if preset else ("of the run" if resume else f"the default on {config.device}")
    return {"event": "start", "version": __version__, "why": why, "config": config.to_dict()}


def _estimate_record(pace: Pace, config: TrainConfig, seconds: float) -> dict[str, Any]:
    return {
        "event": "estimate",
        "seconds": seconds,
        "seconds_per_step": pace.step(config),
        "peak_bytes": pace.peak_bytes,
    }


def _budget(minutes: float | str | None, resume: bool, changes: dict[str, Any]) -> float | None:
    """``minutes`` in seconds, if they are given."""
    if minutes is None:
        return None
    try:
        seconds = 60 * float(minutes)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise SincutError(f"--minutes must be a number above 0, got {minutes}; try --minutes 5")
    if resume:
        raise SincutError(
            "--minutes fits the length of a new run, and --resume keeps that of the old one; "
            "try --resume without it, with --steps to extend the run"
        )
    if "steps" in changes:
        raise SincutError(
            f"--minutes and --steps both set the length, got {minutes} and {changes['steps']}; "
            "give one of them"
        )
    return seconds


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise SincutError(f"{folder} is a file, not a folder; give another -o")
    if not folder.exists():
        return
    can_resume = (folder / STATE_FILE).exists()
    is_run = can_resume or (folder / CONFIG_FILE).exists()
    if is_run and not force:
        resume = "--resume to continue it, " if can_resume else ""
        raise SincutError(
            f"{folder} holds a run already; try {resume}--force to start anew, or another -o"
        )
    if not is_run and any(folder.iterdir()):
        raise SincutError(f"{folder} is not empty and holds no run; give another -o")


def _check_images(folder: Path, header: dict[str, Any], images: dict[str, Any]) -> None:
    for name, image in images.items():
        if image["sha256"] != header[name]["sha256"]:
            raise SincutError(
                f"{folder} was trained with another {name} image, {header[name]['name']} "
                f"({header[name]['width']}×{header[name]['height']}), got {image['name']}; "
                "resume with the same files"
            )


def _describe(path: Path, picture: Picture) -> dict[str, Any]:
    return {
        "name": path.name,
        "width": picture.width,
        "height": picture.height,
        "sha256": file_digest(path),
    }


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
    ]
    leftovers = [path for name in files for path in folder.glob(f".{name}.*.part")]
    leftovers += folder.glob(f"{PREVIEWS}/.[0-9]*.png.*.part")
    if everything:
        card = folder / CARD_FILE
        leftovers += [folder / name for name in files if folder / name != card or is_own(card)]
        leftovers += folder.glob(f"{PREVIEWS}/[0-9]*.png")
        leftovers += folder.glob(f"{BOARD}/events.out.tfevents.*")
    for path in leftovers:
        path.unlink(missing_ok=True)


def _log_until(path: Path, step: int) -> list[str]:
    """The log's lines up to a step; what a power cut left of a line is dropped."""
    return [line for line in whole_lines(path) if json.loads(line)["step"] <= step]


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())
