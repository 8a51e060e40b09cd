"""A run: from two images, or two folders, and settings to a folder, begun, continued or refused.

:mod:`sincut.runs.folder` lists the folder's files, :mod:`sincut.runs.recorder` writes them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sincut.compute.devices import chosen_device
from sincut.compute.memory import memory_in_use, memory_in_words
from sincut.compute.precision import Precision, resolved_with_reason
from sincut.compute.processes import Processes
from sincut.compute.public import public
from sincut.config.presets import (
    DEFAULT_PRESET,
    default_folder_preset,
    folder_config,
    train_config,
)
from sincut.config.training import FolderConfig, PairConfig, TrainConfig, training_config
from sincut.errors import SincutError
from sincut.files import FolderLock, check_folder, make_folder
from sincut.images.identity import is_zarr
from sincut.images.in_memory import ImageFiles, ImageLike
from sincut.models.model_file import fitting, load_tensors
from sincut.runs.estimate import Estimate, fitted, measure
from sincut.runs.events import Done, Estimated, Event, Listener, Live, Noticed, Started, Stopped
from sincut.runs.folder import CONFIG_FILE, IMAGES, LIVE_PAGE, PREVIEWS, described
from sincut.runs.folder_subject import FolderSubject
from sincut.runs.pair_subject import PairSubject
from sincut.runs.recorder import Recorder
from sincut.runs.subject import Subject
from sincut.runs.tensorboard import check_installed
from sincut.signals import signals
from sincut.training.loop import Record
from sincut.training.loop import train as train_loop
from sincut.training.state import STATE_FILE, State, new_state, restored_state
from sincut.version import __version__

# May change when a run is continued; everything else is the run.
CHANGEABLE = ("steps", "device", "precision", "record_steps", "evaluate_every")

Saved = tuple[dict[str, Tensor], dict[str, Any]]  # tensors of a state, and its header


@dataclass(frozen=True)
class RunResult:
    """Where a run stands.

    ``signal`` is the number of the signal that came while it ran, or 0; a run may be finished all
    the same, as one that comes in the last step finds nothing more to interrupt. So many
    ``processes`` shared its steps.
    """

    folder: Path
    step: int
    steps: int
    signal: int = 0
    processes: int = 1


@public
def train(
    content: ImageLike,
    style: ImageLike | None,
    output: Path | str,
    *,
    preset: str | None = None,
    method: str | None = None,
    minutes: float | str | None = None,
    resume: bool = False,
    force: bool = False,
    dry_run: bool = False,
    tensorboard: bool = False,
    report: bool = True,
    skip_bad: bool = False,
    held_out: tuple[Path | str, Path | str] | None = None,
    listener: Listener | None = None,
    processes: Processes | None = None,
    **changes: Any,
) -> RunResult:
    """Train on one pair of images, or on two folders of them, and write a run folder.

    Args:
        content: the image whose structure stays: a file, a PIL image, or a uint8 or uint16 array
            (H, W, 3), (H, W, 4) or (H, W), of which a copy is kept in the run folder; or a folder
            of such files.
        style: the image whose look it gets; or a folder. ``None`` where ``content`` is a folder
            that holds both, as ``trainA`` and ``trainB`` (or ``train_A``, ``A``, …).
        output: the run folder; made where it does not exist.
        preset: of a pair ``paper`` by default where there is CUDA, else ``draft``; of folders
            ``cut``, or ``cut-small`` without CUDA.
        method: ``sincut``, ``cut`` or ``fastcut``; on folders one of the last two.
        minutes: choose ``steps`` so that the run, from this call to its end, takes so long on this
            machine; the number found is recorded like any other.
        resume: continue the run in ``output``; ``steps`` may be larger than before.
        force: start anew in a folder that holds a run.
        dry_run: only tell what it would take; write nothing.
        report: write :mod:`sincut.runs.report`'s page into the folder when the run is finished. A
            report that fails is a notice, and the run is whole without it.
        tensorboard: write event files for TensorBoard as well; takes the extra ``logging``.
        skip_bad: leave out images of folders that cannot be read.
        held_out: two folders of images that are not trained on, for previews and figures; ``testA``
            and ``testB`` by default, where they stand beside ``trainA`` and ``trainB``.
        listener: gets everything worth telling, as :mod:`sincut.runs.events` has it.
        processes: which share every step, each with ``batch`` crops; the first writes and tells.
            By default those that ``torchrun`` tells of.
        changes: fields of :class:`sincut.config.training.PairConfig`, or of
            :class:`sincut.config.training.FolderConfig`.

    Raises:
        SincutError: anything the caller can mend; nothing has been written then, or the last
            saved point is intact.
    """
    folder, started = Path(output), time.monotonic()
    processes = processes or Processes.from_environment()
    tell: Listener = listener if listener and processes.leads else lambda _: None
    joined = processes.joined(str(changes.get("device", "auto")))
    with memory_in_words(), joined, closing(FolderLock()) as lock, ImageFiles() as images:
        content = Path(images.file("content", content))
        style = None if style is None else Path(images.file("style", style))
        of_folders = style is None or (content.is_dir() and not is_zarr(content))
        processes.by_first(lambda: lock.take(folder))
        budget, saved = processes.by_all(
            lambda: _looked_up(folder, minutes, resume, force, tensorboard, changes)
        )
        config, precision = processes.by_first(
            lambda: _settled(saved, preset, method, changes, of_folders, processes)
        )
        notices: list[Event] = _about_processes(config, processes)
        subject, config = processes.by_all(
            lambda: _subject(content, style, config, notices.append, held_out, skip_bad, processes)
        )
        estimate = None
        if budget is not None:
            estimate = measure(subject, config, processes)
            left, keep_warm = budget - (time.monotonic() - started), "warm_steps" in changes
            reserved = subject.report_seconds(estimate.preview, config) if report else 0.0
            fit = partial(fitted, config, estimate, left, keep_warm=keep_warm, reserved=reserved)
            config = processes.by_first(fit)
        for event in (_started(config, preset, resume, precision), *notices):
            tell(event)
        state = processes.by_all(lambda: _begun(folder, subject, config, saved, tell))
        run = Recorder(folder, config, subject, tell, processes)
        foreseen = _estimated(subject, config, estimate, state.step, tell, processes, report)
        if dry_run:
            return RunResult(folder, state.step, config.steps, processes=processes.count)
        made = partial(_made, folder, lock, again=resume or force)
        state = _run(run, state, foreseen, made, images, resume=resume, tensorboard=tensorboard)
    finished = state.step == config.steps
    if processes.leads:
        run.close(state, report=report and finished and not run.received)
    tell((Done if finished else Stopped)(str(folder), state.step, config.steps))
    return RunResult(folder, state.step, config.steps, run.signal, processes.count)


def _looked_up(
    folder: Path,
    minutes: float | str | None,
    resume: bool,
    force: bool,
    tensorboard: bool,
    changes: dict[str, Any],
) -> tuple[float | None, Saved | None]:
    """The budget of time and the saved state, where there are such; what does not go is refused."""
    budget = _budget(minutes, resume, changes)
    if tensorboard:
        check_installed()
    if resume and force:
        raise SincutError("--resume goes on and --force starts anew; give one of them")
    if resume:
        return budget, _saved_state(folder)
    _check_folder(folder, force)
    return budget, None


def _made(folder: Path, lock: FolderLock, *, again: bool) -> None:
    """The run's folder, held. What another program has made of it since it was looked at counts."""
    make_folder(folder)
    lock.take(folder)
    if not again:
        _check_folder(folder, force=False)


def _settled(
    saved: Saved | None,
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
    of_folders: bool,
    processes: Processes,
) -> tuple[TrainConfig, Precision]:
    """The configuration of this machine, new or that of the run, and why its precision."""
    if saved is None:
        config = _fresh_config(preset, method, changes, of_folders=of_folders)
    else:
        config = _resumed_config(saved[1], preset, method, changes, processes)
    return resolved_with_reason(config)


def _about_processes(config: TrainConfig, processes: Processes) -> list[Event]:
    """What to know of a training in several."""
    if processes.count == 1:
        return []
    batch = _batch(config)
    text = f"{batch} for each of {processes.count} processes, {batch * processes.count} in all"
    told: list[Event] = [Noticed("the batch of a step", text)]
    if config.device == "cuda" and config.record_steps:
        text = "those of several processes are not, so every kernel is issued by itself"
        told.append(Noticed("recording steps", text))
    return told


def _subject(
    content: Path,
    style: Path | None,
    config: TrainConfig,
    tell: Listener,
    held_out: tuple[Path | str, Path | str] | None,
    skip_bad: bool,
    processes: Processes,
) -> tuple[Subject, TrainConfig]:
    """The images as they are told of, and the configuration with the length that they give it."""
    subject: Subject
    if isinstance(config, FolderConfig):
        subject = folders = FolderSubject.read(
            content, style, held_out, tell, skip_bad=skip_bad, images=config
        )
        config = folders.with_length(config, processes.count)
    else:
        refuse_folder_options(skip_bad=skip_bad, held_out=held_out is not None)
        assert isinstance(config, PairConfig)
        if style is None:
            raise SincutError(
                f"a run of a pair takes two images, got {content} alone; give the style as well"
            )
        subject = PairSubject.read(content, style, tell, config)
    if config.evaluate_every and processes.leads:
        subject.prepare_figures()
    return subject, config


def _begun(
    folder: Path,
    subject: Subject,
    config: TrainConfig,
    saved: Saved | None,
    tell: Listener,
) -> State:
    """A new state, or the saved one, with which the images and the length must agree."""
    if saved is None:
        return new_state(subject.data, config)
    tensors, header = saved
    _check_images(folder, header, subject.records)
    with fitting(folder / STATE_FILE, header):
        state = restored_state(tensors, header["step"], config)
    if config.steps < state.step:
        raise SincutError(
            f"the run has done {state.step} steps already, got --steps {config.steps}; "
            f"try --steps {2 * state.step}"
        )
    if config.steps != header["config"]["steps"] and config.schedule != "constant":
        text = f"its schedule ({config.schedule}) is now that of {config.steps} steps"
        tell(Noticed("the learning rate", text))
    return state


def _estimated(
    subject: Subject,
    config: TrainConfig,
    estimate: Estimate | None,
    done: int,
    tell: Listener,
    processes: Processes,
    report: bool,
) -> tuple[float, float] | None:
    """What is foreseen, told, where there are steps to do; measured where it was not before."""
    if done == config.steps:
        return None
    estimate = estimate or measure(subject, config, processes)
    foreseen = _foreseen(subject, config, estimate, done, report=report)
    tell(Estimated(*foreseen, _peak_bytes(subject, config, estimate, report=report)))
    return foreseen


def _foreseen(
    subject: Subject, config: TrainConfig, estimate: Estimate, done: int, *, report: bool
) -> tuple[float, float]:
    """Seconds to the end of the run, and of a step."""
    seconds = estimate.seconds(config, done)
    if report:
        seconds += subject.report_seconds(estimate.preview, config)
    return seconds, estimate.step(config)


def _peak_bytes(subject: Subject, config: TrainConfig, estimate: Estimate, *, report: bool) -> int:
    """Of the device; on a CPU of the process, whose report comes on top of what it holds then."""
    if config.device == "cuda" or not report:
        return estimate.peak_bytes
    return max(estimate.peak_bytes, memory_in_use() + subject.report_bytes())


def _run(
    run: Recorder,
    state: State,
    foreseen: tuple[float, float] | None,
    made: Callable[[], None],
    images: ImageFiles,
    *,
    resume: bool,
    tensorboard: bool,
) -> State:
    """Train to the end, or until a signal comes; the state after the last step.

    ``made`` sees to the run's folder.
    """
    config, processes = run.config, run.processes

    def begin() -> None:
        made()
        run.open(state, foreseen, tensorboard=tensorboard)
        images.keep(run.folder / IMAGES)
        run.subject.keep(run.folder)
        if resume:
            # A kill may have come between state and model, and the length may be a new one.
            run.save(state)

    def about_recording(text: str) -> None:
        run.tell(Noticed("recording steps", text))

    def on_step(record: Record) -> bool:
        stop = processes.by_all(lambda: run.on_step(record))
        # What one of several processes received, all take note of after the same step.
        (number,) = processes.largest(received[0] if received else 0)
        if number and not run.received:
            run.received.append(number)
        return stop

    try:
        processes.by_first(begin)
        if state.step < config.steps:
            run.tell(Live(str(run.folder / LIVE_PAGE)))
            with signals() as received:
                if processes.count == 1:
                    run.received = received
                data = run.subject.data
                state = train_loop(data, config, on_step, state, about_recording, processes)
    except BaseException:
        run.abandon()
        raise
    return state


def _fresh_config(
    preset: str | None, method: str | None, changes: dict[str, Any], *, of_folders: bool
) -> TrainConfig:
    device = chosen_device(changes.get("device", "auto"))
    if of_folders:
        return folder_config(preset or default_folder_preset(device, method), method, **changes)
    return train_config(preset or DEFAULT_PRESET, method or "sincut", **changes)


def refuse_folder_options(**given: bool) -> None:
    """Refuse options that a pair has no use for, by name and whether they are given."""
    for name, is_given in given.items():
        if is_given:
            raise SincutError(
                f"--{name.replace('_', '-')} is for two folders of images, got a pair; try without"
            )


def _saved_state(folder: Path) -> Saved:
    """The tensors and the header of the run's saved state."""
    if not (folder / STATE_FILE).is_file():
        raise SincutError(
            f"{folder} holds no run to resume: it has no {STATE_FILE}; start one without --resume"
        )
    return load_tensors(folder / STATE_FILE, "sincut-state")


def _resumed_config(
    header: dict[str, Any],
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
    processes: Processes,
) -> TrainConfig:
    """The saved configuration with what may change changed.

    How many processes share a batch may change, and with that the batch of each.
    """
    saved = training_config(header["config"])
    asked = {**changes}
    if preset is not None:
        asked["preset"] = preset
    if method is not None:
        asked["method"] = method
    wanted = saved.replaced(**asked)
    for name in asked:
        before, after = getattr(saved, name), getattr(wanted, name)
        if before != after and name not in (*CHANGEABLE, "batch"):
            raise SincutError(
                f"--resume goes on with the run's own {name}, {before}, got {after}; allowed to "
                f"change: {', '.join(CHANGEABLE)}; try without it"
            )
    count = header.get("processes", 1)
    whole, now = count * _batch(saved), processes.count * _batch(wanted)
    if now != whole:
        share, rest = divmod(whole, processes.count)
        hint = f"torchrun --nproc-per-node {count}" if rest else f"--set batch={share}"
        raise SincutError(
            f"--resume goes on with the run's own batch, {whole} a step in all "
            f"({count} × {_batch(saved)}, processes × batch), got {now} ({processes.count} × "
            f"{_batch(wanted)}); try {hint}"
        )
    return wanted


def _batch(config: TrainConfig) -> int:
    """Of each process: pairs and folders have fields of their own for it."""
    batch: int = config.to_dict()["batch"]
    return batch


def _started(
    config: TrainConfig, preset: str | None, resume: bool, precision: Precision
) -> Started:
    why = "as asked" if preset else ("of the run" if resume else f"the default on {config.device}")
    return Started(__version__, why, precision.why, config.to_dict())


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
    check_folder(folder)
    if not folder.exists():
        return
    can_resume = (folder / STATE_FILE).exists()
    is_run = can_resume or (folder / CONFIG_FILE).exists()
    if is_run and not force:
        resume = "--resume to continue it, " if can_resume else ""
        raise SincutError(
            f"{folder} holds a run already; try {resume}--force to start anew, or another -o"
        )
    if not is_run and not all(map(_is_begun, folder.iterdir())):
        raise SincutError(f"{folder} is not empty and holds no run; give another -o")


def _is_begun(path: Path) -> bool:
    """Whether a run whose first files could not be written has left it."""
    if path.name == PREVIEWS:
        return path.is_dir() and not any(path.iterdir())
    return path.name.startswith(".") and path.suffix == ".part"


def _check_images(folder: Path, header: dict[str, Any], images: Mapping[str, Any]) -> None:
    for name, image in images.items():
        before = header[name]
        if image["sha256"] != before["sha256"]:
            kind = "image" if "width" in before else "folder"
            raise SincutError(
                f"{folder} was trained with another {name} {kind}, {described(before)}, got "
                f"{image['name']}; resume with the same files"
            )
