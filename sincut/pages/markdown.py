"""Pieces of Markdown: text that stands for itself, tables, code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Any text on one line of Markdown, where it stands for itself, in tables too.

    Line breaks and other controls become spaces, bytes of a file name that are no text question
    marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"([\\`*_{}\[\]<>()#|~$&!@])", r"\\\1", text).strip() or "(no name)"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = False) -> str:
    """A table whose cells are Markdown already.

    With ``aligned`` the columns stand under each other in the text as well, for a terminal.
    """
    lines = [[" ".join(cell.splitlines()) for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) if aligned else 3 for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    if aligned:
        lines = [
            [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
        ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fence(code: str, language: str) -> str:
    """A block of code that nothing in it can end."""
    code = code.encode("utf-8", "replace").decode("utf-8")
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{code}\n{marks}"
