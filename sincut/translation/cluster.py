"""Tasks on a dask cluster, whose workers come and go. Needs the extra ``cluster``.

The scheduler gives the tasks of a worker that is lost to others, and so a task leaves something
whole, or nothing, wherever it ends. What all tasks need is sent once to each worker.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sincut.errors import SincutError, one_line
from sincut.images.reading.extras import library
from sincut.version import __version__

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_PATIENCE = "10s"  # for the scheduler's answer
_WORKERS_PATIENCE = 60  # seconds, for a first worker


@dataclass(frozen=True)
class Cluster:
    """A scheduler that answers, and has workers; made by :func:`connected`.

    ``common`` is what all tasks get, on its way or there; ``what`` a task makes, for messages.
    """

    client: Any
    library: Any
    common: Any
    what: str

    def outcomes(
        self,
        task: Callable[[Item, str, Any], Outcome],
        items: Sequence[Item],
        given_up: Callable[[Item, str], Outcome] | None = None,
    ) -> Iterator[Outcome]:
        """What ``task(item, version, common)`` returns, of each as it ends.

        A scheduler gives up a task with which some workers died, though it need not be its fault.
        It is begun again, unless nothing else was done since the last time.

        Args:
            given_up: what stands for the outcome of a task that ends every worker.

        Raises:
            SincutError: a task raised it, or a task could not be done.
        """
        try:
            yield from self._outcomes(task, items, given_up)
        except SincutError:
            raise
        except Exception as error:  # of the workers, of every kind
            raise SincutError(
                f"{self.what} could not be made on the cluster ({one_line(error)}); the workers "
                f"need sincut {__version__} and the paths of input and output"
            ) from None

    def _outcomes(
        self,
        task: Callable[[Item, str, Any], Outcome],
        items: Sequence[Item],
        given_up: Callable[[Item, str], Outcome] | None,
    ) -> Iterator[Outcome]:
        submit = partial(
            self.client.map, task, version=__version__, common=self.common, pure=False, retries=0
        )
        left: dict[Any, Item] = {}
        try:
            left = dict(zip(submit(items), items, strict=True))
            while left:
                lost, done = [], 0
                for each in self.library.as_completed(list(left), loop=self.client.loop):
                    error = each.exception()
                    if isinstance(error, self.library.KilledWorker):
                        lost.append(each)
                        continue
                    outcome = each.result()
                    del left[each]
                    done += 1
                    yield outcome
                if lost and not done:
                    if given_up is None:
                        lost[0].result()
                    for each in lost:
                        assert given_up is not None
                        yield given_up(left[each], one_line(each.exception()))
                    lost = []
                again = [left[each] for each in lost]
                left = dict(zip(submit(again), again, strict=True))
        finally:
            self.client.cancel(list(left))


@contextmanager
def connected(address: str, common: Any, what: str) -> Iterator[Cluster]:
    """A cluster at an address such as ``tcp://HOST:8786``; its tasks end with the block.

    Raises:
        SincutError: nobody answers, or there are no workers.
    """
    distributed = library("distributed", "distributed", "cluster", f"--cluster {address}")
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SincutError(
            f"no dask scheduler answers at {address} ({one_line(error)}); start one with dask "
            "scheduler, or correct --cluster"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKERS_PATIENCE)
        except TimeoutError:
            raise SincutError(
                f"the scheduler at {address} has no workers; start some with dask worker {address}"
            ) from None
        with warnings.catch_warnings():  # of its size: what is scattered dies with a worker
            warnings.filterwarnings("ignore", "Sending large graph")
            sent = client.submit(_same, common, pure=False)
        yield Cluster(client, distributed, sent, what)


def require_version(asking: str) -> None:
    """Refuse, on a worker, to work for another version of sincut."""
    if asking != __version__:
        raise SincutError(f"a worker has sincut {__version__}, and {asking} asks; install the same")


def _same(common: Any) -> Any:
    return common
