"""What people read: lines, JSON, sizes, numbers and durations, whatever the names of files are."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import Any, TextIO

from minimind.errors import EXIT_CRASHED, MiniMindError
from minimind.system.jsonl import strict

LONGEST = 1000
"""Characters of a message; no path is longer than half of that, as a rule."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""All control characters but tab and line feed, and those that turn the direction of a text."""


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


def visible(text: str) -> str:
    """``text`` of any lines with what would act on a terminal, colours too, spelt out."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def print_anything() -> None:
    """Let output hold what its encoding lacks, as escapes: names of files may be any bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def note(text: str) -> None:
    """A line for people, on standard error, so that ``--json`` stays clean."""
    print(visible(text), file=sys.stderr)


def complain(program: str, error: Exception) -> int:
    """Say in one line what ended ``program``; returns its exit code."""
    show(sys.stderr, f"{program}: error: {one_line(error)}\n")
    return error.exit_code if isinstance(error, MiniMindError) else EXIT_CRASHED


def show(stream: TextIO, text: str) -> None:
    """Writes for whoever still reads: a run must not end because nobody does any more."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        let_go(stream)


def let_go(stream: TextIO) -> None:
    """The terminal or the pipe is gone: what is written from now on, at exit too, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def json_text(value: Any) -> str:
    """How all commands write JSON, which has no NaN: see :mod:`minimind.system.jsonl`."""
    text = json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json_text(value))


def size_text(n_bytes: float) -> str:
    """``12345678`` → ``12.3 MB`` (1 MB = 1e6 bytes)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError


def count_text(number: float) -> str:
    """``4980000`` → ``4.98M``."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.2f}{unit}"
    return f"{number:.0f}"


def number_text(value: float) -> str:
    """A number for an axis or a tooltip: short, and never in the E notation of programmers.

    >>> number_text(12000), number_text(0.0005), number_text(2.5)
    ('12k', '0.0005', '2.5')
    """
    size = abs(value)
    if size >= 1e5 or (size >= 1e4 and value % 1000 == 0):
        for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
            if size >= limit:
                return f"{value / limit:.4g}{unit}"
    if size and size < 1e-5:
        mantissa, power = f"{value:.2g}".split("e") if "e" in f"{value:.2g}" else (value, 0)
        return f"{mantissa}·10^{int(power)}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def short_duration(seconds: float | None) -> str:
    """``95`` → ``1m35s``; hours and days where they matter; ``—`` for None."""
    if seconds is None:
        return "—"
    total = int(seconds)
    days, rest = divmod(total, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{secs:02}s" if minutes else f"{secs}s"


def long_duration(seconds: float) -> str:
    """``3725`` → ``1 h 2 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 or seconds == 0 else f"{seconds:.1f} s"
    if seconds < 599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
