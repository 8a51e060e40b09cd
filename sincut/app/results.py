"""Translations that pages ask for: started as commands, followed, stopped, downloaded. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sincut.app.choices import ENDINGS, translating_words
from sincut.app.images import Images, asked_of, json_of
from sincut.app.jobs import Job, read_json
from sincut.app.library import MODEL_FILE, Library, NotThere, Project
from sincut.errors import SincutError
from sincut.units import byte_text

LOOK = "look"  # the job, and the folder, of what a page shows to be zoomed
JOBS = "translate-"
_MASK_LIMIT = 50_000_000  # bytes of a painted mask as a browser sends it
_TILE = re.compile(r"[0-9]{1,2}/[0-9]{1,9}_[0-9]{1,9}\.png")


class Results:
    """The translations of a library's runs."""

    def __init__(self, library: Library, images: Images) -> None:
        self.library, self.images = library, images

    def routes(self) -> list[Route]:
        """What is where."""
        return [
            Route("/api/runs/{name}/results", self.all, methods=["GET"]),
            Route("/api/runs/{name}/results", self.begin, methods=["POST"]),
            Route("/api/runs/{name}/results/{job}", self.change, methods=["POST"]),
            Route("/api/runs/{name}/mask", self.mask, methods=["PUT"]),
            Route("/runs/{name}/results/{file}", self.download),
            Route("/runs/{name}/look/{part}/{tile:path}", self.tile),
        ]

    def all(self, request: Request) -> Response:
        """Every translation of a run, and what its page can show at once."""
        return JSONResponse(_whole(self._project(request)))

    async def begin(self, request: Request) -> Response:
        """Translate the content, another image, or a folder of images."""
        project, given = self._project(request), await json_of(request)
        await run_in_threadpool(self._begin, project, given)
        return JSONResponse(_whole(project))

    def _begin(self, project: Project, given: Mapping[str, Any]) -> None:
        if not (project.run / MODEL_FILE).is_file():
            raise SincutError(f"{project.name} has no model yet; it is saved as the training goes")
        image = str(given.get("image") or "content")
        file = project.image("content") if image == "content" else self.images.get(image).file
        words = translating_words(given.get("settings") or {})
        target = _target(project, file, given)
        if given.get("masked"):
            mask = project.folder / "mask.png"
            if not mask.is_file():
                raise SincutError("there is no mask yet; paint one first")
            words.append(f"--mask={mask}")
        command = ["sincut", "translate", str(project.run), str(file), "-o", str(target)]
        project.job(_next(project)).start([*command, *words, "--json"])

    async def change(self, request: Request) -> Response:
        """Stop a translation, or go on with it."""
        project, given = self._project(request), await json_of(request)
        job = _job(project, request.path_params["job"])
        if given.get("action") == "stop":
            job.stop()
        elif given.get("action") == "resume":
            if job.alive:
                raise SincutError("this picture is being made already; wait for it or stop it")
            words = job.record()["words"]
            job.start([*words, *([] if "--resume" in words else ["--resume"])])
        elif given.get("action") == "look":
            _look_at(project, job)
        elif given.get("action") == "forget":
            _forget(job)
        else:
            raise SincutError(
                "a translation is stopped, gone on with or forgotten; reload the page"
            )
        return JSONResponse(_whole(project))

    async def mask(self, request: Request) -> Response:
        """A painted mask, enlarged to the content's size."""
        project = self._project(request)
        painted = bytearray()
        async for chunk in request.stream():
            painted += chunk
            if len(painted) > _MASK_LIMIT:
                raise SincutError(f"a mask has at most {byte_text(_MASK_LIMIT)}; got more")
        file = await run_in_threadpool(project.image, "content")
        small = project.folder / "mask-painted.png"
        small.write_bytes(painted)
        place = project.folder / "mask.png"
        try:
            found = await asked_of(["sincut.app.mask", str(small), str(file), str(place)])
        finally:
            small.unlink(missing_ok=True)
        return JSONResponse({"place": str(place), **found})

    def download(self, request: Request) -> Response:
        """A finished output."""
        project, name = self._project(request), request.path_params["file"]
        path = next((each for each in _outputs(project) if each.name == name), None)
        if path is None:
            raise NotThere(f"there is no result {name}; it may have been moved")
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    def tile(self, request: Request) -> Response:
        """A tile of the Deep Zoom image that a page shows, or of the content beside it."""
        part, tile = request.path_params["part"], request.path_params["tile"]
        path = self._project(request).folder / LOOK / part / tile
        if part not in ("content", "result") or not _TILE.fullmatch(tile) or not path.is_file():
            raise NotThere("there is no such tile")
        return FileResponse(path, headers={"cache-control": "no-cache"})

    def _project(self, request: Request) -> Project:
        return self.library.project(request.path_params["name"])


def _whole(project: Project) -> dict[str, Any]:
    jobs = [_told_of(project, job) for job in project.jobs(JOBS)]
    look = project.job(LOOK)
    return {
        "results": jobs[::-1],
        "look": {"running": look.alive, "why": look.error()},
        "shown": {} if look.alive else read_json(project.folder / LOOK / "look.json"),
        "model": (project.run / MODEL_FILE).is_file(),
        "mask": (project.folder / "mask.png").is_file(),
        "place": str(project.results),
    }


def _told_of(project: Project, job: Job) -> dict[str, Any]:
    """How a translation stands."""
    events = job.events()
    told = {each.get("event"): each for each in events}
    source, target = _places(job)
    done = told.get("translated")
    error = job.error()
    state = "failed" if error else "finished" if done else "stopped"
    state = "running" if job.alive else state
    plan, tiles = told.get("plan"), told.get("tiles")
    return {
        "job": job.name,
        "state": state,
        "why": error,
        "input": source.name,
        "output": target.name,
        "place": str(target),
        "download": target.is_file() and state == "finished" and target.suffix != ".dzi",
        "bytes": target.stat().st_size if target.is_file() else 0,
        "plan": plan,
        "done": _part(tiles, plan, state),
        "notices": [n for each in events for n in each.get("notices", [])],
        "images": sum(each.get("event") == "translated" for each in events),
        "seconds": done.get("seconds") if done else None,
    }


def _places(job: Job) -> tuple[Path, Path]:
    """Input and output of a translation."""
    words = job.record().get("words", [])
    at = words.index("-o") if "-o" in words else 0
    return (Path(words[at - 1]), Path(words[at + 1])) if at else (Path(), Path())


def _part(tiles: Any, plan: Any, state: str) -> list[int]:
    """Tiles done, of how many; empty before it is known."""
    if state == "finished" and plan:
        return [plan["tiles"], plan["tiles"]]
    return [tiles["done"], tiles["total"]] if tiles else []


def _look_at(project: Project, job: Job) -> None:
    """Cut a finished output into tiles, and what it was made of."""
    source, target = _places(job)
    look = project.job(LOOK)
    if look.alive:
        raise SincutError("another picture is being cut into tiles; wait for it")
    if not _told_of(project, job)["download"]:
        raise SincutError(f"{target.name} is not there to be shown; translate the image first")
    (project.folder / LOOK).mkdir(exist_ok=True)
    told = [word for word in job.record()["words"] if word.startswith("--strength=")]
    strength = told[0].partition("=")[2] if told else "1"
    folder = project.folder / LOOK
    look.start(["sincut.app.pyramid", str(target), str(source), str(folder), strength])


def _target(project: Project, file: Path, given: Mapping[str, Any]) -> Path:
    """Where a translation goes: a new name in the folder of results."""
    project.results.mkdir(exist_ok=True)
    ending = str(given.get("ending") or ".png")
    if ending not in ENDINGS:
        raise SincutError(f"a result ends in one of {', '.join(ENDINGS)}, got {ending}")
    if file.is_dir():
        ending = ""
    taken = {each.name for each in project.results.iterdir()}
    taken |= {_places(job)[1].name for job in project.jobs(JOBS)}  # those that are only begun
    numbers = chain([""], (f"-{number}" for number in count(2)))
    names = (f"{file.stem}{number}{ending}" for number in numbers)
    target = project.results / next(name for name in names if name not in taken)
    if not ending:
        target.mkdir()
    return target


def _next(project: Project) -> str:
    numbers = [int(job.name.removeprefix(JOBS)) for job in project.jobs(JOBS)]
    return f"{JOBS}{max(numbers, default=0) + 1:04d}"


def _job(project: Project, name: str) -> Job:
    names = {job.name: job for job in project.jobs(JOBS)}
    if name not in names:
        raise NotThere("there is no such translation")
    return names[name]


def _forget(job: Job) -> None:
    if job.alive:
        raise SincutError("this picture is being made; stop it first")
    for path in job.folder.glob(f"{job.name}.*"):
        path.unlink()


def _outputs(project: Project) -> list[Path]:
    """Finished outputs: files, no links, none that is only begun."""
    if not project.results.is_dir():
        return []
    found = project.results.rglob("*")
    return [
        path
        for path in found
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    ]
