"""The folder that the app shows: one project a folder, each with its images, run and results.

===================  ==============================================================
``app.json``         title, which images, what was chosen
``NAME.jpg``         content and style, where they came through the browser
``pictures/``        both, small, for pages
``run/``             what ``sincut train`` writes
``results/``         what ``sincut translate`` writes
``jobs/``            which process does what, and what it says (sincut/app/jobs.py)
===================  ==============================================================

A run that the command line wrote into the folder is a project, too; it is its own ``run/``. No
torch.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sincut.app.jobs import Job, read_json, read_lines
from sincut.errors import SincutError
from sincut.files import FolderLock, check_folder, make_folder, write_text
from sincut.runs.folder import CONFIG_FILE, LIVE_DATA, LOG_FILE, PREVIEWS, find_image, read_run

UPLOADS, TRASH = "uploads", "trash"
ABOUT = "app.json"
MODEL_FILE, STATE_FILE = "model.safetensors", "state.safetensors"  # their own modules load torch
TRAINING = "train"  # the job's name
_LOG_TAIL = 1 << 15
_LIVE_LIMIT = 1 << 24  # bytes: sincut's own has a hundredth of it


class NotThere(SincutError):
    """A project or file of it that is asked for by a name which nothing has."""


@dataclass(frozen=True)
class Project:
    """One folder of the library."""

    folder: Path

    @property
    def name(self) -> str:
        """By which addresses know it."""
        return self.folder.name

    @property
    def run(self) -> Path:
        """The run's folder, which may not be there yet."""
        return self.folder if (self.folder / CONFIG_FILE).is_file() else self.folder / "run"

    @property
    def results(self) -> Path:
        """The folder of translations."""
        return self.folder / "results"

    def about(self) -> dict[str, Any]:
        """What the app noted."""
        return read_json(self.folder / ABOUT)

    def note(self, **values: Any) -> None:
        """Note more."""
        write_text(self.folder / ABOUT, json.dumps({**self.about(), **values}, indent=1) + "\n")

    def job(self, name: str = TRAINING) -> Job:
        """One of its jobs."""
        return Job(self.folder / "jobs", name)

    def jobs(self, beginning: str) -> list[Job]:
        """Its jobs whose names begin so, in the order of their names."""
        found = (self.folder / "jobs").glob(f"{beginning}*.json")
        return [self.job(path.stem) for path in sorted(found)]

    def config(self) -> dict[str, Any]:
        """What ``config.json`` says; empty before the run has begun."""
        return read_json(self.run / CONFIG_FILE)

    def logged(self) -> list[dict[str, Any]]:
        """The last records of the log."""
        return read_lines(self.run / LOG_FILE, _LOG_TAIL)

    def live(self) -> dict[str, Any]:
        """What the run's own live page is told (sincut/runs/live_page.py)."""
        path = self.run / LIVE_DATA
        try:
            if path.stat().st_size > _LIVE_LIMIT:
                return {}
            text = path.read_text(encoding="utf-8")
            found = json.loads(text.partition("(")[2].rpartition(")")[0])
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def previews(self) -> list[int]:
        """The steps of which there is a preview, in order."""
        files = (self.run / PREVIEWS).glob("*.png")
        return sorted(int(path.stem) for path in files if re.fullmatch(r"[0-9]{1,12}", path.stem))

    def preview(self, step: int) -> Path:
        """The file of a preview."""
        return self.run / PREVIEWS / f"{step:06d}.png"

    def image(self, role: str) -> Path:
        """The file of the ``content`` or the ``style``, which may have moved with the project.

        Raises:
            SincutError: a run of the command line, and it is neither here nor beside it.
        """
        noted = self.about().get(role)
        if not noted:
            return find_image(read_run(self.run), role)
        place = Path(str(noted))
        inside = self.folder / place.name
        return place if place.exists() or not inside.exists() else inside

    @property
    def running(self) -> bool:
        """Whether a training writes to the run, whoever started it."""
        return self.job().alive or FolderLock.is_held(self.run)

    def state(self) -> State:
        """How the training stands."""
        config, logged = self.config(), self.logged()
        settings = config.get("config")
        steps = _number(settings.get("steps")) if isinstance(settings, dict) else 0
        step = max((_number(record.get("step")) for record in logged[-1:]), default=0)
        measured = [each["figures"] for each in logged if "figures" in each]
        figures = measured[-1] if measured and isinstance(measured[-1], dict) else {}
        why = ""
        if self.running:
            name = "running"
        elif why := self.job().error():
            name = "failed"
        elif steps and step >= steps:
            name = "finished"
        elif (self.run / STATE_FILE).is_file():
            name = "stopped"
        else:
            name = "unbegun" if self.about() else "failed"
        return State(name, max(step, 0), steps, figures, why)


@dataclass(frozen=True)
class State:
    """How a training stands: ``running``, ``finished``, ``stopped``, ``unbegun`` (it was stopped
    before it had anything to save) or ``failed``; the last logged step of how many, the last
    figures by name, and the line by which it failed."""

    name: str
    step: int
    steps: int
    figures: dict[str, Any]
    why: str = ""


class Library:
    """The projects of a folder, which is made where it is missing.

    Raises:
        SincutError: it cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        try:
            check_folder(folder)
            make_folder(folder)
        except SincutError as error:
            raise SincutError(str(error).replace("another -o", "another --folder")) from None

    def projects(self) -> list[Project]:
        """All, the newest first."""
        found = [Project(path) for path in self.folder.iterdir() if _is_project(path)]
        return sorted(found, key=created, reverse=True)

    def project(self, name: str) -> Project:
        """The project of that name.

        Raises:
            NotThere: there is none.
        """
        # Only names that the folder lists: no path leads out of it.
        path = next((each for each in self.folder.iterdir() if each.name == name), None)
        if path is None or not _is_project(path):
            raise NotThere(f"there is no run {name} in {self.folder}; it may have been deleted")
        return Project(path)

    def new(self, title: str, **about: Any) -> Project:
        """An empty project under a name that its title gives."""
        base = "-".join(re.findall(r"\w+", title.lower()))[:60].strip("-") or "run"
        folder = _made(self.folder, base)
        project = Project(folder)
        project.note(title=title, created=time.time(), **about)
        return project

    def discard(self, project: Project) -> Path:
        """Move a project to the folder ``trash``, and say where it lies.

        Raises:
            SincutError: something still writes to it.
        """
        at_work = project.running or any(job.alive for job in project.jobs(""))
        if at_work:
            raise SincutError(f"{project.name} is at work; stop it first")
        trash = self.folder / TRASH
        trash.mkdir(exist_ok=True)
        place = _made(trash, project.name)
        project.folder.rename(place)  # over the empty folder, which holds the name
        return place


def created(project: Project) -> float:
    """When a project was made, in seconds since 1970."""
    noted = project.about().get("created")
    if isinstance(noted, (int, float)):
        return float(noted)
    return (project.run / CONFIG_FILE).stat().st_mtime


def _is_project(path: Path) -> bool:
    """A folder of the app or a run; no link, which may lead anywhere."""
    if path.name.startswith(".") or path.name in (UPLOADS, TRASH) or path.is_symlink():
        return False
    return (path / ABOUT).is_file() or (path / CONFIG_FILE).is_file()


def _made(parent: Path, base: str) -> Path:
    """A new folder, with a number behind its name where that is taken."""
    number = 1
    while True:
        folder = parent / (base if number == 1 else f"{base}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise SincutError(f"cannot write to {parent} ({error.strerror})") from None
        else:
            return folder


def _number(value: Any) -> int:
    return value if type(value) is int else 0
