"""Commands that go on by themselves: started, found again, stopped, read. No torch.

A job is a process of its own session, so it outlives whoever started it. Three files tell of it:
``NAME.json`` which process it is, ``NAME.jsonl`` the events that it prints, ``NAME.txt`` what it
says on standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sincut
from sincut.files import write_text

_TAIL = 1 << 18  # bytes of a file of events that are read; notices and the end lie within
_SAID = 1 << 16  # bytes of standard error
_children: list[subprocess.Popen[bytes]] = []  # those of this process, to be reaped


@dataclass(frozen=True)
class Job:
    """A command of a project, by its name. ``folder`` holds its files."""

    folder: Path
    name: str

    def start(self, words: Sequence[str]) -> None:
        """Run ``python -m WORDS`` in a session of its own. What was said before is forgotten."""
        self.folder.mkdir(exist_ok=True)
        with open(self._file(".jsonl"), "wb") as out, open(self._file(".txt"), "wb") as said:
            process = started(words, out, said)
        _children.append(process)
        record = {"pid": process.pid, "began": _began(process.pid), "started": time.time()}
        write_text(self._file(".json"), json.dumps({**record, "words": list(words)}) + "\n")

    def record(self) -> dict[str, Any]:
        """Which process it is; empty where it was never started."""
        return read_json(self._file(".json"))

    @property
    def alive(self) -> bool:
        """Whether its process still works. A process that has its number later is not it."""
        _reap()
        record = self.record()
        began = _began(record.get("pid", 0))
        return began is not None and began == record.get("began")

    def stop(self) -> None:
        """Ask it to stop, as Ctrl-C does: it saves first."""
        if self.alive:
            os.kill(self.record()["pid"], signal.SIGTERM)

    def events(self) -> list[dict[str, Any]]:
        """What it told last, oldest first."""
        return read_lines(self._file(".jsonl"), _TAIL)

    def error(self) -> str:
        """The one line by which it failed, or nothing."""
        text = tail(self._file(".txt"), _SAID).decode(errors="replace").strip()
        lines = text.splitlines()
        told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        if told:
            return told[-1]
        # What is no line of ours ends in the exception, as Python prints it.
        return lines[-1] if "Traceback (most recent call last):" in lines else ""

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"


def started(words: Sequence[str], out: Any, said: Any) -> subprocess.Popen[bytes]:
    """``python -m WORDS`` with this very sincut, in a session of its own, without input.

    ``-P`` keeps Python from taking a file of the current folder for one of its modules.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *words],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=said,
        start_new_session=True,
        env=_environment(),
    )


async def asking(words: Sequence[str]) -> asyncio.subprocess.Process:
    """As :func:`started`, for a command that ends soon and whose answer is read."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
    )


async def answer_of(process: asyncio.subprocess.Process, seconds: float) -> tuple[bytes, bytes]:
    """What it printed, and what it said on standard error; it does not go on for longer.

    Raises:
        TimeoutError: it did not end in time.
    """
    try:
        return await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _environment() -> dict[str, str]:
    """This process's, in which the same sincut is found also where it is not installed."""
    assert sincut.__file__ is not None
    here = str(Path(sincut.__file__).resolve().parents[1])
    paths = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    if not here.endswith("-packages") and here not in paths:
        paths.append(here)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object of a file; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path, most: int) -> list[dict[str, Any]]:
    """The JSON objects, one a line, of a file's last ``most`` bytes."""
    found = []
    for line in tail(path, most).split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # the first and the last may be cut
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def tail(path: Path, most: int) -> bytes:
    """The last bytes of a file; none where there is no file."""
    if not path.is_file():  # reading a pipe would not end
        return b""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - most, 0))
            return file.read()
    except OSError:
        return b""


def _reap() -> None:
    """Take note of children that have ended, or their numbers stay taken."""
    _children[:] = [process for process in _children if process.poll() is None]


def _began(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; ``None`` where it has ended."""
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
