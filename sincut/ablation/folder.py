"""An ablation's folder: its plan, what is finished in it, and whether it may be gone on with.

:mod:`sincut.ablation.ablate` lists the files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sincut.ablation.kinds import kind_of
from sincut.ablation.page import SHEET_FILE
from sincut.ablation.trials import BOTH, AblationPlan, Outcome, Trial, resolved_plan, shown
from sincut.compute.devices import chosen_device
from sincut.config.training import training_config
from sincut.errors import SincutError
from sincut.files import check_folder as check_place
from sincut.files import make_folder, write_text
from sincut.runs.folder import RunFolder, RunImage, described

PLAN_FILE = "ablation.json"
_IMAGES = ("content", "style", "held-out content", "held-out style")
TRIALS = "trials"
FIGURES_FILE = "figures.json"
FAILURE_FILE = "failed.json"
TRACEBACK_FILE = "traceback.txt"
TABLES = ("table.csv", "table.md", SHEET_FILE, "index.html")
# May differ from the plan when an ablation is resumed: they belong to the machine. What is given
# then holds for the trials that are left; each trial's config.json has what it was made with.
_CHANGEABLE = ("device", "record_steps")


def check_folder(folder: Path, *, resume: bool, force: bool, several: bool) -> None:
    """Refuse a folder that holds something else, or what was not asked for."""
    if resume and force:
        raise SincutError("--resume goes on and --force starts anew, got both; give one of them")
    check_place(folder)
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


def remove_former(folder: Path) -> None:
    """Remove what an ablation wrote, its plan last, so that a kill leaves it resumable."""
    if (folder / TRIALS).exists():
        shutil.rmtree(folder / TRIALS)
    for name in (*TABLES, PLAN_FILE):
        (folder / name).unlink(missing_ok=True)


def refuse_settings(
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


def machine_of(plan: AblationPlan, changes: dict[str, Any]) -> dict[str, Any]:
    """What belongs to the machine and not to the plan, for the trials that are left."""
    first = plan.trials[0].config
    found: dict[str, Any] = {"device": chosen_device(changes.get("device") or first.device)}
    if "record_steps" in changes:
        if "record_steps" in plan.fields:
            raise SincutError(BOTH.format("record_steps"))
        given = first.replaced(record_steps=changes["record_steps"])
        found["record_steps"] = given.record_steps
    return found


def check_images(
    folder: Path, former: AblationPlan, images: Mapping[str, RunImage | RunFolder]
) -> None:
    """Refuse other images than those that the ablation was begun with."""
    for name, before in former.images.items():
        image = images.get(name)
        if image is None or before.sha256 != image.sha256:
            kind = "image" if isinstance(before, RunImage) else "folder"
            got = "two images" if image is None else image.name
            raise SincutError(
                f"{folder} was made with another {name} {kind}, "
                f"{described(dataclasses.asdict(before))}, got {got}; resume with the same files"
            )


def check_same(folder: Path, former: AblationPlan, wanted: AblationPlan) -> None:
    """Refuse to mix trials of two ablations."""
    advice = "resume with the same settings, or give another -o"
    for before, after in zip(former.trials, wanted.trials, strict=False):
        if before.name != after.name:
            raise SincutError(
                f"{folder} holds other trials: {before.folder} is {before.name} there, got "
                f"{after.name}; {advice}"
            )
        for name in (field.name for field in dataclasses.fields(after.config)):
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


def write_plan(folder: Path, plan: AblationPlan, *, several: bool) -> AblationPlan:
    """Write the plan, and return the one that is valid: of several processes the first one's."""
    settled = resolved_plan(plan)
    make_folder(folder)
    if not several:
        for leftover in folder.glob(f".{PLAN_FILE}.*.part"):
            leftover.unlink(missing_ok=True)
        write_json(folder / PLAN_FILE, _plan_record(settled))
        return settled
    # A link is made only where there is none, and never half.
    mine = folder / f"{PLAN_FILE}.{os.environ['RANK']}"
    write_json(mine, _plan_record(settled))
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
    valid = read_plan(folder)
    assert valid is not None
    check_same(folder, valid, plan)
    return valid


def _plan_record(plan: AblationPlan) -> dict[str, Any]:
    """Plain values for JSON, of which :func:`read_plan` makes the plan again."""
    record = dataclasses.asdict(plan)
    images = record.pop("images")
    return {"version": record.pop("version"), **images, **record}


def read_plan(folder: Path) -> AblationPlan | None:
    """The plan of the folder, if it has one."""
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        plan = AblationPlan(
            version=str(record["version"]),
            images={
                name: (RunFolder if "count" in record[name] else RunImage)(**record[name])
                for name in _IMAGES
                if name in record
            },
            paper=bool(record["paper"]),
            fields=tuple(record["fields"]),
            trials=tuple(
                Trial(**{**trial, "config": training_config(trial["config"])})
                for trial in record["trials"]
            ),
        )
        if not plan.trials or len(plan.images) not in (2, 4):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, SincutError):
        raise SincutError(
            f"{path} is damaged or not of sincut; give another -o, or remove the folder"
        ) from None
    return plan


def outcomes_of(folder: Path, plan: AblationPlan) -> tuple[Outcome, ...]:
    """How all trials stand, from what is in the folder."""
    found = []
    for trial in plan.trials:
        run = folder / TRIALS / trial.folder
        try:
            figures, failure = _read_json(run / FIGURES_FILE), _read_json(run / FAILURE_FILE)
            outcome = Outcome(
                trial,
                run,
                _checked(trial, figures) if figures is not None else None,
                str(failure["message"]) if figures is None and failure is not None else None,
            )
        except (ValueError, TypeError, KeyError):
            raise SincutError(
                f"{FIGURES_FILE} or {FAILURE_FILE} in {run} is damaged; remove that folder, and "
                "its trial is done again"
            ) from None
        found.append(outcome)
    return tuple(found)


def _checked(trial: Trial, figures: dict[str, Any]) -> dict[str, float]:
    """The figures, of which those that every trial has may not be missing."""
    found = {name: float(figures[name]) for name in kind_of(trial.config).figures}
    return found | {name: float(value) for name, value in figures.items()}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Plain values as a file that is there whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
