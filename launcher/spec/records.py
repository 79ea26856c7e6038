"""Reads the records of a run: ``events.jsonl`` and ``metrics.jsonl``.

Many processes on many nodes append to them, and some are killed while they do. A line that is
no record as its readers know it is left out: one bad line must not take a command away.
Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""``time`` (Unix seconds), ``event`` (its kind), and what belongs to that kind."""

Point = dict[str, Any]
"""What the training logged at one moment."""

MOST = 1 << 62
NON_FINITE = ("NaN", "Infinity", "-Infinity")
"""How the training writes a number that JSON has not."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < MOST and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _word(value: Any) -> bool:
    """A name of something, which goes into a table on a terminal."""
    return isinstance(value, str) and len(value) <= 255 and value.isprintable()


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(map(_word, value))


def _code(value: Any) -> bool:
    return value is None or (isinstance(value, int) and abs(value) < MOST)


def _loss(value: Any) -> bool:
    return _number(value) or value in NON_FINITE


Fields = Mapping[str, Callable[[Any], bool]]

EVENT_FIELDS: Fields = {
    "time": _number,
    "event": _word,
    "attempt": _whole,
    "step": _whole,
    "pid": _whole,
    "log_offset": _whole,
    "stall_seconds": _number,
    "exit_code": _code,
    "job_id": lambda value: _word(value) and len(value) <= 32,
    "cause": _word,
    "reason": _text,
    "cluster": _word,
    "host": _word,
    "what": _word,
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "submitted": ("job_id",),
    "attempt_started": ("attempt",),
    "attempt_ended": ("attempt", "cause"),
    "requeued": ("cause",),
    "requeue_failed": ("reason",),
    "supervisor_started": ("pid",),
    "preparing": ("what",),
}
POINT_FIELDS: Fields = {
    "time": _number,
    "epoch": _whole,
    "step": _whole,
    "global_step": _whole,
    "total_steps": _whole,
    "tokens_per_second": _number,
    "checkpoint_seconds": _number,
    "loss": _loss,
}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of ``path``, one a line; missing file: none; torn lines: left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def read_events(path: Path) -> list[Event]:
    """All events of a run, oldest first."""
    return [event for event in read_json_lines(path) if is_event(event)]


def read_points(path: Path) -> list[Point]:
    """All points that a run's training logged, in the order of the file."""
    return [point for point in read_json_lines(path) if _fits(point, POINT_FIELDS)]


def is_event(value: dict[str, Any]) -> bool:
    """True when ``value`` has what every reader of its kind of event relies on."""
    if not {"time", "event"} <= value.keys() or not _fits(value, EVENT_FIELDS):
        return False
    kind = value["event"]
    if kind == "attempt_started" and not _words(value.get("nodes", [])):
        return False
    return all(name in value for name in NEEDED.get(kind, ()))


def _fits(value: dict[str, Any], known: Fields) -> bool:
    return all(name not in value or check(value[name]) for name, check in known.items())
