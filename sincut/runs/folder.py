"""What a run folder holds, read without torch: by the report, the live page, the model card.

===========================  =======================================================
``model.safetensors``        averaged generator and projection heads, self-describing
``state.safetensors``        everything training needs to go on
``config.json``              the resolved configuration, version, images and sessions
``log.jsonl``                a record of losses every ``log_every`` steps, and of figures
``previews/STEP.png``        the content translated
``NAME-mask.png``            where tissue was found in ``content`` or ``style``
``images/``                  content and style where they were given as no files
``index.html``, ``live.js``  the page that follows the training, and what it shows
``README.md``                the model card, at the end or where the run was interrupted
``report.html``              content, style and result, once the run is finished
``tensorboard/``             event files, where they were asked for
===========================  =======================================================

A session is a start or a resumption that still had steps to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sincut.config.training import FolderConfig, TrainConfig, training_config
from sincut.errors import SincutError
from sincut.images.identity import image_digest, is_zarr

if TYPE_CHECKING:  # a program that only shows runs decodes no image
    from sincut.data.image_folder import ImageFolder
    from sincut.images.reading.source import Picture

CONFIG_FILE = "config.json"
LOG_FILE = "log.jsonl"
PREVIEWS = "previews"
IMAGES = "images"
MASK_FILE = "{}-mask.png"
LIVE_PAGE = "index.html"
LIVE_DATA = "live.js"
CARD_FILE = "README.md"
REPORT_FILE = "report.html"
BOARD = "tensorboard"

# With places for the names of content and style.
PAIR_TITLE = "{} in the look of {}"
FOLDERS_TITLE = "{} translated into {}"


@dataclass(frozen=True)
class RunImage:
    """One of the pair, as the run recorded it: the file's name without its folder, and what it is.

    ``width`` and ``height`` are in pixels, upright. ``range`` holds the values that were taken for
    black and white where these were not all of their type ``values``.
    """

    name: str
    width: int
    height: int
    sha256: str
    range: tuple[float, float] | None = None
    values: str | None = None

    @classmethod
    def of(cls, path: Path, picture: Picture, size: tuple[int, int]) -> RunImage:
        """As a run records an image file of ``size`` (W, H), of which the picture shows some."""
        kind = picture.kind if picture.range else None
        return cls(path.name, *size, image_digest(path), picture.range, kind)

    def record(self) -> dict[str, Any]:
        """What a run's files hold of it: what there is."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class RunFolder:
    """One of the two folders of a run: its name, how many images, from which to which size, and
    :attr:`sincut.data.image_folder.ImageFolder.digest`; ``range`` and ``values`` as of
    :class:`RunImage`."""

    name: str
    count: int
    sizes: str
    sha256: str
    range: tuple[float, float] | None = None
    values: str | None = None

    @classmethod
    def of(cls, folder: ImageFolder) -> RunFolder:
        """As a run records a folder of images."""
        name = folder.path.resolve().name
        asked = folder.asked
        kind = folder.kind() if asked.range else None
        facts = len(folder.images), folder.sizes(), folder.digest
        return cls(name, *facts, asked.range, kind)

    def record(self) -> dict[str, Any]:
        """What a run's files hold of it: what there is."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def described(record: Mapping[str, Any]) -> str:
    """Name and size of a recorded image or folder."""
    if "width" in record:
        return f"{record['name']} ({record['width']}×{record['height']})"
    return f"{record['name']} ({record['count']} images, {record['sizes']})"


def size_of(image: RunImage | RunFolder) -> str:
    """An image's size in pixels, or how many images of which sizes a folder has."""
    if isinstance(image, RunImage):
        return f"{image.width}×{image.height} pixels"
    return f"{image.count} images, {image.sizes} pixels"


def title_of(run: RunRecord, shown: Callable[[str], str] = str) -> str:
    """What a run does, as a title; ``shown`` makes names fit for where they stand."""
    title = FOLDERS_TITLE if isinstance(run.content, RunFolder) else PAIR_TITLE
    return title.format(shown(run.content.name), shown(run.style.name))


@dataclass(frozen=True)
class Session:
    """A start or a resumption: the step it began from, the length of the run asked for then.

    ``start`` is negative in the warm start. ``environment`` says what it was trained with: the
    processor and versions, by name.
    """

    start: int
    steps: int
    environment: dict[str, str]


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    ``log`` holds the records in the order of their steps: of losses (``step``, ``steps``,
    ``seconds`` since the start or the last resumption, ``steps_per_second``, ``learning_rate``,
    ``losses`` by name) and of figures (``step``, ``seconds``, ``figures`` by name), both with the
    index of their ``session``. Steps of the warm start are negative. ``previews`` are pairs of a
    step and a file, in order. ``sessions`` is empty where the folder does not tell them. So many
    ``processes`` shared its steps in the last one. ``damaged`` lines of the log are left out.
    """

    folder: Path
    version: str
    config: TrainConfig
    content: RunImage | RunFolder
    style: RunImage | RunFolder
    log: tuple[dict[str, Any], ...]
    previews: tuple[tuple[int, Path], ...]
    sessions: tuple[Session, ...] = ()
    processes: int = 1
    damaged: int = 0

    @property
    def step(self) -> int:
        """The last step that was logged; 0 before the first.

        An interrupted run is saved at the step it was at, which may lie beyond: the files of model
        and state hold that one.
        """
        return max((max(record["step"], 0) for record in self.log), default=0)

    @property
    def seconds(self) -> float:
        """Time spent in logged steps, over all sessions."""
        sessions: dict[int, float] = {}
        # Records that tell no session: a new one began wherever their clock went back.
        total = last = 0.0
        for record in self.log:
            seconds = float(record["seconds"])
            if "session" in record:
                index = record["session"]
                sessions[index] = max(sessions.get(index, 0.0), seconds)
            else:
                total += seconds - last if seconds >= last else seconds
                last = seconds
        return total + sum(sessions.values())

    @property
    def environment(self) -> dict[str, str]:
        """What the run was begun with: the first session's processor and versions, by name."""
        return self.sessions[0].environment if self.sessions else {}

    @property
    def extended(self) -> bool:
        """Whether a session was asked for another length than the run has now."""
        return any(session.steps != self.config.steps for session in self.sessions)

    def series(self, kind: str) -> dict[str, tuple[list[int], list[float]]]:
        """Steps and values by name, of ``losses`` or of ``figures``."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.log:
            for name, value in record.get(kind, {}).items():
                steps, values = found.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(value)
        return found


def read_run(folder: Path | str) -> RunRecord:
    """Read a run folder, finished or not.

    Raises:
        SincutError: there is no run, or its record is damaged.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    try:
        if path.exists() and not path.is_file():
            raise OSError  # reading a pipe would not end
        record = json.loads(path.read_text(encoding="utf-8"))
        config = training_config(record["config"])
        kind = RunFolder if isinstance(config, FolderConfig) else RunImage
        images = {name: kind(**record[name]) for name in ("content", "style")}
        version = str(record["sincut_version"])
        sessions = tuple(map(_session, record.get("sessions", ())))
        processes = int(record.get("processes", 1))
    except SincutError as error:
        raise SincutError(f"{path} does not fit this version of sincut: {error}") from None
    except OSError:
        raise SincutError(
            f"{folder} is not a run: it has no {CONFIG_FILE}; give a folder that sincut train wrote"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SincutError(
            f"{path} is damaged or not of a run; give a folder that sincut train wrote"
        ) from None
    lines, damaged = whole_lines(folder / LOG_FILE)
    return RunRecord(
        folder,
        version,
        config,
        images["content"],
        images["style"],
        tuple(map(json.loads, lines)),
        tuple(sorted((int(p.stem), p) for p in folder.glob(f"{PREVIEWS}/*.png") if _is_step(p))),
        sessions,
        processes,
        damaged,
    )


def _session(record: dict[str, Any]) -> Session:
    """What has no value, as a package that is not there, is left out of the environment."""
    environment = {str(k): str(v) for k, v in record["environment"].items() if v is not None}
    return Session(int(record["start"]), int(record["steps"]), environment)


def _is_step(path: Path) -> bool:
    """Not what somebody else has put among the previews."""
    return path.stem.isascii() and path.stem.isdigit()


def whole_lines(path: Path) -> tuple[list[str], int]:
    """The log's lines with their ends, and how many others are damaged.

    What a power cut left of the last line is dropped and does not count.
    """
    lines, damaged = [], 0
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n")[:-1]:
        if _is_record(line):
            lines.append(f"{line}\n")
        else:
            damaged += 1
    return lines, damaged


def _is_record(line: str) -> bool:
    """Whether a line of the log has what is read of it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict):
        return False
    values = [record.get(kind, {}) for kind in ("losses", "figures")]
    return (
        type(record.get("step")) is int
        and type(record.get("session", 0)) is int
        and isinstance(record.get("seconds"), (int, float))
        and all(isinstance(each, dict) for each in values)
        and all(isinstance(value, (int, float)) for each in values for value in each.values())
    )


def damaged_text(count: int) -> str:
    """What is said of so many damaged lines of a log."""
    lines = "a damaged line was" if count == 1 else f"{count} damaged lines were"
    return f"{lines} left out"


def places_of(run: RunRecord) -> list[Path]:
    """Where a run's images are looked for by name."""
    return [Path(), run.folder, run.folder.resolve().parent, run.folder / IMAGES]


def find_image(run: RunRecord, role: str, given: Path | None = None) -> Path:
    """The file of the run's ``content`` or ``style``; a run keeps names and digests, not places.

    Without ``given`` it is looked for by name in the current folder, the run's, and the one around
    the run.

    Raises:
        SincutError: it is not there, or another image has its name.
    """
    image: RunImage = getattr(run, role)
    assert isinstance(image, RunImage)
    paths = [given] if given is not None else [place / image.name for place in places_of(run)]
    files = [path for path in paths if path.is_file() or (path.is_dir() and is_zarr(path))]
    for path in files:
        if image_digest(path) == image.sha256:
            return path
    described = f"{image.name} ({image.width}×{image.height})"
    if given is None:
        other = f"; {files[0]} is another image" if files else ""
        raise SincutError(
            f"the {role} of {run.folder}, {described}, is neither here nor beside the run{other}; "
            f"try --{role} FILE"
        )
    what = "is not that file" if given in files else "is no file"
    raise SincutError(
        f"{run.folder} was trained with another {role} image, {described}, and {given} {what}; "
        "give the image it was trained with"
    )
