"""Ctrl-C, SIGTERM and SIGHUP, as something to be asked for or as ``KeyboardInterrupt``.

The two may stand inside each other: what the inner one receives the outer one has received too, so
that whoever started a piece of work learns of a signal whatever the piece came to.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def _numbers() -> list[int]:
    """Those that are caught; under ``nohup`` a terminal that closes ends nothing."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up else [])]


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect the first SIGINT, SIGTERM or SIGHUP; the second is delivered as ever.

    So a step in progress is finished. Outside the main thread Python cannot catch signals, and
    nothing is collected.
    """
    with _collecting(_Collector.restore) as received:
        yield received


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Collect every SIGINT, SIGTERM and SIGHUP, each of which raises ``KeyboardInterrupt`` as well.

    Those that :func:`signals` received inside are collected, and raise nothing. Outside the main
    thread Python cannot catch signals, and nothing is collected.
    """
    with _collecting(_interrupt) as received:
        yield received


class _Collector:
    """A handler of signals that tells what it receives to the one it stands in front of."""

    def __init__(self, then: Callable[[_Collector], None]) -> None:
        self.then = then
        self.received: list[int] = []
        self.before: dict[int, Any] = {number: signal.getsignal(number) for number in _numbers()}

    def __call__(self, number: int, frame: Any) -> None:
        self.note(number)
        self.then(self)

    def note(self, number: int) -> None:
        self.received.append(number)
        outer = self.before[number]
        if isinstance(outer, _Collector):
            outer.note(number)

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _interrupt(_: _Collector) -> None:
    raise KeyboardInterrupt


@contextmanager
def _collecting(then: Callable[[_Collector], None]) -> Iterator[list[int]]:
    collector = _Collector(then)
    try:
        for number in collector.before:
            signal.signal(number, collector)
    except ValueError:  # not the main thread
        yield collector.received
        return
    try:
        yield collector.received
    finally:
        collector.restore()
