"""A file written band by band that outlives its process: part file, journal, lock. No torch.

Beside ``out.tif`` lie ``.out.tif.part``, which only grows, and ``.out.tif.journal``, one line for
every piece of it that is complete. A process may be killed at any moment: what the last good line
of the journal vouches for is kept, what lies behind it is cut off and written again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sincut.errors import SincutError
from sincut.images.writing.layout import Entry

if sys.platform != "win32":
    import fcntl

SYNC_SECONDS = 10.0  # what a power loss may cost at most; a killed process loses nothing written
_TRIES = 1000  # to open a journal that others remove
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PartFile:
    """The growing file and its journal, held under a lock. Made by :meth:`open`.

    ``entries`` are the journal's good lines, of bands first; ``length`` is what they vouch for.
    """

    def __init__(self, target: Path, bands: int, journal: io.FileIO) -> None:
        self.target, self.bands = target, bands
        self.path, self.journal_path = beside(target, "part"), beside(target, "journal")
        self.entries: list[Entry] = []
        self.length = 0
        self._journal, self._journal_length = journal, 0
        self._data: io.FileIO | None = None
        self._synced, self._synced_length = time.monotonic(), 0
        self._reading = threading.Lock()

    @classmethod
    def open(
        cls,
        target: Path,
        identity: dict[str, Any],
        bands: int,
        start: bytes,
        *,
        resume: bool,
        force: bool,
    ) -> PartFile:
        """Begin a file with the bytes ``start``, or go on with one that was begun.

        ``identity`` is what must be the same to go on, by names that a person understands.

        Raises:
            SincutError: another process writes it; it was begun before and neither ``resume`` nor
                ``force`` is given; it was begun with something else; it cannot be written.
        """
        part = cls(target, bands, _locked_journal(target))
        try:
            with part.told():
                part._begin(json.loads(json.dumps(identity)), start, resume, force)
        except BaseException:
            part.keep()
            raise
        return part

    def _begin(self, identity: Entry, start: bytes, resume: bool, force: bool) -> None:
        first = self._recall()
        if self.done and resume and (other := first_difference(first["identity"], identity)):
            if not force:
                raise SincutError(
                    f"{self.target} was begun with another {other}; try the same as before, or "
                    "--force to start anew"
                )
        elif self.done and resume:
            self._journal.truncate(self._journal_length)
            self._file.truncate(self.length)
            # Nothing vouches for the beginning, which is known, and which the end writes anew.
            self._file.seek(0)
            _write_all(self._file, start)
            return
        elif self.done and not force:
            raise SincutError(
                f"{self.target} was begun before and is {self.done} of {first['bands']} bands "
                "done; try --resume, or --force to start anew"
            )
        self.entries, self.length, self._journal_length = [], 0, 0
        try:
            # The journal is emptied first: it must never vouch for what is being overwritten.
            self._journal.truncate(0)
            self.close_data()
            with open(self.path, "wb"):
                pass
            self.length = self._write((start,))
            self._note({"identity": identity, "bands": self.bands, "length": self.length})
        except BaseException:
            self.discard()
            raise

    def _recall(self) -> Entry:
        """Take the good lines of the journal; the first of them is returned."""
        lines = list(_good_lines(self._journal.readall()))
        size = self.path.stat().st_size if self.path.exists() else 0
        while lines and lines[-1][0]["length"] > size:
            lines.pop()
        if not lines:
            return {}
        synced, good = lines[-1][0].get("synced", 0), 1
        while good < len(lines):
            # After a power loss the file may be long enough and yet not hold what was written.
            begin, entry = lines[good - 1][0]["length"], lines[good][0]
            if entry["length"] > synced and self._checksum(begin, entry["length"]) != entry["crc"]:
                break
            good += 1
        self.entries = [entry for entry, _ in lines[1:good]]
        self.length, self._journal_length = lines[good - 1][0]["length"], lines[good - 1][1]
        return lines[0][0]

    def _checksum(self, begin: int, end: int) -> int:
        crc = 0
        for at in range(begin, end, 1 << 20):
            crc = zlib.crc32(self.read(at, min(1 << 20, end - at)), crc)
        return crc

    @property
    def done(self) -> int:
        """How many bands are complete."""
        return min(len(self.entries), self.bands)

    def append(self, pieces: Sequence[bytes], note: Entry) -> None:
        """Add a piece of the file, then its line to the journal.

        Raises:
            SincutError: it cannot be written; what was there before stays good.
        """
        with self.told():
            end = self.length + self._write(pieces)
            crc = 0
            for piece in pieces:
                crc = zlib.crc32(piece, crc)
            due = time.monotonic() - self._synced > SYNC_SECONDS
            if due:
                os.fsync(self._file.fileno())
                self._synced, self._synced_length = time.monotonic(), end
            entry = note | {"length": end, "crc": crc, "synced": self._synced_length}
            self._note(entry)
            if due:
                os.fsync(self._journal.fileno())
            self.entries.append(entry)
            self.length = end

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the part file; callable from several threads."""
        with self._reading:
            self._file.seek(offset)
            return self._file.read(size)

    def write_tail(self, tail: bytes, start: bytes | None = None) -> None:
        """Write what ends the file, and over its beginning; the journal does not know of it."""
        with self.told():
            self._write((tail,))
            if start is not None:
                self._file.seek(0)
                _write_all(self._file, start)

    def publish(self, finished: Path | None = None) -> None:
        """Bring the part file, or ``finished`` made from it, under the target's name.

        The journal and what is left of the part file are removed.
        """
        with self.told():
            if finished is None:
                os.fsync(self._file.fileno())
            self.close_data()
            os.replace(finished or self.path, self.target)
            sync_folder(self.target.parent)
        self.discard()

    def close_data(self) -> None:
        """Let go of the part file, so that it can be renamed; it is opened again when needed."""
        if self._data is not None:
            self._data.close()
            self._data = None

    def keep(self) -> None:
        """Close, with part file and journal left on the disk to go on with."""
        if not self._journal.closed:
            with contextlib.suppress(OSError):
                if self._data is not None:
                    os.fsync(self._data.fileno())
                os.fsync(self._journal.fileno())
            self._close()

    def discard(self) -> None:
        """Close and remove part file and journal; after :meth:`keep` nothing."""
        if self._journal.closed:
            return  # and the files are another's by now
        self.close_data()
        if sys.platform == "win32":
            self._journal.close()  # there an open file cannot be removed
        # The journal goes first, and while it is locked: without it nothing vouches for the rest.
        for path in (self.journal_path, self.path):
            with contextlib.suppress(OSError):
                path.unlink()
        self._close()

    def _close(self) -> None:
        self.close_data()
        self._journal.close()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Trouble in writing becomes one line that says how much is kept."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            mend = "free some space" if error.errno in _FULL else "check the place"
            if self.done:
                mend = f"{self.done} of {self.bands} bands are kept: {mend} and use --resume"
            raise SincutError(f"cannot write {self.target} ({reason}); {mend}") from None

    @property
    def _file(self) -> io.FileIO:
        if self._data is None:
            self._data = open(self.path, "r+b", buffering=0)  # noqa: SIM115
        return self._data

    def _write(self, pieces: Iterable[bytes]) -> int:
        """Write behind what is good, whatever else was there; returns the count of bytes."""
        self._file.truncate(self.length)
        self._file.seek(self.length)
        try:
            return sum(_write_all(self._file, piece) for piece in pieces)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.length)  # gives back what is of no use
            raise

    def _note(self, entry: Entry) -> None:
        text = json.dumps(entry, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        self._journal.seek(self._journal_length)
        self._journal_length += _write_all(self._journal, line)


def begun(target: Path) -> Entry | None:
    """What was said of a target when it was begun, if there are finished bands to go on with.

    A target that is younger than its part file was finished; a process was killed between
    bringing it under its name and clearing up.
    """
    part, journal = beside(target, "part"), beside(target, "journal")
    try:
        if not (_ordinary(part) and _ordinary(journal)):
            return None
        lines = list(_good_lines(journal.read_bytes()))
        status = part.stat()
        if target.exists() and target.stat().st_mtime_ns >= status.st_mtime_ns:
            return None
    except OSError:
        return None
    if len(lines) < 2 or lines[1][0]["length"] > status.st_size:
        return None
    return dict(lines[0][0]["identity"])


def kept_bytes(target: Path) -> int:
    """How large a target's part file is, if there is one to go on with."""
    return 0 if begun(target) is None else beside(target, "part").stat().st_size


def beside(target: Path, ending: str) -> Path:
    """The hidden file beside a target. Long names are cut, with a digest that keeps them apart."""
    name = target.name
    if len(name) > 40:
        name = f"{name[:31]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return target.with_name(f".{name}.{ending}")


def sync_folder(folder: Path) -> None:
    """Bring a rename in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _ordinary(path: Path) -> bool:
    """Whether what is beside a target is no link, pipe or device; of a folder the system tells."""
    return not path.is_symlink() and (path.is_file() or path.is_dir() or not path.exists())


def _locked_journal(target: Path) -> io.FileIO:
    path = beside(target, "journal")
    for each in (path, beside(target, "part")):
        if not _ordinary(each):
            raise SincutError(
                f"{each} is in the way of {target} and no file of sincut's; remove it"
            )
    for _ in range(_TRIES):
        try:
            path.touch()
            journal = open(path, "r+b", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            if path.parent.is_dir():
                continue  # another process removed it just now
            raise SincutError(f"the folder {path.parent} does not exist; create it first") from None
        except OSError as error:
            raise SincutError(
                f"cannot write {target} ({error.strerror}); check the place"
            ) from None
        if not _lock(journal):
            journal.close()
            raise SincutError(
                f"{target} is being written by another process; wait for it, or choose another "
                "output"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(journal.fileno())):
                return journal
        journal.close()  # it was removed between opening and locking: the lock holds nothing
    # Of a folder that was removed one is told that it is there, where it is the current one.
    raise SincutError(f"cannot write {target} (its folder or its journal is gone); check the place")


def _lock(file: io.FileIO) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks
    return True


def _good_lines(journal: bytes) -> Iterator[tuple[Entry, int]]:
    """The entries up to the first damaged line, each with the place where its line ends."""
    end = 0
    for line in journal.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            return
        end += len(line)
        yield json.loads(text), end


def first_difference(before: Entry, now: Entry) -> str | None:
    """The name of what is not the same in two identities, or nothing."""
    for key in (*now, *before):
        if key not in before or key not in now or before[key] != now[key]:
            return key.replace("_", " ")
    return None


def _write_all(file: io.FileIO, data: bytes) -> int:
    view = memoryview(data)
    while view:  # a raw file may take less than it was given
        view = view[file.write(view) :]
    return len(data)
