"""Images that come in: through the browser, streamed to the disk, or by their path. No torch.

Of every image a process of its own says what it is and makes a small picture (sincut/app/look.py):
whatever a file does to a decoder, the server goes on.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sincut.app.jobs import answer_of, asking, read_json
from sincut.app.library import ABOUT, UPLOADS, Library, NotThere
from sincut.errors import SincutError, printable
from sincut.runs.folder import CONFIG_FILE
from sincut.units import byte_text

KEPT_FREE = 1_000_000_000  # bytes of the disk that no upload may take
_JSON_LIMIT = 1 << 20
_LOOKING = 120.0  # seconds, after which a file is given up
_OLD = 86_400.0  # seconds after which what was uploaded and not used is removed
_OFTEN = 1 << 26  # bytes after which the disk is looked at again
LOOK, PICTURE, PART = "look.json", "look.jpg", ".part"
NAME, PATH = "name.json", "path.json"  # of what came, and of what stays where it is
# What the app itself and a run call their files, beside which images lie.
_TAKEN = (
    *(LOOK, PICTURE, PATH, NAME, ABOUT, CONFIG_FILE, "mask.png", "mask-painted.png"),
    *("run", "results", "jobs", "pictures", "look"),
)


@dataclass(frozen=True)
class Incoming:
    """An image that was given: a folder with what is known of it."""

    folder: Path

    @property
    def file(self) -> Path:
        """Where it lies; a path of this machine is left where it is.

        Raises:
            NotThere: it has not come yet.
        """
        noted = read_json(self.folder / PATH).get("path")
        if isinstance(noted, str):
            return Path(noted)
        name = read_json(self.folder / NAME).get("name", "")
        if not name or not (self.folder / name).is_file():
            raise NotThere("the image has not come yet; give it once more")
        return self.folder / str(name)

    def moved(self, folder: Path, other: str = "") -> Path:
        """Let a project have it: what was uploaded moves there, what another project has is linked
        or copied, a person's own file stays where it is.

        Args:
            folder: of the project, in the library.
            other: a name in that folder that is taken.
        """
        file, uploaded = self.file, not (self.folder / PATH).is_file()
        if not uploaded and (file.is_dir() or not file.is_relative_to(folder.parent)):
            return file
        place = folder / (file.name if file.name != other else f"2-{file.name}")
        if uploaded:
            file.rename(place)
            (self.folder / PATH).write_text(json.dumps({"path": str(place)}))
            return place
        try:
            place.hardlink_to(file)
        except OSError:  # a file system without links
            shutil.copyfile(file, place)
        return place


class Images:
    """What is uploaded, and what is said of it."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.folder = library.folder / UPLOADS
        self._remove_old()

    def routes(self) -> list[Route]:
        """What is where."""
        return [
            Route("/api/images", self.announce, methods=["POST"]),
            Route("/api/images/{id}", self.receive, methods=["PUT"]),
            Route("/api/images/{id}", self.look, methods=["GET"]),
            Route("/api/images/{id}/picture", self.picture),
            Route("/api/example", self.example, methods=["POST"]),
        ]

    def get(self, id: object) -> Incoming:
        """One by its number.

        Raises:
            NotThere: there is none.
        """
        folder = self.folder / str(id)
        if not re.fullmatch(r"[0-9a-f]{16}", str(id)) or not folder.is_dir():
            raise NotThere("the image is not here any more; give it once more")
        return Incoming(folder)

    async def announce(self, request: Request) -> Response:
        """A file that is to come, with its name and size, or a path of this machine."""
        given = await json_of(request)
        if "path" in given:
            path = _local(str(given["path"]))
            return JSONResponse({"id": self.left(path), "name": path.name})
        name, size = safe_name(str(given.get("name", ""))), given.get("size")
        if type(size) is not int or size <= 0:
            raise SincutError(f"{name} is empty; give an image file")
        self._check_room(name, size)
        incoming = self._new()
        (incoming.folder / NAME).write_text(json.dumps({"name": name, "size": size}))
        return JSONResponse({"id": incoming.folder.name, "name": name})

    async def receive(self, request: Request) -> Response:
        """The bytes of an announced file, straight to the disk; no more than were announced."""
        incoming = self.get(request.path_params["id"])
        noted = read_json(incoming.folder / NAME)
        if not noted or (incoming.folder / noted["name"]).exists():
            raise SincutError("the file was not announced, or has come already; give it once more")
        part = incoming.folder / PART
        try:
            with open(part, "xb") as file:
                came = await self._stream(request.stream(), file, noted["name"], noted["size"])
            if came != noted["size"]:
                raise SincutError(
                    f"of {noted['name']} came {came} of {noted['size']} bytes; give it once more"
                )
            part.rename(incoming.folder / noted["name"])
        except FileExistsError:
            raise SincutError(f"{noted['name']} is on its way already; wait for it") from None
        except OSError as error:
            raise SincutError(f"{noted['name']} cannot be kept ({error.strerror})") from None
        finally:
            part.unlink(missing_ok=True)
        return JSONResponse({"id": incoming.folder.name, "name": noted["name"]})

    async def _stream(
        self, chunks: AsyncIterator[bytes], file: Any, name: str, announced: int
    ) -> int:
        """How many bytes came; the disk is looked at on the way."""
        came, looked = 0, 0
        async for chunk in chunks:
            came += len(chunk)
            if came > announced:
                raise SincutError(
                    f"{name} was announced with {announced} bytes and has more; give it once more"
                )
            if came - looked > _OFTEN:
                looked = came
                self._check_room(name, announced - came)
            file.write(chunk)
        return came

    def _check_room(self, name: str, size: int) -> None:
        room = max(shutil.disk_usage(self.library.folder).free - KEPT_FREE, 0)
        if size > room:
            raise SincutError(
                f"{name} has {byte_text(size)}, and the disk of {self.library.folder} has room for "
                f"{byte_text(room)} beside the {byte_text(KEPT_FREE)} that stay free; give its "
                "path on this machine, which copies nothing"
            )

    async def look(self, request: Request) -> Response:
        """What the image is: size, depth, profile, notices."""
        incoming = self.get(request.path_params["id"])
        known = read_json(incoming.folder / LOOK)
        if not known:
            file = incoming.file
            known = await looked_at(file, incoming.folder / PICTURE)
            (incoming.folder / LOOK).write_text(json.dumps(known))
        if "error" in known:
            raise SincutError(known["error"].replace(f"{incoming.folder}/", ""))
        known["picture"] = (incoming.folder / PICTURE).is_file()
        return JSONResponse({"id": incoming.folder.name, "name": incoming.file.name, **known})

    def picture(self, request: Request) -> Response:
        """The small picture."""
        path = self.get(request.path_params["id"]).folder / PICTURE
        if not path.is_file():
            raise NotThere("there is no picture of it")
        return FileResponse(path, media_type="image/jpeg")

    async def example(self, request: Request) -> Response:
        """The example pair, rendered once."""
        folder = self.folder / "example"
        files = {role: folder / f"{role}.png" for role in ("content", "style")}
        if not all(path.is_file() for path in files.values()):
            folder.mkdir(parents=True, exist_ok=True)
            await asked_of(["sincut.app.example", str(folder)])
        return JSONResponse({role: self.left(path) for role, path in files.items()})

    def left(self, path: Path) -> str:
        """The number of an image that is left where it is."""
        incoming = self._new()
        (incoming.folder / PATH).write_text(json.dumps({"path": str(path)}))
        return incoming.folder.name

    def _new(self) -> Incoming:
        folder = self.folder / secrets.token_hex(8)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise SincutError(f"cannot write to {self.folder} ({error.strerror})") from None
        return Incoming(folder)

    def _remove_old(self) -> None:
        """Uploads that no run has used: copies of what lies elsewhere."""
        for folder in self.folder.glob("?" * 16):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > _OLD:
                shutil.rmtree(folder, ignore_errors=True)


async def looked_at(file: Path, picture: Path) -> dict[str, Any]:
    """What a process of its own says of an image file, or ``error`` with the one line."""
    try:
        return await asked_of(["sincut.app.look", str(file), str(picture)])
    except SincutError as error:
        return {"error": str(error)}


async def asked_of(words: list[str], seconds: float = _LOOKING) -> dict[str, Any]:
    """The JSON object that a short command prints.

    Raises:
        SincutError: it says an error, or nothing in time.
    """
    try:
        out, _ = await answer_of(await asking(words), seconds)
    except TimeoutError:
        raise SincutError(
            f"the image took more than {seconds:.0f} s to look at; try a smaller copy"
        ) from None
    try:
        found = json.loads(out)
    except ValueError:
        raise SincutError("the image could not be looked at; try a copy converted to PNG") from None
    if "error" in found:
        raise SincutError(found["error"])
    return dict(found)


def _local(text: str) -> Path:
    """A file of this machine by its whole path."""
    path = Path(text.strip()).expanduser() if text.strip() else Path()
    if not path.is_absolute() or "\0" in text:
        raise SincutError(
            f"a path on this machine begins with /, got {printable(text) or 'nothing'}; try "
            "/home/name/image.tif"
        )
    if not path.exists():
        raise SincutError(f"{printable(str(path))} does not exist; give an image file")
    return path


def safe_name(given: str) -> str:
    """A file's name from outside as one that any folder may hold, its ending kept.

    Folders before it, control characters and a leading dot or dash are gone.
    """
    name = given.replace("\\", "/").rpartition("/")[2]
    name = "".join(each if each.isprintable() else "_" for each in name).strip(" .-")
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    ending = re.sub(r"[^A-Za-z0-9]", "", ending)[:10]
    stem = stem.encode("utf-8", "replace")[:100].decode("utf-8", "ignore").strip(" .")
    if name in _TAKEN:
        stem = f"image-{stem}"
    stem = stem or "image"
    return f"{stem}.{ending}" if ending else stem


async def json_of(request: Request) -> dict[str, Any]:
    """A request's JSON object, which is small.

    Raises:
        SincutError: it is none, or large.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _JSON_LIMIT:
            raise SincutError(f"a request has at most {byte_text(_JSON_LIMIT)}; got more")
    try:
        found = json.loads(bytes(body))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SincutError("a request must be a JSON object; reload the page")
    return found
