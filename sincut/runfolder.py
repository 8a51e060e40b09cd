"""What a run folder holds, read without torch: by the report, the live page, the model card.

===========================  =======================================================
``model.safetensors``        averaged generator and projection heads, self-describing
``state.safetensors``        everything training needs to go on
``config.json``              the resolved configuration, version and images
``log.jsonl``                a record of losses every ``log_every`` steps, and of figures
``previews/STEP.png``        the content translated
===========================  =======================================================
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sincut.config import TrainConfig, train_config
from sincut.errors import SincutError
from sincut.files.images import file_digest

CONFIG_FILE = "config.json"
LOG_FILE = "log.jsonl"
PREVIEWS = "previews"


@dataclass(frozen=True)
class RunImage:
    """One of the pair, as the run recorded it: the file's name without its folder, and what it is.

    ``width`` and ``height`` are in pixels, upright.
    """

    name: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    ``log`` holds the records in the order of their steps: of losses (``step``, ``steps``,
    ``seconds`` since the start or the last resumption, ``steps_per_second``, ``learning_rate``,
    ``losses`` by name) and of figures (``step``, ``seconds``, ``figures`` by name). Steps of the
    warm start are negative. ``previews`` are pairs of a step and a file, in order.
    """

    folder: Path
    version: str
    config: TrainConfig
    content: RunImage
    style: RunImage
    log: tuple[dict[str, Any], ...]
    previews: tuple[tuple[int, Path], ...]

    @property
    def step(self) -> int:
        """The last step that was logged; 0 before the first."""
        return max((max(record["step"], 0) for record in self.log), default=0)

    @property
    def seconds(self) -> float:
        """Time spent in logged steps, over all resumptions."""
        total = last = 0.0
        for record in self.log:
            seconds = float(record["seconds"])
            total += seconds - last if seconds >= last else seconds
            last = seconds
        return total

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
        record = json.loads(path.read_text(encoding="utf-8"))
        images = {name: RunImage(**record[name]) for name in ("content", "style")}
        config = TrainConfig.from_dict(record["config"])
        version = str(record["sincut_version"])
    except OSError:
        raise SincutError(
            f"{folder} is not a run: it has no {CONFIG_FILE}; give a folder that sincut train wrote"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise SincutError(
            f"{path} is damaged or not of a run; give a folder that sincut train wrote"
        ) from None
    return RunRecord(
        folder,
        version,
        config,
        images["content"],
        images["style"],
        tuple(json.loads(line) for line in whole_lines(folder / LOG_FILE)),
        tuple(sorted((int(p.stem), p) for p in folder.glob(f"{PREVIEWS}/[0-9]*.png"))),
    )


def whole_lines(path: Path) -> list[str]:
    """The log's lines with their ends; what a power cut left of a line is dropped."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        try:
            whole = line.endswith("\n") and "step" in json.loads(line)
        except (ValueError, TypeError):
            whole = False
        if whole:
            lines.append(line)
    return lines


def find_image(run: RunRecord, role: str, given: Path | None = None) -> Path:
    """The file of the run's ``content`` or ``style``; a run keeps names and digests, not places.

    Without ``given`` it is looked for by name in the current folder, the run's, and the one around
    the run.

    Raises:
        SincutError: it is not there, or another image has its name.
    """
    image: RunImage = getattr(run, role)
    places = [Path(), run.folder, run.folder.resolve().parent]
    for path in [given] if given is not None else [place / image.name for place in places]:
        if path.is_file() and file_digest(path) == image.sha256:
            return path
    described = f"{image.name} ({image.width}×{image.height})"
    if given is None:
        raise SincutError(
            f"the {role} of {run.folder}, {described}, is neither here nor beside the run; "
            f"try --{role} FILE"
        )
    what = "is not that file" if given.is_file() else "is no file"
    raise SincutError(
        f"{run.folder} was trained with another {role} image, {described}, and {given} {what}; "
        "give the image it was trained with"
    )


def repeating_command(
    run: RunRecord, content: Path | str | None = None, style: Path | str | None = None
) -> str:
    """The command line that trains the same again, quoted for a POSIX shell.

    Only what differs from the preset and the method is spelled out. ``content`` and ``style`` are
    the names recorded unless given.
    """
    config = run.config
    usual = train_config(config.preset, config.method)
    names = ["preset", "method"] if config.method != "sincut" else ["preset"]
    values, usual_values = config.to_dict(), usual.to_dict()
    names += [name for name in values if values[name] != usual_values[name]]
    flags = [shlex.split(config.flag(name, values[name])) for name in names]
    return shlex.join(
        [
            "sincut",
            "train",
            str(content or run.content.name),
            str(style or run.style.name),
            "-o",
            run.folder.name or "run",
            *(part for flag in flags for part in flag),
        ]
    )
