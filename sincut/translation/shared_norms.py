"""The passes of a network that normalises over the whole image, in parts that many processes make.

A part is a shard's worth of the image. Of a pass it leaves files in a folder that all processes
share: its features, where some are kept, and then, in float64, the sums of what it saw. That the
sums are there says that the part is done; it does not matter who made it, nor when. The sums of all
parts are added exactly, so that all processes find the same norms. A file is never changed: a part
that is made twice is made alike, and one that was killed leaves nothing that counts. What no later
pass reads is deleted.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError, one_line
from sincut.models.resnet import ResnetGenerator
from sincut.models.resnet_layers import Convolution, Layer
from sincut.translation.operators import Opened, Operator, Preparation
from sincut.translation.scratch import FileScratch, scratch_bytes
from sincut.translation.tiling import Span, Tile, spans, tiles
from sincut.translation.whole_image_norms import REACH, STEP, Moments, Norm, WholeImageNorms, wanted

Array = npt.NDArray[Any]
Sums = npt.NDArray[np.float64]
ReadWindow = Callable[[slice, slice], Array]  # rows and columns of the image → their sRGB

_KEPT_AT_ONCE = 4  # features of the image: two that a pass reads, two that it writes
_VISIBLE_SECONDS = 30.0  # until a file that another machine wrote is seen, at most
_LOOK_SECONDS = 0.2
# How long nothing may come of other processes until their parts are made in their place: at least,
# and in times of what an own part took.
_PATIENCE_SECONDS, _SLOWER = 20.0, 4.0


@dataclass(frozen=True)
class _Pass:
    """Once over the image: ``make`` does a part of it, ``know`` what follows from all of it.

    ``make`` writes features into files of all ``kinds``, and returns the sums.
    """

    make: Callable[[Tile, dict[str, _PartFile]], Moments | None]
    know: Callable[[Moments | None], None]
    kinds: tuple[str, ...] = ()


class SharedNorms(WholeImageNorms):
    """A ResNet as an operator on an image that several processes translate.

    Args:
        height, width: of the image.
        folder: where :meth:`another` keeps what does not fit into memory.
        where: the folder that they share, which need not be there.
        part: side of a part in pixels, a multiple of 4.
    """

    whole_first = False

    def __init__(
        self,
        generator: ResnetGenerator,
        config: TranslateConfig,
        height: int,
        width: int,
        folder: Path,
        where: Path,
        part: int,
    ) -> None:
        super().__init__(generator, config, height, width, folder)
        self._parts = list(tiles(self._rows, self._columns, part, 0, STEP))
        self._where, self._part = where, part
        self._passes = self._listed()
        self._made = 0  # passes that are whole
        self._known = 0  # passes of which everything is
        self._inside: Norm | None = None  # of a block, between its convolutions
        self._side = 0
        self._read: ReadWindow | None = None

    def begin(self, read: ReadWindow, side: int) -> None:
        """See the image through ``read``, in windows of about ``side`` pixels."""
        self._read, self._side = read, side

    @property
    def count(self) -> int:
        """How many passes there are before the tiles."""
        return len(self._passes)

    @property
    def parts(self) -> int:
        """Of how many parts each is."""
        return len(self._parts)

    def done(self) -> int:
        """How many parts of all passes are there: a pass begins when the one before is whole."""
        while self._made < self.count:
            if left := len(self.missing(self._made)):
                return (self._made + 1) * self.parts - left
            self._made += 1
        return self.count * self.parts

    def missing(self, number: int, among: Iterable[int] | None = None) -> list[int]:
        """Which parts of a pass are not there, of all or of some of them."""
        if number < max(self._known, self._made) or self._sums_file(number).exists():
            return []
        among = range(self.parts) if among is None else among
        return [part for part in among if not self._sums_file(number, part).exists()]

    @torch.inference_mode()
    def make(self, number: int, part: int) -> None:
        """Make a part of a pass; all earlier passes are whole.

        Raises:
            SincutError: what earlier passes left is gone, or there is no room.
        """
        self._know(number)
        if not self.missing(number, [part]):
            return
        step, area = self._passes[number], self._parts[part]
        folder = self._where / f"{number:02d}"
        try:
            with ExitStack() as stack:
                files = {
                    kind: stack.enter_context(self._written(folder.with_suffix(f".{kind}"), part))
                    for kind in step.kinds
                }
                with self._precision():
                    moments = step.make(area, files)
        except SincutError:
            if self.missing(number, [part]):
                raise
            return  # others were faster, and have deleted what it was made from
        sums = moments.sums if moments is not None else np.zeros(1)
        _save(self._sums_file(number, part), sums)

    def prepare(self, opened: Opened, side: int, on_window: Callable[[], None]) -> None:
        """Take what the passes found; all are whole."""
        self._know(self.count)

    def close(self) -> None:
        """As :class:`Operator` says; the files stay."""
        super().close()
        self._known, self._inside = 0, None

    def another(self) -> Operator:
        """As :class:`Operator` says: by one process, in windows of another side."""
        return WholeImageNorms(self.generator, self.config, self.height, self.width, self.folder)

    def preparation(self, side: int) -> Preparation:
        """As :class:`Operator` says; ``scratch_bytes`` are less by what is there."""
        kept = _KEPT_AT_ONCE * scratch_bytes(self._shape, self._kept_type)
        there = sum(map(_size, self._where.glob("*.*/*")))
        step = max(side // STEP, 1) * STEP + 2 * REACH
        return Preparation(
            passes=self.count + 1,
            windows=self.count * self.parts,
            host_bytes=self._window_bytes(step, step),
            scratch_bytes=max(kept - there, 0),
        )

    def _in_one_piece(self, side: int) -> bool:
        return False

    # ------------------------------------------------------------------------------ the passes

    def _listed(self) -> list[_Pass]:
        """All passes, in their order."""
        found = []
        for chain in self._up_to_norms(self.generator.encoder):
            made = partial(self._encoded_part, chain)
            found.append(_Pass(made, partial(self._set_norm, chain[-1])))
        keep = partial(self._encoded_part, self.generator.encoder)
        found.append(_Pass(keep, partial(self._take_x, len(found)), ("x",)))
        for number, block in enumerate(self.generator.blocks_in_order):
            kinds = ("raw", "x") if number else ("raw",)
            first = partial(self._convolved_part, block.conv1, self._sum_of_window)
            found.append(_Pass(first, partial(self._take_first, len(found), bool(number)), kinds))
            second = partial(self._convolved_part, block.conv2, self._between_window)
            found.append(_Pass(second, partial(self._take_second, len(found)), ("raw",)))
        for chain in self._up_to_norms(self.generator.decoder):
            decoded = partial(self._decoded_part, chain)
            found.append(_Pass(decoded, partial(self._set_norm, chain[-1])))
        return found

    def _encoded_part(
        self, layers: Sequence[Layer], area: Tile, files: dict[str, _PartFile]
    ) -> Moments | None:
        """Features of the encoder's first layers: kept where there is a file, else summed."""
        assert self._read is not None
        _, first, last = wanted(layers, area.rows, self._rows, self._rows)
        _, left, right = wanted(layers, area.columns, self._columns, self._columns)
        first, last = (min(row, self.height - 1) for row in (first, last))
        left, right = (min(column, self.width - 1) for column in (left, right))
        loaded = self._read(slice(first, last + 1), slice(left, right + 1))
        moments = Moments()

        def work(part: Tile) -> None:
            features = self._encoded(layers, loaded, first, part, left)
            if files:
                files["x"].write(part.rows.start // STEP, part.columns.start // STEP, features)
            else:
                moments.add(features)

        self._each_window(area, work)
        return None if files else moments

    def _decoded_part(
        self, layers: Sequence[Layer], area: Tile, files: dict[str, _PartFile]
    ) -> Moments:
        moments = Moments()
        self._each_window(area, lambda part: moments.add(self._decoded(layers, part)))
        return moments

    def _convolved_part(
        self,
        conv: Convolution,
        given: Callable[[int, int, int, int], Tensor],
        area: Tile,
        files: dict[str, _PartFile],
    ) -> Moments:
        """A convolution of what is kept; with a file for x, of a new x, which is kept too."""
        height, width, _ = self._shape
        moments = Moments()

        def work(part: Tile) -> None:
            (rows,), top, bottom = wanted([conv], part.rows, height, self._rows)
            (columns,), left, right = wanted([conv], part.columns, width, self._columns)
            window = given(top, bottom + 1, left, right + 1)
            if "x" in files:
                down = slice(rows.first - top, rows.last + 1 - top)
                across = slice(columns.first - left, columns.last + 1 - left)
                files["x"].write(rows.first, columns.first, window[:, :, down, across])
            raw = conv.windowed(window, rows, columns)
            files["raw"].write(rows.first, columns.first, raw)
            moments.add(raw)

        self._each_window(area, work)
        return moments

    def _sum_of_window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        return self._sum(self._last_norm, top, bottom, left, right)

    def _between_window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        assert self._raw is not None
        assert self._inside is not None
        return self._inside(self._raw.read(top, bottom, left, right).to(self.device)).relu_()

    def _each_window(self, area: Tile, work: Callable[[Tile], None]) -> None:
        rows, columns = (
            spans(length, self._side, 0, STEP, self.border, span.start, span.stop)
            for length, span in ((self._rows, area.rows), (self._columns, area.columns))
        )
        for row in rows:
            for column in columns:
                self._in_parts(Tile(row, column), work)

    # ------------------------------------------------------------------------ what is known of them

    def _know(self, number: int) -> None:
        """Take what passes before ``number`` found, in their order."""
        while self._known < number:
            at = self._known
            sums = self._sums_of(at)
            moments = None if len(sums) == 1 else Moments.of([sums], self.device)
            self._passes[at].know(moments)
            self._known += 1
            self._delete_before(self._known)

    def _sums_of(self, number: int) -> Sums:
        """Those of a whole pass, or one number where there are none."""
        whole = self._sums_file(number)
        if not whole.exists():
            paths = [self._sums_file(number, part) for part in range(self.parts)]
            try:
                parts = [_loaded(path) for path in paths]
            except SincutError:
                if not whole.exists():  # another has written it, and deleted these
                    raise
            else:
                with_sums = len(parts[0]) > 1
                _save(whole, Moments.of(parts, self.device).sums if with_sums else parts[0])
        return _loaded(whole)

    def _set_norm(self, layer: Layer, moments: Moments | None) -> None:
        self._norms[layer] = _norm(moments, self.dtype)

    def _take_x(self, number: int, moments: Moments | None) -> None:
        self._x = self._stored(number, "x")

    def _take_first(self, number: int, with_x: bool, moments: Moments | None) -> None:
        """Behind a block's first convolution, which wrote the sum of the block before."""
        if with_x:
            self._x = self._stored(number, "x")
        self._raw, self._inside = self._stored(number, "raw"), _norm(moments, self.dtype)

    def _take_second(self, number: int, moments: Moments | None) -> None:
        self._raw, self._last_norm = self._stored(number, "raw"), _norm(moments, self.dtype)

    def _delete_before(self, number: int) -> None:
        """What was written before a pass and is not read by it, nor by a later one."""
        read = {each.folder for each in (self._x, self._raw) if isinstance(each, _Stored)}
        for folder in self._where.glob("*.*"):
            if folder.is_dir() and int(folder.stem) < number and folder not in read:
                shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------------------- their files

    def _sums_file(self, number: int, part: int | None = None) -> Path:
        """That of a part, or of the whole pass."""
        if part is None:
            return self._where / f"{number:02d}.npy"
        return self._where / f"{number:02d}.sums" / f"{part}.npy"

    def _stored(self, number: int, kind: str) -> _Stored:
        folder = self._where / f"{number:02d}.{kind}"
        return _Stored(folder, self._shape, self._part // STEP, self._kept_type)

    @contextmanager
    def _written(self, folder: Path, part: int) -> Iterator[_PartFile]:
        """A part's features, which appear under their name when they are whole."""
        area = self._parts[part]
        with _whole_file(folder / str(part)) as file:
            yield _PartFile(area, self._shape[2], self._kept_type, folder, file)


def make_passes(
    passes: SharedNorms, mine: Sequence[int], index: int, tell: Callable[[], None]
) -> list[str]:
    """Make one's own parts of all passes, and those of processes that do not go on.

    Args:
        index: which process this is, from 0.
        tell: called after each part.

    Returns:
        what is to be told.
    """
    longest, taken, gone = 0.0, 0, False
    for number in range(passes.count):
        for part in passes.missing(number, mine):
            started = time.monotonic()
            passes.make(number, part)
            longest = max(longest, time.monotonic() - started)
            tell()
        left, since = passes.missing(number), time.monotonic()
        while left:
            time.sleep(_LOOK_SECONDS)
            made = 0
            patience = max(_PATIENCE_SECONDS, _SLOWER * longest)
            if gone or time.monotonic() - since > patience:
                gone = True
                passes.make(number, left[index % len(left)])
                made, taken = 1, taken + 1
                tell()
            before, left = left, passes.missing(number, left)
            if len(left) < len(before) - made:  # others are heard of again
                gone, since = False, time.monotonic()
    if not taken:
        return []
    return [f"{taken} parts of its passes were made in place of processes that did not go on"]


class _PartFile(FileScratch):
    """The features of a part, by their place in the image."""

    def __init__(
        self, area: Tile, channels: int, dtype: torch.dtype, folder: Path, file: Any
    ) -> None:
        rows, columns = area.rows, area.columns
        self._top, self._left = rows.start // STEP, columns.start // STEP
        shape = (_kept(rows), _kept(columns), channels)
        super().__init__(shape, dtype, folder, file)

    def write(self, top: int, left: int, features: Tensor) -> None:
        """As :meth:`Scratch.write`."""
        super().write(top - self._top, left - self._left, features)


class _Stored:
    """Features that are there in parts of ``side`` features, as
    :class:`sincut.translation.scratch.Scratch`."""

    def __init__(
        self, folder: Path, shape: tuple[int, int, int], side: int, dtype: torch.dtype
    ) -> None:
        self.folder, self.shape, self.side, self.dtype = folder, shape, side, dtype

    def read(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """As :meth:`Scratch.read`."""
        height, width, channels = self.shape
        features = torch.empty((bottom - top, right - left, channels), dtype=self.dtype)
        across = -(-width // self.side)
        for row in range(top // self.side, -(-bottom // self.side)):
            first, last = row * self.side, min((row + 1) * self.side, height)
            above, below = max(top, first), min(bottom, last)
            for column in range(left // self.side, -(-right // self.side)):
                start, stop = column * self.side, min((column + 1) * self.side, width)
                begin, end = max(left, start), min(right, stop)
                size = last - first, stop - start, channels
                with _opened(self.folder / str(row * across + column)) as file:
                    there = FileScratch(size, self.dtype, self.folder, file)
                    part = there.read(above - first, below - first, begin - start, end - start)
                here = features[above - top : below - top, begin - left : end - left]
                here.copy_(part[0].permute(1, 2, 0))
        return features.permute(2, 0, 1)[None]

    def write(self, top: int, left: int, features: Tensor) -> None:
        """Not done: what is there is never changed."""
        raise NotImplementedError

    def close(self) -> None:
        """As :meth:`Scratch.close`; the files stay."""


def _norm(moments: Moments | None, dtype: torch.dtype) -> Norm:
    assert moments is not None
    return moments.norm(dtype)


def _kept(span: Span) -> int:
    return (span.stop - span.start) // STEP


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted by another at this moment
        return 0


def _save(path: Path, sums: Sums) -> None:
    with _whole_file(path) as file:
        file.write(sums.tobytes())


def _loaded(path: Path) -> Sums:
    with _opened(path) as file:
        return np.frombuffer(file.read())


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole. Its first name is like no other of any
    machine."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(new, "w+b", buffering=0) as file:
            yield file
        new.rename(path)
    except OSError as error:
        raise SincutError(
            f"cannot keep what is between two passes in {path.parent} "
            f"({error.strerror or one_line(error)}); free some space there, or try another place "
            "for the output"
        ) from None
    finally:
        with suppress(OSError):
            new.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there, though this machine may see it later than another wrote it."""
    until = time.monotonic() + _VISIBLE_SECONDS
    while True:
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115
            break
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or time.monotonic() > until:
                raise SincutError(
                    f"cannot read what an earlier pass left in {path} ({error.strerror}); check "
                    "the place, or try --force to start anew"
                ) from None
        time.sleep(_LOOK_SECONDS)
    with file:
        yield file
