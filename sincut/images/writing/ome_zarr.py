"""An OME-Zarr written in shards, in any order and by many processes at once. No torch.

Each shard is a file that appears under its name when it is whole, or, in version 0.4, which has no
shards, the files of its chunks; so a shard that is there is done, and no other record is kept. Of a
shard of a smaller level the same is true, and it is made as soon as the four that it is the mean of
are there. Until all are, the folder has a hidden name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sincut.errors import SincutError
from sincut.files import check_parent
from sincut.images.metadata import MICROMETRES_PER_INCH, KeptMetadata
from sincut.images.reading.extras import library
from sincut.images.records import not_kept, record_options
from sincut.images.writing.layout import Layout
from sincut.images.writing.part_file import beside, first_difference
from sincut.version import __version__

Array = npt.NDArray[Any]
Place = tuple[slice, slice]  # rows and columns

SHARD, CHUNK = 2048, 512  # pixels: of a file, and of what is decoded at once
_MARK = "sincut"  # the attribute by which a folder is known as sincut's
_COLOURS = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"), ("alpha", "FFFFFF"))
_THERE = (errno.ENOTEMPTY, errno.EEXIST)


class OmeZarr:
    """An image on its way to the disk. Made by :meth:`begin`.

    Level 0 is the image, each further one half as wide; shards of a level are numbered row by row.
    """

    def __init__(self, target: Path) -> None:
        """Of what is there under the hidden name."""
        zarr = library("zarr", "zarr", "zarr", target)
        self.target, self.part = target, beside(target, "part")
        group = zarr.open_group(str(self.part), mode="r+")
        in_shards = group.metadata.zarr_format == 3
        said: Any = group.attrs["ome"] if in_shards else group.attrs
        self._side, self._inside = (SHARD, Path("c", "0")) if in_shards else (CHUNK, Path("0"))
        # That a shard is there says that it is done: also a black one.
        self._arrays = [
            group[each["path"]].with_config({"write_empty_chunks": True})
            for each in said["multiscales"][0]["datasets"]
        ]
        self.levels = len(self._arrays)

    @classmethod
    def begin(
        cls,
        target: Path,
        layout: Layout,
        dpi: tuple[float, float] | None,
        identity: Mapping[str, Any],
        *,
        version: str = "0.5",
        resume: bool = False,
        force: bool = False,
        joined: bool = False,
    ) -> OmeZarr:
        """Begin, or with ``resume`` go on with what was begun.

        Args:
            identity: what decides the pixels, by names that a person understands.
            version: of OME-Zarr, 0.5 or 0.4.
            joined: other processes do the same; whoever comes first begins.

        Raises:
            SincutError: it was begun before, or with something else; it cannot be written.
        """
        whole: dict[str, Any] = json.loads(
            json.dumps({**identity, **_of_layout(layout), "--ome-zarr": version})
        )
        part = beside(target, "part")
        with told(target):
            if part.exists():
                before = _marked(part)
                other = first_difference(before, whole) if before is not None else "program"
                if force:
                    shutil.rmtree(part)
                elif (resume or joined) and other:
                    raise SincutError(
                        f"{target} was begun with another {other}; try the same as before, or "
                        "--force to start anew"
                    )
                elif not (resume or joined):
                    made = cls(target)
                    raise SincutError(
                        f"{target} was begun before and is {made.done(0)} of {made.count(0)} "
                        "shards done; try --resume, or --force to start anew"
                    )
            if not part.exists():
                _create(target, part, layout, dpi, whole, version, joined=joined)
            return cls(target)

    def count(self, level: int) -> int:
        """How many shards a level has."""
        down, across = self._grid(level)
        return down * across

    def done(self, level: int) -> int:
        """How many of them are there."""
        return self.count(level) - len(self._missing(level, range(self.count(level))))

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Which of the image's own shards are not there, of all or of some of them."""
        return self._missing(0, range(self.count(0)) if among is None else among)

    def has(self, level: int, index: int) -> bool:
        """Whether a shard is there."""
        return not self._missing(level, [index])

    def place(self, level: int, index: int) -> Place:
        """The rows and columns of a shard."""
        row, column = divmod(index, self._grid(level)[1])
        height, width = self._size(level)
        top, left = row * SHARD, column * SHARD
        return slice(top, min(top + SHARD, height)), slice(left, min(left + SHARD, width))

    def write(self, index: int, pixels: Array) -> None:
        """Write a shard of the image, (rows, columns, channels), and whatever follows of it."""
        self._put(0, index, pixels)
        with self._alone(wait=False) as alone:  # what another is at comes at the end
            for level in range(1, self.levels if alone else 1):
                row, column = divmod(index, self._grid(level - 1)[1])
                index = row // 2 * self._grid(level)[1] + column // 2
                if not self._make_smaller(level, index):
                    break

    def publish(self, before: Callable[[], None] = lambda: None) -> bool:
        """Make what is missing of the smaller levels and bring the image under its name, if all of
        its shards are there; whether it is there now. ``before`` is called when they are."""
        with told(self.target), self._alone(wait=True):
            if not self.part.exists():  # another process was faster
                return True
            for level in range(1, self.levels):
                for index in range(self.count(level)):
                    self._make_smaller(level, index)
            if not all(self.done(level) == self.count(level) for level in range(self.levels)):
                return False
            before()
            shutil.rmtree(passes_folder(self.target), ignore_errors=True)
            for left in self.part.rglob("*.partial"):  # by processes that were killed
                left.unlink()
            if self.target.exists():
                check_replaceable(self.target)
                shutil.rmtree(self.target)
            self.part.rename(self.target)
            return True

    @contextlib.contextmanager
    def _alone(self, *, wait: bool) -> Iterator[bool]:
        """Whether no other process is at the smaller levels meanwhile, where locks are known."""
        try:
            folder = os.open(self.part, os.O_RDONLY)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(folder, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        except OSError:  # a file system without locks: what is made twice is made alike
            alone = True
        try:
            yield alone
        finally:
            os.close(folder)

    def _make_smaller(self, level: int, index: int) -> bool:
        """Make a shard of a smaller level, where it can be; whether it is there now."""
        if self.has(level, index):
            return True
        rows, columns = self.place(level, index)
        height, width = self._size(level - 1)
        below = slice(2 * rows.start, min(2 * rows.stop, height))
        beside_it = slice(2 * columns.start, min(2 * columns.stop, width))
        if not all(self.has(level - 1, each) for each in self._within(level - 1, below, beside_it)):
            return False
        pixels = np.asarray(self._arrays[level - 1][:, below, beside_it])
        self._put(level, index, _mean(pixels).transpose(1, 2, 0))
        return True

    def _missing(self, level: int, among: Iterable[int]) -> list[int]:
        """Shards that are not there; an empty file is what a loss of power left."""
        folder = self.part if self.part.exists() else self.target  # which another gave its name
        folder = folder / str(level) / self._inside

        def is_there(index: int) -> bool:
            rows, columns = (
                range(where.start // self._side, -(-where.stop // self._side))
                for where in self.place(level, index)
            )
            files = (folder / str(row) / str(column) for row in rows for column in columns)
            try:
                return all(path.stat().st_size > 0 for path in files)
            except FileNotFoundError:
                return False

        return [index for index in among if not is_there(index)]

    def _put(self, level: int, index: int, pixels: Array) -> None:
        rows, columns = self.place(level, index)
        with told(self.target):
            self._arrays[level][:, rows, columns] = pixels.transpose(2, 0, 1)

    def _size(self, level: int) -> tuple[int, int]:
        _, height, width = self._arrays[level].shape
        return height, width

    def _grid(self, level: int) -> tuple[int, int]:
        height, width = self._size(level)
        return -(-height // SHARD), -(-width // SHARD)

    def _within(self, level: int, rows: slice, columns: slice) -> Iterator[int]:
        across = self._grid(level)[1]
        for row in range(rows.start // SHARD, -(-rows.stop // SHARD)):
            for column in range(columns.start // SHARD, -(-columns.stop // SHARD)):
                yield row * across + column


def passes_folder(target: Path) -> Path:
    """Where processes that make an image share what passes over it found, until it is there."""
    return beside(target, "part") / "passes"


def begun_with(target: Path) -> dict[str, Any] | None:
    """The identity of what was begun and is not published, or nothing."""
    return _marked(beside(target, "part"))


def check_place(target: Path, *, force: bool) -> None:
    """Refuse, before the work, a folder that could not be written or must not be replaced."""
    library("zarr", "zarr", "zarr", target)
    if target.is_symlink():
        raise SincutError(f"{target} is a link; give the folder that it leads to")
    if target.exists():
        if not force:
            raise SincutError(f"{target} exists already; try --force or another -o")
        check_replaceable(target)
    check_parent(target)


def check_replaceable(target: Path) -> None:
    """Refuse to replace what sincut did not write."""
    if not target.is_dir() or _marked(target) is None:
        raise SincutError(
            f"{target} was not written by sincut and is not replaced; remove it or give another -o"
        )


def lost(carried: KeptMetadata, strip_metadata: bool) -> list[str]:
    """The notice of what OME-Zarr cannot hold."""
    if strip_metadata:
        return []
    kept = {"EXIF": carried.exif, "GeoTIFF tags": carried.geo}
    names = [name for name, value in kept.items() if value]
    names += record_options("OME-Zarr", carried.records)[2]
    return not_kept(names, ": OME-Zarr cannot hold {}")


@contextlib.contextmanager
def told(target: Path) -> Iterator[None]:
    """What the system says of a place, as one line."""
    try:
        yield
    except OSError as error:
        raise SincutError(
            f"cannot write {target} ({error.strerror or error}); check the place and its free space"
        ) from None


def _of_layout(layout: Layout) -> dict[str, Any]:
    return {
        "height": layout.height,
        "width": layout.width,
        "number of channels": layout.channels,
        "depth": layout.dtype.name,
    }


def _marked(folder: Path) -> dict[str, Any] | None:
    """What sincut noted in a folder that it wrote, or nothing."""
    try:
        if (folder / ".zattrs").exists():  # of version 0.4
            attributes = json.loads((folder / ".zattrs").read_text())
        else:
            attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
        said = attributes[_MARK]["identity"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return said if isinstance(said, dict) else None


def _create(
    target: Path,
    part: Path,
    layout: Layout,
    dpi: tuple[float, float] | None,
    identity: Mapping[str, Any],
    version: str,
    *,
    joined: bool,
) -> None:
    """All but the shards, under a third name first: of several processes one begins."""
    zarr = library("zarr", "zarr", "zarr", target)
    new = part.with_name(f"{part.name}.{uuid.uuid4().hex}")
    sizes = [(layout.height, layout.width)]
    while max(sizes[-1]) > CHUNK:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    of_image = _ome(target, layout, dpi, len(sizes), version)
    attributes = of_image if version == "0.4" else {"ome": {"version": version, **of_image}}
    attributes[_MARK] = {"version": __version__, "identity": dict(identity)}
    try:
        group = zarr.create_group(
            store=str(new), attributes=attributes, zarr_format=2 if version == "0.4" else 3
        )
        for level, size in enumerate(sizes):
            group.create_array(
                str(level),
                shape=(layout.channels, *size),
                chunks=(layout.channels, CHUNK, CHUNK),
                dtype=layout.dtype.name,
                fill_value=0,
                **_kept_as(zarr, layout, version),
            )
        try:
            new.rename(part)
        except OSError as error:
            if error.errno not in _THERE:
                raise
            if not joined:
                raise SincutError(
                    f"{target} is being written by another process at this moment; wait for its "
                    "end or give another -o"
                ) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _kept_as(zarr: Any, layout: Layout, version: str) -> dict[str, Any]:
    """How an array lies on the disk."""
    if version == "0.4":
        import numcodecs  # zarr's own

        # Of its codecs the one that other readers have, too.
        return {
            "compressors": numcodecs.Blosc(cname="zstd", clevel=3),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    return {
        "compressors": zarr.codecs.ZstdCodec(level=3),
        "shards": (layout.channels, SHARD, SHARD),
        "dimension_names": ["c", "y", "x"],
    }


def _ome(
    target: Path, layout: Layout, dpi: tuple[float, float] | None, levels: int, version: str
) -> dict[str, Any]:
    """The metadata of an image; those of 0.4 say their version in each part."""
    told = {"version": version} if version == "0.4" else {}
    across, down = (MICROMETRES_PER_INCH / each for each in dpi) if dpi else (1.0, 1.0)
    unit = {"unit": "micrometer"} if dpi else {}
    top = 1.0 if layout.dtype.kind == "f" else float(np.iinfo(layout.dtype).max)
    window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
    return {
        "multiscales": [
            {
                **told,
                "name": target.name.split(".")[0],
                "type": "mean",
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", **unit},
                    {"name": "x", "type": "space", **unit},
                ],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, down * 2**level, across * 2**level]}
                        ],
                    }
                    for level in range(levels)
                ],
            }
        ],
        "omero": {
            **told,
            "channels": [
                {"label": label, "color": colour, "active": label != "alpha", "window": window}
                for label, colour in _COLOURS[: layout.channels]
            ],
        },
    }


def _mean(pixels: Array) -> Array:
    """(C, ⌈H / 2⌉, ⌈W / 2⌉) means of four, rounded; at odd ends of two, or the pixel itself."""
    height, width = pixels.shape[1:]
    even = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    wide = even.astype(np.float32 if even.dtype.kind == "f" else np.uint32)
    total = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
    mean = total / 4 if even.dtype.kind == "f" else (total + 2) // 4
    result: Array = mean.astype(pixels.dtype)
    return result
