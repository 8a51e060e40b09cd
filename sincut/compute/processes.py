"""Several processes on one piece of work: which one this is, as ``torchrun`` tells it, and what
they tell each other.

What is said between :meth:`Processes.joined`'s begin and end every process has to call in the same
order. A process that is alone says nothing to nobody, and torch.distributed is not touched.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sincut.errors import SincutError, ToldByAnother, first_line

T = TypeVar("T")

# How long one waits for the others. The first makes previews and figures while they wait.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and which GPU of its machine is its own."""

    index: int
    count: int
    gpu: int | None
    gone: list[str] = field(default_factory=list, compare=False, repr=False)  # how one was missed

    @classmethod
    def from_environment(cls) -> Processes:
        """As ``torchrun`` tells it."""
        numbers: dict[str, int] = {}
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            if name in os.environ:
                value = os.environ[name]
                if not (value.isascii() and value.isdigit()):
                    raise SincutError(
                        f"{name} in the environment must be a whole number, got {value!r}; "
                        "start with torchrun, or without it"
                    )
                numbers[name] = int(value)
        index, count = numbers.get("RANK", 0), numbers.get("WORLD_SIZE", 1)
        if index >= count or (count > 1 and "RANK" not in numbers):
            raise SincutError(
                f"RANK in the environment must be below WORLD_SIZE, got "
                f"{numbers.get('RANK', 'none')} and {numbers.get('WORLD_SIZE', 'none')}; "
                "start with torchrun, or without it"
            )
        return cls(index, count, numbers.get("LOCAL_RANK"))

    def mine(self, number: int) -> bool:
        """Whether a numbered piece of work is this process's to do."""
        return number % self.count == self.index

    def choose_gpu(self, device: str) -> None:
        """Make the process's own GPU the one that ``cuda`` means."""
        if device != "cuda" or self.gpu is None:
            return
        present = torch.cuda.device_count()
        if self.gpu >= present:
            raise SincutError(
                f"LOCAL_RANK in the environment must be below the number of GPUs, {present}, got "
                f"{self.gpu}; try torchrun --nproc-per-node {present}"
            )
        torch.cuda.set_device(self.gpu)

    @property
    def leads(self) -> bool:
        """Whether this is the first, which writes and speaks for all."""
        return self.index == 0

    @contextlib.contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Inside, the processes hear each other: tensors on a GPU by NCCL, others by Gloo.

        ``device`` is ``auto``, ``cuda`` or ``cpu``; the process's own GPU is chosen.
        """
        on_cuda = device != "cpu" and torch.cuda.is_available()
        if on_cuda:
            self.choose_gpu("cuda")
        if self.count == 1:
            yield
            return
        if not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise SincutError(
                f"{self.count} processes need MASTER_ADDR and MASTER_PORT in the environment to "
                f"train together, got none; try torchrun --nproc-per-node {self.count} -m sincut …"
            )
        backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
        # What this package imports while processes hear each other keeps their group for good, in
        # defaults of arguments, and the group's threads may then abort the process as it ends.
        # torch.compile imports it.
        importlib.import_module("torch.distributed.nn")
        with self._hearing():
            dist.init_process_group(
                backend, timeout=_PATIENCE, rank=self.index, world_size=self.count
            )
        try:
            with self._speaking_first():
                yield
        finally:
            dist.destroy_process_group()

    def by_all(self, work: Callable[[], T]) -> T:
        """Every process does it; a ``SincutError`` in one is raised in all, and told by the first.

        Returns what the work came to here.
        """
        if self.count == 1:
            return work()
        found, error = _attempt(work)
        if self.largest(int(error is not None)) != [0]:
            self._raise_any(self._exchanged(_text(error)))
        return found  # type: ignore[return-value]

    def by_first(self, work: Callable[[], T]) -> T:
        """The first does it, and all get what it came to; errors as in :meth:`by_all`."""
        if self.count == 1:
            return work()
        found, error = _attempt(work) if self.leads else (None, None)
        text, first = self._exchanged((_text(error), found))[0]
        self._raise_any([text])
        return first  # type: ignore[no-any-return]

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number over all processes."""
        if self.count == 1:
            return [*numbers]
        found = torch.tensor(numbers)
        with self._hearing():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [int(number) for number in found]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one type by their means over all processes, in one exchange."""
        if self.count == 1:
            return
        kept = [*tensors]
        joined = torch.cat([each.flatten() for each in kept])
        with self._hearing():
            dist.all_reduce(joined)
        joined /= self.count
        _take_apart(joined, kept)

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.count == 1:
            return
        kept = [*tensors]
        for kind in dict.fromkeys(each.dtype for each in kept):
            of_kind = [each for each in kept if each.dtype == kind]
            joined = torch.cat([each.flatten() for each in of_kind])
            with self._hearing():
                dist.broadcast(joined, 0)
            _take_apart(joined, of_kind)

    def gathered(self, rows: Tensor) -> Tensor:
        """(count, …): the tensors of all processes, which have one shape, without a gradient."""
        if self.count == 1:
            return rows.detach()[None]
        found = rows.new_empty((self.count, *rows.shape))
        with self._hearing():
            dist.all_gather([*found], rows.detach().contiguous())
        return found

    def _exchanged(self, mine: Any) -> list[Any]:
        """What every process has here."""
        found: list[Any] = [None] * self.count
        with self._hearing():
            dist.all_gather_object(found, mine)
        return found

    def _raise_any(self, errors: list[str | None]) -> None:
        for text in errors:
            if text is not None:
                raise SincutError(text) if self.leads else ToldByAnother(text)

    @contextlib.contextmanager
    def _speaking_first(self) -> Iterator[None]:
        """Where one is gone, torchrun ends the others with SIGTERM: not before it is said."""

        def end(number: int, _: Any) -> None:
            signal.signal(number, before)
            if not self.gone:
                signal.raise_signal(number)

        before = signal.getsignal(signal.SIGTERM)
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, end)
        try:
            yield
        finally:
            if not self.gone:
                with contextlib.suppress(ValueError):
                    signal.signal(signal.SIGTERM, before)

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        """Whoever is gone is an error of one line, which the first process tells."""
        try:
            yield
        except RuntimeError as error:
            text = (
                f"one of the {self.count} processes of this training is gone "
                f"({first_line(error)}); the last saved state is kept; start all of them again, "
                "with --resume"
            )
            self.gone.append(text)
            raise (SincutError(text) if self.leads else ToldByAnother(text)) from error


ALONE = Processes(0, 1, None)


def _attempt(work: Callable[[], T]) -> tuple[T | None, SincutError | None]:
    try:
        return work(), None
    except SincutError as error:
        return None, error


def _text(error: SincutError | None) -> str | None:
    return None if error is None else str(error)


def _take_apart(joined: Tensor, targets: list[Tensor]) -> None:
    """Copy what was joined back to where it came from."""
    parts = joined.split([each.numel() for each in targets])  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for target, part in zip(targets, parts, strict=True):
            target.copy_(part.view(target.shape))
