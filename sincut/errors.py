"""The exceptions for what the user can mend, and the one for being stopped."""

from __future__ import annotations


def one_line(problem: object) -> str:
    """A problem's text with its line breaks and runs of spaces folded."""
    return " ".join(str(problem).split())


def printable(text: str) -> str:
    """A line of text with what would move the cursor, as newlines in a file's name, escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "backslashreplace").decode()
        for each in text
    )


def first_line(problem: object) -> str:
    """What a long text of another program begins with."""
    return str(problem).strip().partition("\n")[0]


class SincutError(Exception):
    """Something the person who typed can put right.

    The message is one line that says what is wrong, what was given, what is allowed and what to
    try. The command line prints it and exits with 2; every other exception keeps its traceback.
    """


def empty_name(what: str) -> SincutError:
    """Of an empty text where a path is wanted, which would mean the current folder."""
    return SincutError(f"{what} is an empty name; give a path, or . for the current folder")


class ToldByAnother(SincutError):
    """One that another process of the same work tells, so that it is told once."""


class Interrupted(KeyboardInterrupt):
    """The person, or the system, asked to stop. The message says what is kept and how to go on."""
