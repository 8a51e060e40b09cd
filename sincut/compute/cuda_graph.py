"""A step that is recorded once on CUDA and then replayed, so that nothing but the GPU does work.

A step of these small networks is some thousand launches of a few microseconds each; issued one by
one by Python they take longer than the GPU needs for them. A CUDA graph issues them all at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sincut.errors import first_line

Kind = TypeVar("Kind", bound=Hashable)
Terms = dict[str, Tensor]

# Calls of a kind before it is recorded: kernels are compiled, algorithms chosen and the optimisers'
# moments made in the first, none of which may happen while a graph is recorded.
EAGER_CALLS = 3


class RecordedStep(Generic[Kind]):
    """Calls ``step(kind)``; with ``record`` each kind is recorded after its first calls.

    ``step`` must read everything that changes from tensors that stay where they are, must not wait
    for the GPU, and must do the same work whenever it is called with the same kind. What it returns
    is overwritten by the next call of any kind.

    A recording that fails is an error of the call; with ``on_failure``, which is given the error
    and may raise it, nothing is recorded from then on and every call is the step itself.
    """

    def __init__(
        self,
        step: Callable[[Kind], Terms],
        *,
        record: bool,
        on_failure: Callable[[RuntimeError], None] | None = None,
    ) -> None:
        self.step, self.record, self.on_failure = step, record, on_failure
        self.calls: dict[Kind, int] = {}
        self.graphs: dict[Kind, tuple[torch.cuda.CUDAGraph, Terms]] = {}
        self._pool: Any = None

    def __call__(self, kind: Kind) -> Terms:
        """One step of that kind."""
        calls = self.calls[kind] = self.calls.get(kind, 0) + 1
        if self.record and calls > EAGER_CALLS and kind not in self.graphs:
            self._record(kind)
        if kind not in self.graphs:
            return self.step(kind)
        graph, terms = self.graphs[kind]
        graph.replay()
        return terms

    def forget(self, kind: Kind) -> None:
        """Free what was recorded of a kind that does not come again."""
        self.graphs.pop(kind, None)

    def _record(self, kind: Kind) -> None:
        try:
            self.graphs[kind] = self._recorded(kind)
        except RuntimeError as error:
            if _interrupted(error):  # what ending the recording says of it comes over that
                raise KeyboardInterrupt from error
            if self.on_failure is None:
                raise
            self.record = False
            self.graphs.clear()
            self.on_failure(error)

    def _recorded(self, kind: Kind) -> tuple[torch.cuda.CUDAGraph, Terms]:
        """Recording does not compute: the replay that follows is the step itself."""
        graph = torch.cuda.CUDAGraph()
        # A recording has a pool of its own; what eager calls left in the common one is not for it.
        torch.cuda.empty_cache()
        # Graphs are replayed one at a time, so they can share one pool of memory.
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool, stream=torch.cuda.current_stream()):
            terms = self.step(kind)
        return graph, terms


def not_recorded(what: str, error: RuntimeError) -> str:
    """The line for the person when ``on_failure`` lets the steps go on."""
    return f"{what} could not be recorded, so every kernel is issued by itself: {first_line(error)}"


def _interrupted(error: BaseException) -> bool:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KeyboardInterrupt):
            return True
        found = found.__context__
    return False


@contextlib.contextmanager
def own_stream(device: str) -> Iterator[None]:
    """On CUDA, a stream of its own for everything inside: graphs cannot be recorded on the default.

    Eager steps and recorded ones then follow each other in one order.
    """
    if device != "cuda":
        yield
        return
    before, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # also after an error: memory is not given to others before its work is done
        before.wait_stream(stream)
