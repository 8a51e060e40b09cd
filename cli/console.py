"""What the commands print: lines for people, JSON records for programs, progress for terminals."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from sincut.errors import printable


class Console:
    """Says things to a person or, with ``as_json``, hands records to a program."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json

    def line(self, text: str) -> None:
        """A line on standard output for a person."""
        if not (self.quiet or self.as_json):
            _say(text)

    def block(self, text: str) -> None:
        """Several lines, as :meth:`line`; no name of a file stands in them."""
        for line in text.split("\n"):
            self.line(line)

    def record(self, record: dict[str, Any]) -> None:
        """A JSON object on a line of its own, where those were asked for."""
        if self.as_json:
            _say(json.dumps(record))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """``update(text, done, total)`` moves a bar on standard error, if that is a terminal."""
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        terminal = Terminal(stderr=True)
        silent = self.quiet or self.as_json or not terminal.is_terminal
        columns = (
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=terminal, disable=silent, transient=True) as bar:
            task = bar.add_task("", total=1)

            def update(text: str, done: int, total: int) -> None:
                bar.update(task, description=text, completed=done, total=total)

            yield update


def _say(text: str) -> None:
    """A line on standard output; where nobody reads it any more, the work goes on without words."""
    try:
        click.echo(printable(text))
    except OSError:  # the reader of a pipe has left, or the disk that lines go to is full
        with contextlib.suppress(OSError, ValueError):
            # What is left in buffers would fail once more when Python ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
