"""Ctrl-C and SIGTERM as something to be asked for, so that a step in progress is finished."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM; the second is delivered as ever.

    Outside the main thread Python cannot catch signals, and nothing is collected.
    """
    received: list[int] = []
    try:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def receive(number: int, frame: Any) -> None:
            received.append(number)
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in before:
            signal.signal(number, receive)
    except ValueError:
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
