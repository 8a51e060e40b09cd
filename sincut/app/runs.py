"""What pages ask about runs and want of them, as JSON; pictures and files of runs. No torch."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sincut.app.choices import length_words, title_of, training_words
from sincut.app.images import PICTURE, Images, Incoming, json_of, looked_at
from sincut.app.jobs import Job, answer_of, asking
from sincut.app.library import MODEL_FILE, STATE_FILE, Library, NotThere, Project, created
from sincut.app.results import Results
from sincut.errors import SincutError
from sincut.runs.commands import resuming_command
from sincut.runs.folder import CARD_FILE, REPORT_FILE, read_run

ROLES = ("content", "style")
_TITLE = 120  # characters at most
_ESTIMATING = 600.0  # seconds
SEEDS = (1, 2, 3)  # of three variations


class Runs:
    """The runs of a library."""

    def __init__(self, library: Library, images: Images) -> None:
        self.library, self.images = library, images
        self.estimating: asyncio.subprocess.Process | None = None
        self.starting = threading.Lock()

    def routes(self) -> list[Route]:
        """What is where."""
        return [
            Route("/api/runs", self.all, methods=["GET"]),
            Route("/api/runs", self.begin, methods=["POST"]),
            Route("/api/estimate", self.estimate, methods=["POST"]),
            Route("/api/runs/{name}", self.one, methods=["GET"]),
            Route("/api/runs/{name}", self.change, methods=["POST"]),
            Route("/api/runs/{name}", self.discard, methods=["DELETE"]),
            Route("/api/runs/{name}/images", self.again, methods=["POST"]),
            Route("/runs/{name}/picture", self.picture),
            Route("/runs/{name}/previews/{step:int}", self.preview),
            Route("/runs/{name}/pictures/{role}", self.role),
            *Results(self.library, self.images).routes(),
        ]

    def all(self, request: Request) -> Response:
        """Every run in short."""
        return JSONResponse({"runs": [_short(each) for each in self.library.projects()]})

    def one(self, request: Request) -> Response:
        """One run with all that its page shows."""
        return JSONResponse(_whole(self._project(request)))

    async def begin(self, request: Request) -> Response:
        """Start a training, or three that differ in their seeds, one after the other."""
        given = await json_of(request)
        incoming = [self.images.get(given.get(role)) for role in ROLES]
        folders = _are_folders(*(each.file for each in incoming))
        words = training_words(given, folders=folders)
        self._leave_estimate()
        if not given.get("variations"):
            return JSONResponse({"name": self._begun(incoming, words, given).name})
        words = [word for word in words if not word.startswith("--seed=")]
        projects = [
            self._made(incoming, [*words, f"--seed={seed}"], {**given, "seed": seed}, f" · {seed}")
            for seed in SEEDS
        ]
        names = [project.name for project in projects]
        for project in projects:
            project.note(variations=names)
        commands = [_words_of(project) for project in projects]
        projects[0].job("several").start(["sincut.app.several", json.dumps(commands)])
        return JSONResponse({"name": names[0]})

    async def estimate(self, request: Request) -> Response:
        """What a training would take on this machine: the command's own measurement."""
        given = await json_of(request)
        incoming = [self.images.get(given.get(role)) for role in ROLES]
        files = [each.file for each in incoming]
        words = training_words(given, folders=_are_folders(*files))
        nowhere = self.library.folder / "estimate"  # which a dry run does not make
        command = ["sincut", "train", *map(str, files), "-o", str(nowhere), "--dry-run", "--json"]
        self._leave_estimate()
        self.estimating = await asking([*command, *words])
        try:
            out, said = await answer_of(self.estimating, _ESTIMATING)
        except TimeoutError:
            raise SincutError(
                f"the estimate took more than {_ESTIMATING:.0f} s; start the training instead"
            ) from None
        return JSONResponse(_estimated(out, said))

    def _leave_estimate(self) -> None:
        """A newer one, or the training itself, wants the machine."""
        if self.estimating is not None and self.estimating.returncode is None:
            self.estimating.kill()

    async def change(self, request: Request) -> Response:
        """Stop a training, go on with it, extend it, or give it another title."""
        project, given = self._project(request), await json_of(request)
        action = given.get("action")
        if action == "stop":
            _stop(project)
        elif action == "resume":
            await run_in_threadpool(self._resume, project, given.get("more"))
        elif action == "rename":
            project.note(title=_title(given.get("title")))
        elif action == "choose":
            project.note(chosen=bool(given.get("chosen", True)))
        else:
            raise SincutError(f"there is nothing that {action} does with a run; reload the page")
        return JSONResponse(_whole(project))

    def _resume(self, project: Project, more: Any) -> None:
        with self.starting:  # two pages may ask at once
            _resumed(project, more)

    def discard(self, request: Request) -> Response:
        """Move a run to the trash folder."""
        place = self.library.discard(self._project(request))
        return JSONResponse({"place": str(place)})

    def again(self, request: Request) -> Response:
        """The numbers of a run's images, for a new run with them."""
        project = self._project(request)
        return JSONResponse({role: self.images.left(project.image(role)) for role in ROLES})

    def picture(self, request: Request) -> Response:
        """What a run shows in the library: its newest preview, or its content."""
        project = self._project(request)
        previews = project.previews()
        path = (
            project.preview(previews[-1]) if previews else project.folder / "pictures/content.jpg"
        )
        return _picture(path)

    def preview(self, request: Request) -> Response:
        """The preview of a step."""
        return _picture(self._project(request).preview(request.path_params["step"]))

    async def role(self, request: Request) -> Response:
        """The content or the style, small."""
        project, role = self._project(request), request.path_params["role"]
        if role not in ROLES:
            raise NotThere("a run has the pictures content and style")
        path = project.folder / "pictures" / f"{role}.jpg"
        if not path.is_file():
            file = await run_in_threadpool(project.image, role)
            path.parent.mkdir(exist_ok=True)
            await looked_at(file, path)
        return _picture(path)

    def _project(self, request: Request) -> Project:
        return self.library.project(request.path_params["name"])

    def _begun(self, incoming: list[Incoming], words: list[str], given: dict[str, Any]) -> Project:
        project = self._made(incoming, words, given)
        project.job().start(_words_of(project))
        return project

    def _made(
        self, incoming: list[Incoming], words: list[str], given: dict[str, Any], suffix: str = ""
    ) -> Project:
        """A project with its images, and the words that will train it."""
        files = [each.file for each in incoming]
        title = str(given.get("title") or "").strip() or title_of(*files)
        project = self.library.new(_title(title + suffix), words=words)
        content = incoming[0].moved(project.folder)
        style = incoming[1].moved(project.folder, other=content.name)
        project.note(content=str(content), style=str(style))
        (project.folder / "pictures").mkdir()
        for role, each in zip(ROLES, incoming, strict=True):
            if (each.folder / PICTURE).is_file():
                shutil.copy(each.folder / PICTURE, project.folder / "pictures" / f"{role}.jpg")
        return project


def _words_of(project: Project) -> list[str]:
    """The command that trains a project."""
    about = project.about()
    images = [str(project.image(role)) for role in ROLES]
    return ["sincut", "train", *images, "-o", str(project.run), "--json", *about["words"]]


def _short(project: Project) -> dict[str, Any]:
    """What the library shows of a run."""
    state, about, config = project.state(), project.about(), project.config()
    names = {role: _name_of(config, about, role) for role in ROLES}
    return {
        "name": project.name,
        "title": about.get("title") or project.name,
        "created": created(project),
        "state": state.name,
        "waiting": _waits(project),
        "step": state.step,
        "steps": state.steps,
        "figures": state.figures,
        "why": state.why,
        "chosen": bool(about.get("chosen")),
        "folders": isinstance(config.get("content"), dict) and "count" in config["content"],
        "picture": bool(project.previews()) or (project.folder / "pictures/content.jpg").is_file(),
        **names,
    }


def _whole(project: Project) -> dict[str, Any]:
    """What a run's page shows."""
    events = project.job().events()
    told = {record.get("event"): record for record in events}
    live = project.live()
    about = project.about()
    return {
        **_short(project),
        "live": live,
        "previews": project.previews(),
        "notices": [_notice(each) for each in events if each.get("event") == "notice"],
        "estimate": told.get("estimate"),
        "started": project.job().record().get("started"),
        "folder": str(project.folder),
        "command": _command(project),
        "report": (project.run / REPORT_FILE).is_file(),
        "card": (project.run / CARD_FILE).is_file(),
        "model": (project.run / MODEL_FILE).is_file(),
        "resumable": (project.run / STATE_FILE).is_file(),
        "variations": [name for name in about.get("variations", []) if isinstance(name, str)],
    }


def _waits(project: Project) -> bool:
    """Whether it is one of several variations whose turn has not come."""
    return not (project.running or project.config()) and _queue(project).alive


def _queue(project: Project) -> Job:
    """The job that starts variations one after the other; the first of them has it."""
    names = project.about().get("variations") or [project.name]
    return Project(project.folder.parent / str(names[0])).job("several")


def _notice(record: dict[str, Any]) -> str:
    return f"{record.get('about')}: {record.get('text')}"


def _name_of(config: dict[str, Any], about: dict[str, Any], role: str) -> str:
    recorded = config.get(role)
    if isinstance(recorded, dict) and "name" in recorded:
        return str(recorded["name"])
    return Path(str(about.get(role, ""))).name


def _command(project: Project) -> str:
    """What goes on with the run in a terminal."""
    try:
        return resuming_command(read_run(project.run))
    except SincutError:
        return ""


def _stop(project: Project) -> None:
    job, queue = project.job(), _queue(project)
    if queue.alive:
        queue.stop()
    elif job.alive:
        job.stop()
    elif project.running:
        raise SincutError(
            f"{project.name} was started in a terminal; press Ctrl-C there, which saves it"
        )


def _resumed(project: Project, more: Any) -> None:
    """Go on with a run, or begin again what failed before its first step."""
    if project.running:
        raise SincutError(f"{project.name} is running; wait for its end or stop it first")
    if _waits(project):
        raise SincutError(f"{project.name} waits for its turn, and begins by itself")
    if not (project.run / STATE_FILE).is_file():
        if "words" not in project.about():
            raise SincutError(f"{project.name} has no saved state to go on from; start a new run")
        project.job().start(_words_of(project))
        return
    images = [str(project.image(role)) for role in ROLES]
    steps = project.state().steps
    words = ["sincut", "train", *images, "-o", str(project.run), "--json", "--resume"]
    project.job().start([*words, *length_words(more, steps)])


def _estimated(out: bytes, said: bytes) -> dict[str, Any]:
    """The estimate and the notices among the events of a dry run.

    Raises:
        SincutError: the line by which it was refused.
    """
    records = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
    told = {record["event"]: record for record in records}
    if "estimate" not in told:
        lines = said.decode(errors="replace").splitlines()
        errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        raise SincutError(errors[-1] if errors else "the estimate was left for a newer one")
    config = told["start"]["config"]
    return {
        **told["estimate"],
        "steps": config["steps"],
        "device": config["device"],
        "precision": config["precision"],
        "notices": [_notice(record) for record in records if record["event"] == "notice"],
    }


def _are_folders(content: Path, style: Path) -> bool:
    """Whether two folders were given.

    Raises:
        SincutError: a folder and an image.
    """
    if content.is_dir() != style.is_dir():
        raise SincutError("content and style must be two images or two folders, got one of each")
    return content.is_dir()


def _title(given: Any) -> str:
    title = " ".join(str(given or "").split())[:_TITLE]
    if not title:
        raise SincutError("a run needs a name; type one")
    return "".join(each if each.isprintable() else "_" for each in title)


def _picture(path: Path) -> Response:
    """A picture of a run; a link is none, as it may lead out of the folder."""
    if not path.is_file() or path.is_symlink():
        raise NotThere("there is no such picture yet")
    kind = "image/png" if path.suffix == ".png" else "image/jpeg"
    return FileResponse(path, media_type=kind, headers={"cache-control": "no-cache"})
