"""Where results may go, looked at before the work, and files written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sincut.errors import SincutError, empty_name, one_line


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with write_atomically(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete and on the disk.

    It is written beside its place, flushed, and renamed; whatever fails leaves the old file as it
    was and no other behind. A link is followed.

    Raises:
        SincutError: it cannot be written. Trouble with another file stays an ``OSError``.
    """
    place = path.resolve() if path.is_symlink() else path
    temporary = place.with_name(f".{path.name[:40]}.{os.getpid()}.part")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(temporary):
            raise
        raise SincutError(
            f"cannot write {path} ({error.strerror or one_line(error)}); "
            "check the place and its free space"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_path(name: str, value: Any, allowed: str = "a path") -> None:
    """Refuse an argument that is no path, where ``allowed`` is what it may be, or an empty one."""
    if not isinstance(value, (str, os.PathLike)):
        raise SincutError(
            f"{name} must be {allowed}, got {type(value).__module__}.{type(value).__qualname__}; "
            "write it to a file first, and give that"
        )
    if os.fspath(value) == "":
        raise empty_name(name)


def check_file(path: Path, *, hint: str = "give a file name for the output") -> None:
    """Refuse a file that could not be written: its folder is missing, or its name is that of a
    folder, a link, a pipe or a device, none of which a file may replace.

    Args:
        hint: what to do where ``path`` is a folder.
    """
    if path.is_dir():
        raise SincutError(f"{path} is a folder, not a file; {hint}")
    if path.is_symlink():
        raise SincutError(f"{path} is a link; give the file that it leads to, {path.resolve()}")
    if path.exists() and not path.is_file():
        raise SincutError(f"{path} is a pipe or a device, not a file; {hint}")
    if path.parent.exists() and not path.parent.is_dir():
        raise SincutError(f"{path.parent} is {kind_of_file(path.parent)}, not a folder; {hint}")
    check_parent(path)


def check_parent(path: Path) -> None:
    """Refuse a place whose folder is missing or must not be written to."""
    if not path.parent.is_dir():
        raise SincutError(f"the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise SincutError(f"the folder {path.parent} must not be written to; give another -o")


def kind_of_file(path: Path) -> str:
    """What something is that is there and no folder."""
    return "a file" if path.is_file() else "a pipe or a device"


def check_free(path: Path, *, force: bool, inputs: Iterable[Path] = (), option: str = "-o") -> None:
    """Refuse a file that is there: always where it is an input, else unless ``force`` is given.

    Args:
        option: by which the place was chosen.
    """
    if not path.exists():
        return
    if any(each.exists() and path.samefile(each) for each in inputs):
        raise SincutError(f"{path} is an input; give another {option}")
    if not force:
        raise SincutError(f"{path} exists already; try --force or another {option}")


def check_folder(folder: Path) -> None:
    """Refuse a folder that could not be made or must not be written to."""
    if folder.exists() and not folder.is_dir():
        raise SincutError(f"{folder} is {kind_of_file(folder)}, not a folder; give another -o")
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise SincutError(
            f"{there} is {kind_of_file(there)}, so {folder} cannot be made; give another -o"
        )
    if not os.access(there, os.W_OK):
        raise SincutError(f"the folder {there} must not be written to; give another -o")


class FolderLock:
    """Holds a folder for one program at a time, until it is closed or the program ends.

    Where the file system has no locks nothing is held.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, folder: Path) -> None:
        """Hold the folder, if it is there and not held already.

        Raises:
            SincutError: another program holds it.
        """
        if self._descriptor is not None or not folder.is_dir():
            return
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # whoever reads or writes there will say why
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise SincutError(
                f"another training writes to {folder} at this moment; wait for its end, stop it, "
                "or give another -o"
            ) from None
        except OSError:
            os.close(descriptor)
            return
        self._descriptor = descriptor

    @staticmethod
    def is_held(folder: Path) -> bool:
        """Whether a program holds the folder at this moment."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return False

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SincutError(f"cannot write to {folder} ({error.strerror}); give another -o") from None
