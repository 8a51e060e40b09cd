"""Train the same pair under several settings and seeds, measure every result, show them together.

======================  ============================================================
``ablation.json``       the plan: version, the pair's digests, every trial's configuration
``trials/NAME/``        a run folder each, with ``result.png``, ``thumbnail.png`` for the sheet
                        and ``figures.json``, or with ``failed.json``; its state is deleted when
                        it is measured
``table.csv, table.md`` figures of every trial, mean and spread of every setting
``sheet.png``           content, style and every result, reduced
``index.html``          tables, sheet and curves
======================  ============================================================

Nothing but the folder is shared: several processes, started by ``torchrun`` or by hand with
``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, take every so-many-th trial, and whoever finishes one
writes the tables anew from what is there.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sincut import __version__
from sincut.ablation_page import (
    PAPER_CHANGES,
    PAPER_LAST_LAYER,
    RESULT_FILE,
    SHEET_FILE,
    THUMBNAIL_FILE,
    Outcome,
    Plan,
    Trial,
    csv_table,
    markdown_tables,
    page,
    sheet,
    shown,
    thumbnail,
)
from sincut.checkpoint import STATE_FILE
from sincut.config import TrainConfig, field_of, train_config
from sincut.devices import chosen_device
from sincut.engine import out_of_memory
from sincut.errors import SincutError
from sincut.files.images import Picture, file_digest, write_atomically, write_png
from sincut.files.sources import read_picture
from sincut.finish import translated
from sincut.interruption import stoppable
from sincut.quality import Comparison, Figures
from sincut.recorder import Listener
from sincut.run import train
from sincut.runfolder import RunImage
from sincut.training import resolved
from sincut.translation import load_generator

PLAN_FILE = "ablation.json"
TRIALS = "trials"
FIGURES_FILE = "figures.json"
FAILURE_FILE = "failed.json"
TABLES = ("table.csv", "table.md", SHEET_FILE, "index.html")

_BOTH = "{} is set for all trials and varied with --over, got both; give one of them"

# What --paper sets itself. "All layers" are the base's own, which may be set.
_PAPER_FIELDS = ("lambda_y", "patches", "layers", "negatives")
_PAPER_BASE: dict[str, Any] = {
    "lambda_x": 1.0,
    "lambda_y": 1.0,
    "lambda_identity": 0.0,
    "negatives": "crop",
    "patches": 256,
}
_PAPER_MEASUREMENTS = 10  # of figures on the way, beside that before the first step
# May differ from the plan when an ablation is resumed: they belong to the machine. What is given
# then holds for the trials that are left; each trial's config.json has what it was made with.
_CHANGEABLE = ("device", "record_steps")


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


def ablate(
    content: Path | str,
    style: Path | str,
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
    listener: Listener | None = None,
    **changes: Any,
) -> Ablation:
    """Train every combination of settings on one pair, measure the results, write tables.

    Args:
        content, style: the pair, of sides from 128 pixels.
        output: the folder; made where it does not exist.
        over: for each field of :class:`sincut.config.TrainConfig` (``preset`` and ``method`` too)
            the values to try, as they are or as text; layers as text are joined by ``+``.
        seeds: trials per setting, with the seeds from ``changes["seed"]`` (0) on; 1 by default.
        paper: instead of ``over``, the paper's ablations: a base and one change in it each.
        preset, method, changes: of all trials, as for :func:`sincut.run.train`.
        resume: go on with the ablation in ``output``. Without ``over`` or ``paper`` everything is
            taken from its plan; with them they must agree with it. ``device`` and ``record_steps``
            may be others, for the trials that are left. Failed trials are tried again.
        force: start anew in a folder that holds one.
        dry_run: plan only; nothing is written.
        listener: gets JSON-able records: ``ablation`` with all trials, ``trial``, the records of
            :func:`sincut.run.train` with the key ``trial`` added, ``measured`` or ``failed``.

    Returns:
        All trials, also where some failed: their messages are in the outcomes.

    Raises:
        SincutError: before the work, for what is wrong with settings, images or folder. What goes
            wrong in a trial, memory included, is recorded and the others go on.
    """
    folder = Path(output)
    tell = listener or (lambda _: None)
    processes = _Processes.from_environment()
    _check_folder(folder, resume=resume, force=force, several=processes.count > 1)
    pictures = {name: read_picture(Path(path)) for name, path in _named(content, style)}
    images = {name: _image(Path(path), pictures[name]) for name, path in _named(content, style)}
    comparison = None
    # What another process of the same start has planned already is gone on with.
    former = None if force else _read_plan(folder)
    if resume and not (over or paper):
        assert former is not None
        _refuse_settings(folder, preset, method, seeds, changes)
        _check_pair(folder, former, images)
        plan = former
    else:
        if former is not None and preset is None:
            preset = former.trials[0].config.preset if "preset" not in (over or {}) else None
        plan = _planned(images, over or {}, seeds, paper, preset, method, changes)
    if former is not None:
        _check_pair(folder, former, images)
        _check_same(folder, former, plan)
        plan = former
        if former.version != __version__:
            text = f"it was begun with sincut {former.version}, and this is {__version__}"
            tell({"event": "notice", "about": f"the ablation in {folder}", "text": text})
    elif not dry_run:
        # Refused before anything is written, and not after hours: what cannot be measured.
        comparison = Comparison(pictures["content"].rgb, pictures["style"].rgb)
        if force and folder.exists():
            _remove_former(folder)
        plan = _write_plan(folder, plan, several=processes.count > 1)
    machine = _machine(plan, changes)
    outcomes = _outcomes(folder, plan)
    if dry_run and force:
        outcomes = tuple(Outcome(it.trial, it.folder) for it in outcomes)
    tell(
        {
            "event": "ablation",
            "folder": str(folder),
            "trials": [
                {
                    "trial": it.trial.folder,
                    "setting": it.trial.setting,
                    "seed": it.trial.seed,
                    "status": it.status,
                }
                for it in outcomes
            ],
        }
    )
    if dry_run:
        return Ablation(folder, outcomes)
    processes.choose_gpu(machine["device"])

    work = _Work(folder, plan, Path(content), Path(style), pictures, machine, comparison, tell)
    number = work.run([trial for index, trial in enumerate(plan.trials) if processes.mine(index)])
    return Ablation(folder, _outcomes(folder, plan), number)


def parse_over(texts: Sequence[str]) -> dict[str, list[str]]:
    """``("patches=16,64", …)`` as names and values, for :func:`ablate`."""
    found: dict[str, list[str]] = {}
    for each in texts:
        name, equals, values = each.partition("=")
        if not equals or not all(values.split(",")):
            raise SincutError(
                f"--over must be name=value,value, got {each}; try --over patches=16,64,256"
            )
        if name in found:
            raise SincutError(
                f"--over {name} is given twice; give all its values at once, as in "
                f"--over {name}={','.join([*found[name], values])}"
            )
        found[name] = values.split(",")
    return found


@dataclass(frozen=True)
class _Processes:
    """Which of how many processes this is, and which GPU of its machine is its own."""

    index: int
    count: int
    gpu: int | None

    @classmethod
    def from_environment(cls) -> _Processes:
        """As ``torchrun`` tells it."""
        numbers: dict[str, int] = {}
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            if name in os.environ:
                value = os.environ[name]
                if not (value.isascii() and value.isdigit()):
                    raise SincutError(
                        f"{name} in the environment must be a whole number, got {value!r}; "
                        "start with torchrun, or without it"
                    )
                numbers[name] = int(value)
        index, count = numbers.get("RANK", 0), numbers.get("WORLD_SIZE", 1)
        if index >= count or (count > 1 and "RANK" not in numbers):
            raise SincutError(
                f"RANK in the environment must be below WORLD_SIZE, got "
                f"{numbers.get('RANK', 'none')} and {numbers.get('WORLD_SIZE', 'none')}; "
                "start with torchrun, or without it"
            )
        return cls(index, count, numbers.get("LOCAL_RANK"))

    def mine(self, trial: int) -> bool:
        """Whether a trial of the plan is this process's to do."""
        return trial % self.count == self.index

    def choose_gpu(self, device: str) -> None:
        """Make the process's own GPU the one that ``cuda`` means."""
        if device != "cuda" or self.gpu is None:
            return
        present = torch.cuda.device_count()
        if self.gpu >= present:
            raise SincutError(
                f"LOCAL_RANK in the environment must be below the number of GPUs, {present}, got "
                f"{self.gpu}; try torchrun --nproc-per-node {present}"
            )
        torch.cuda.set_device(self.gpu)


class _Work:
    """What the trials share."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        content: Path,
        style: Path,
        pictures: dict[str, Picture],
        machine: dict[str, Any],
        comparison: Comparison | None,
        tell: Listener,
    ) -> None:
        self.folder, self.plan, self.machine, self.tell = folder, plan, machine, tell
        self.paths = content, style
        self.content, self.style = pictures["content"].rgb, pictures["style"].rgb
        self.comparison = comparison
        self.told: set[tuple[str, str]] = set()  # notices
        self.received: list[int] = []  # signals

    def run(self, trials: Sequence[Trial]) -> int:
        """Do what is not finished of these; returns the signal that stopped it, or 0.

        A signal that comes while a trial trains, in its last step or save too, ends it there: it is
        measured when the ablation is resumed.
        """
        states = {it.trial.folder: it.status for it in _outcomes(self.folder, self.plan)}
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
                if left and self.comparison is None:
                    self.comparison = Comparison(self.content, self.style)
                for number, trial in enumerate(left, start=1):
                    self.tell(
                        {
                            "event": "trial",
                            "trial": trial.folder,
                            "name": trial.name,
                            "number": number,
                            "count": len(left),
                        }
                    )
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
                write_png(run / THUMBNAIL_FILE, thumbnail(read_picture(run / RESULT_FILE).rgb))

    def one(self, trial: Trial) -> None:
        """Train, translate and measure, unless a signal comes; a failure is written down."""
        run = self.folder / TRIALS / trial.folder
        try:
            self.train(trial, run)
            if self.received:
                return
            generator = load_generator(run).to(torch.device(self.machine["device"]))
            pixels = translated(self.content, generator)
            write_png(run / RESULT_FILE, pixels)
            write_png(run / THUMBNAIL_FILE, thumbnail(pixels))
            assert self.comparison is not None
            figures = self.comparison.figures(pixels)
        except (SincutError, RuntimeError, MemoryError) as error:
            if not isinstance(error, SincutError) and not out_of_memory(error):
                raise
            message = _MEMORY_ENDED
            if isinstance(error, SincutError):
                message = _with_names(str(error), run, *self.paths)
            run.mkdir(parents=True, exist_ok=True)  # it may have failed before there was a folder
            _write_json(run / FAILURE_FILE, {"message": message})
            self.tell({"event": "failed", "trial": trial.folder, "message": message})
            return
        _write_json(run / FIGURES_FILE, dataclasses.asdict(figures))
        (run / STATE_FILE).unlink(missing_ok=True)
        self.tell(
            {
                "event": "measured",
                "trial": trial.folder,
                "name": trial.name,
                "figures": dataclasses.asdict(figures),
            }
        )

    def train(self, trial: Trial, run: Path) -> None:
        """From where it was saved, or from the beginning."""
        resume = (run / STATE_FILE).exists()
        if not resume and run.exists():
            shutil.rmtree(run)  # a kill came before the first save
        run.parent.mkdir(exist_ok=True)

        def listen(record: dict[str, Any]) -> None:
            if record["event"] == "notice":
                notice = record["about"], record["text"]
                if notice in self.told:
                    return
                self.told.add(notice)
            self.tell({**record, "trial": trial.folder})

        config = {**trial.config.to_dict(), **self.machine}
        train(*self.paths, run, resume=resume, report=False, listener=listen, **config)

    def write_tables(self) -> None:
        """Tables, sheet and page of what is in the folder.

        Another process may finish a trial meanwhile, and its tables be overwritten by these:
        whoever finds that writes again, so that the last tables are complete.
        """
        outcomes, written = _outcomes(self.folder, self.plan), None
        while outcomes != written:
            with write_atomically(self.folder / "table.csv") as file:
                file.write(csv_table(self.plan, outcomes).encode("utf-8", "replace"))
            with write_atomically(self.folder / "table.md") as file:
                file.write(markdown_tables(self.plan, outcomes).encode())
            picture, _ = sheet(self.content, self.style, self.plan, outcomes)
            write_png(self.folder / SHEET_FILE, picture)
            with write_atomically(self.folder / "index.html") as file:
                file.write(page(self.plan, outcomes).encode())
            written, outcomes = outcomes, _outcomes(self.folder, self.plan)


_MEMORY_ENDED = (
    "memory ended; try smaller values of batch, crop, patches or channels in this setting"
)


# Folders before a name, from the root or the home, as they may stand in a message.
_FOLDERS = re.compile(r"(?<![\w.:/-])~?/(?:[^\s/]+/)+")


def _with_names(message: str, run: Path, content: Path, style: Path) -> str:
    """A message with names instead of places: tables are shown to others.

    Files of the run keep their place inside it.
    """
    names = {run: run.name, content: content.name, style: style.name}
    for path, name in names.items():
        for known in {str(path), str(path.absolute()), str(path.resolve())}:
            place = rf"(?<![\w./-]){re.escape(known)}"
            message = re.sub(rf"{place}/(?=[^\s/])", "", message)
            message = name.join(re.split(rf"{place}(?![\w/-])", message))
    return _FOLDERS.sub("", message)


def _named(content: Path | str, style: Path | str) -> tuple[tuple[str, Path | str], ...]:
    return ("content", content), ("style", style)


def _image(path: Path, picture: Picture) -> RunImage:
    return RunImage(path.name, picture.width, picture.height, file_digest(path))


def _planned(
    images: dict[str, RunImage],
    over: Mapping[str, Sequence[Any]],
    seeds: int | str | None,
    paper: bool,
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
) -> Plan:
    """The trials that were asked for; device and precision may still be ``auto``."""
    count = _seed_count(seeds)
    if paper and over:
        raise SincutError("--paper and --over both say what is varied, got both; give one of them")
    if not paper and not over:
        raise SincutError(
            "nothing is varied; try --over patches=16,64,256, or --paper for the paper's ablations"
        )
    if preset is None and "preset" not in over:
        device = chosen_device(changes.get("device", "auto"))
        preset = "paper" if device == "cuda" else "draft"
    if paper:
        assert preset is not None
        settings = _paper_settings(preset, method, changes)
    else:
        settings = _grid(over, preset, method, changes)
    trials = [
        (setting, config.replaced(seed=config.seed + offset))
        for setting, config in settings
        for offset in range(count)
    ]
    return Plan(
        version=__version__,
        content=images["content"],
        style=images["style"],
        paper=paper,
        fields=_PAPER_FIELDS if paper else tuple(over),
        trials=tuple(
            Trial(_folder_name(number, setting, config.seed), setting, config.seed, config)
            for number, (setting, config) in enumerate(trials, start=1)
        ),
    )


def _seed_count(seeds: int | str | None) -> int:
    try:
        count = 1 if seeds is None else int(seeds)
    except ValueError:
        count = 0
    if count < 1:
        raise SincutError(f"--seeds must be a whole number from 1, got {seeds}; try --seeds 2")
    return count


def _grid(
    over: Mapping[str, Sequence[Any]],
    preset: str | None,
    method: str | None,
    changes: dict[str, Any],
) -> list[tuple[str, TrainConfig]]:
    """All combinations, the last name varied fastest."""
    given = {**changes, "preset": preset, "method": method}
    for name, values in over.items():
        default = field_of(TrainConfig, name).default
        if name == "seed":
            raise SincutError("the seed is varied with --seeds, got --over seed; try --seeds 3")
        if name == "device":
            raise SincutError(
                "the device is no setting to compare, got --over device; try --device"
            )
        if given.get(name) is not None:
            raise SincutError(_BOTH.format(name))
        if isinstance(values, str) or not len(values):
            raise SincutError(
                f"{name} must have a list of values to try, got {values!r}; try "
                f"over={{'{name}': [{default!r}]}}"
            )
    settings: dict[str, TrainConfig] = {}
    for combination in itertools.product(*over.values()):
        chosen: dict[str, Any] = {"preset": preset, "method": method or "sincut", **changes}
        for name, value in zip(over, combination, strict=True):
            of_layers = isinstance(field_of(TrainConfig, name).default, tuple)
            chosen[name] = (
                value.replace("+", ",") if of_layers and isinstance(value, str) else value
            )
        config = train_config(chosen.pop("preset"), chosen.pop("method"), **chosen)
        setting = ", ".join(f"{name}={shown(getattr(config, name))}" for name in over)
        if setting in settings:
            raise SincutError(f"{setting} is asked for twice; give every value once")
        settings[setting] = config
    return list(settings.items())


def _paper_settings(
    preset: str, method: str | None, changes: dict[str, Any]
) -> list[tuple[str, TrainConfig]]:
    """The base and one change in it each.

    What is compared is set here whatever the preset has: ``draft`` has no identity loss and 64
    patches.
    """
    if method not in (None, "cut"):
        raise SincutError(
            f"--paper stands on the method cut, got --method {method}; try without it"
        )
    for name in changes:
        if name in _PAPER_BASE:
            raise SincutError(
                f"--paper sets {name} itself, got {name}={shown(changes[name])}; try without it, "
                f"or --over {name}=… instead of --paper"
            )
    base = train_config(preset, "cut", **{**changes, **_PAPER_BASE})
    if len(base.layers) < 2:
        raise SincutError(
            f"--paper compares all layers with the last one, got layers={shown(base.layers)}; "
            "try --set layers=0,2,4"
        )
    positions = (base.crop // 2**base.downsamplings) ** 2
    if positions < base.patches:
        raise SincutError(
            f"--paper compares up to 255 negatives, and a crop of {base.crop} pixels has "
            f"{positions} positions in G's deeper layers; try --set crop="
            f"{max(16 * 2**base.downsamplings, base.tile)}"
        )
    if "evaluate_every" not in changes:
        base = base.replaced(evaluate_every=max(base.steps // _PAPER_MEASUREMENTS, 1))
    changed = {**PAPER_CHANGES, PAPER_LAST_LAYER: {"layers": base.layers[-1:]}}
    return [(setting, base.replaced(**change)) for setting, change in changed.items()]


def _folder_name(number: int, setting: str, seed: int) -> str:
    """Unique by its number, and short enough for any file system."""
    about = setting.replace(", ", "_").replace(" ", "-")
    return f"{number:02d}_{about[:80]}_seed-{seed}"


def _settled(plan: Plan) -> Plan:
    """The plan with devices and precisions that are ``auto`` found out, once for all trials.

    Each trial by itself could find another precision, and then they could not be compared.
    """
    found: dict[tuple[str, str], TrainConfig] = {}
    trials = []
    for trial in plan.trials:
        wanted = trial.config.device, trial.config.precision
        if wanted not in found:
            found[wanted] = resolved(trial.config)
        config = trial.config.replaced(
            device=found[wanted].device, precision=found[wanted].precision
        )
        trials.append(dataclasses.replace(trial, config=config))
    return dataclasses.replace(plan, trials=tuple(trials))


def _check_folder(folder: Path, *, resume: bool, force: bool, several: bool) -> None:
    """Refuse a folder that holds something else, or what was not asked for."""
    if resume and force:
        raise SincutError("--resume goes on and --force starts anew, got both; give one of them")
    if folder.exists() and not folder.is_dir():
        raise SincutError(f"{folder} is a file, not a folder; give another -o")
    planned = (folder / PLAN_FILE).exists()
    if resume and not planned:
        raise SincutError(
            f"{folder} holds no ablation to resume: it has no {PLAN_FILE}; start one without "
            "--resume"
        )
    if force and several:
        raise SincutError(
            f"several processes cannot start anew in one folder, got --force; remove {folder} "
            "first, or give another -o"
        )
    if planned and not (resume or force or several):
        raise SincutError(
            f"{folder} holds an ablation already; try --resume to go on with it, --force to start "
            "anew, or another -o"
        )
    if folder.exists() and not planned:
        # Another process may be about to write its plan, and a kill may have left a part of one.
        others = [path for path in folder.iterdir() if PLAN_FILE not in path.name]
        if others and not (several and (folder / PLAN_FILE).exists()):
            raise SincutError(f"{folder} is not empty and holds no ablation; give another -o")


def _remove_former(folder: Path) -> None:
    """Remove what an ablation wrote, its plan last, so that a kill leaves it resumable."""
    if (folder / TRIALS).exists():
        shutil.rmtree(folder / TRIALS)
    for name in (*TABLES, PLAN_FILE):
        (folder / name).unlink(missing_ok=True)


def _refuse_settings(
    folder: Path,
    preset: str | None,
    method: str | None,
    seeds: int | str | None,
    changes: dict[str, Any],
) -> None:
    """Without a grid to compare with, settings would be ignored."""
    given = {"preset": preset, "method": method, "seeds": seeds, **changes}
    names = [name for name, value in given.items() if value is not None and name not in _CHANGEABLE]
    if names:
        raise SincutError(
            f"--resume takes its settings from {folder / PLAN_FILE}, unless --over or --paper is "
            f"given again; got {', '.join(names)}; try without"
        )


def _machine(plan: Plan, changes: dict[str, Any]) -> dict[str, Any]:
    """What belongs to the machine and not to the plan, for the trials that are left."""
    first = plan.trials[0].config
    found: dict[str, Any] = {"device": chosen_device(changes.get("device") or first.device)}
    if "record_steps" in changes:
        if "record_steps" in plan.fields:
            raise SincutError(_BOTH.format("record_steps"))
        given = first.replaced(record_steps=changes["record_steps"])
        found["record_steps"] = given.record_steps
    return found


def _check_pair(folder: Path, former: Plan, images: dict[str, RunImage]) -> None:
    for name, image in images.items():
        before: RunImage = getattr(former, name)
        if before.sha256 != image.sha256:
            raise SincutError(
                f"{folder} was made with another {name} image, {before.name} "
                f"({before.width}×{before.height}), got {image.name}; resume with the same files"
            )


def _check_same(folder: Path, former: Plan, wanted: Plan) -> None:
    """Refuse to mix trials of two ablations."""
    advice = "resume with the same settings, or give another -o"
    for before, after in zip(former.trials, wanted.trials, strict=False):
        if before.name != after.name:
            raise SincutError(
                f"{folder} holds other trials: {before.folder} is {before.name} there, got "
                f"{after.name}; {advice}"
            )
        for name in (field.name for field in dataclasses.fields(TrainConfig)):
            old, new = getattr(before.config, name), getattr(after.config, name)
            if old != new and name not in _CHANGEABLE and not (name, new) == ("precision", "auto"):
                raise SincutError(
                    f"{folder} holds trials with {name}={shown(old)}, got {name}={shown(new)}; "
                    f"{advice}"
                )
    if len(former.trials) != len(wanted.trials):
        raise SincutError(
            f"{folder} holds {len(former.trials)} trials, got {len(wanted.trials)}; {advice}"
        )


def _write_plan(folder: Path, plan: Plan, *, several: bool) -> Plan:
    """Write the plan, and return the one that is valid: of several processes the first one's."""
    settled = _settled(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SincutError(f"cannot write to {folder} ({error.strerror}); give another -o") from None
    if not several:
        for leftover in folder.glob(f".{PLAN_FILE}.*.part"):
            leftover.unlink(missing_ok=True)
        _write_json(folder / PLAN_FILE, dataclasses.asdict(settled))
        return settled
    # A link is made only where there is none, and never half.
    mine = folder / f"{PLAN_FILE}.{os.environ['RANK']}"
    _write_json(mine, dataclasses.asdict(settled))
    try:
        with suppress(FileExistsError):
            os.link(mine, folder / PLAN_FILE)
    except OSError as error:
        raise SincutError(
            f"cannot write {folder / PLAN_FILE} ({error.strerror}); several processes need a file "
            "system with hard links; give another -o"
        ) from None
    finally:
        mine.unlink(missing_ok=True)
    valid = _read_plan(folder)
    assert valid is not None
    _check_same(folder, valid, plan)
    return valid


def _read_plan(folder: Path) -> Plan | None:
    """The plan of the folder, if it has one."""
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        plan = Plan(
            version=str(record["version"]),
            content=RunImage(**record["content"]),
            style=RunImage(**record["style"]),
            paper=bool(record["paper"]),
            fields=tuple(record["fields"]),
            trials=tuple(
                Trial(**{**trial, "config": TrainConfig.from_dict(trial["config"])})
                for trial in record["trials"]
            ),
        )
        if not plan.trials:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, SincutError):
        raise SincutError(
            f"{path} is damaged or not of sincut; give another -o, or remove the folder"
        ) from None
    return plan


def _outcomes(folder: Path, plan: Plan) -> tuple[Outcome, ...]:
    """How all trials stand, from what is in the folder."""
    found = []
    for trial in plan.trials:
        run = folder / TRIALS / trial.folder
        try:
            figures, failure = _read_json(run / FIGURES_FILE), _read_json(run / FAILURE_FILE)
            outcome = Outcome(
                trial,
                run,
                Figures(**figures) if figures is not None else None,
                str(failure["message"]) if figures is None and failure is not None else None,
            )
        except (ValueError, TypeError, KeyError):
            raise SincutError(
                f"{FIGURES_FILE} or {FAILURE_FILE} in {run} is damaged; remove that folder, and "
                "its trial is done again"
            ) from None
        found.append(outcome)
    return tuple(found)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def _write_json(path: Path, value: Any) -> None:
    with write_atomically(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
