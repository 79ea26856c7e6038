"""What reaches a terminal, whatever the names of files are."""

from __future__ import annotations

import io
import sys

LONGEST = 1000
"""Characters of a message; no path is longer than half of that, as a rule."""


def one_line(error: BaseException) -> str:
    """The message of an error as one line that a terminal shows as it is.

    Messages quote file names and contents, which may hold line breaks and escape sequences, and
    be of any length.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    return printable(text)


def printable(text: str) -> str:
    """``text`` with all that would act on a terminal, line breaks too, spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_anything() -> None:
    """Let output hold what its encoding lacks, as escapes: names of files may be any bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
