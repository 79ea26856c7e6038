"""``metrics.jsonl``: every logged point of a run, one JSON object a line.

A non-finite number is a string there (see :mod:`minimind.system.jsonl`); the reader gives it back
as a float, as it does Python's own bare ``NaN`` and ``Infinity``. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minimind.rundir.events import Kind
from minimind.system.jsonl import NON_FINITE, read_objects
from minimind.system.validators import is_finite, is_number, is_whole, is_word

Point = dict[str, Any]
"""What the training logged at one moment."""

FIELDS = {
    **dict.fromkeys(
        ("epoch", "step", "iters", "global_step", "total_steps", "tokens", "attempt"), is_whole
    ),
    **dict.fromkeys(("loss", "logits_loss", "aux_loss", "eval_loss", "learning_rate"), is_number),
    **dict.fromkeys(("tokens_per_second", "checkpoint_seconds", "elapsed_seconds"), is_number),
    "seconds_left": is_finite,
    "time": is_finite,
    "slowest_rank": is_whole,
    "slowest_node": is_word,
    "slowest_share": is_finite,
}
"""What readers compute with: a record that has it in another type is taken for a torn one."""


def read_metrics(path: str | Path) -> list[Point]:
    """The records of a run in order, each training step once; no file gives an empty list.

    Torn lines are skipped.
    """
    return each_step_once(read_lines(path))


def each_step_once(lines: Iterable[Point]) -> list[Point]:
    """The records that still hold, in order.

    A ``resumed`` event takes back the points after the checkpoint that it went on from: those
    steps are trained, and logged, again.
    """
    records: dict[tuple[Any, ...], Point] = {}
    for number, record in enumerate(lines):
        if record.get("event") == Kind.RESUMED and isinstance(record.get("global_step"), int):
            resumed_at = record["global_step"]
            for key in [k for k, r in records.items() if _is_after(r, resumed_at)]:
                del records[key]
        key = _identity(record, number)
        records.pop(key, None)
        records[key] = record
    return list(records.values())


def read_lines(path: str | Path) -> list[Point]:
    """Every whole record as it was written, taken back or not; no file gives an empty list.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    points = [point for found in read_objects(path) if _fits(point := _with_numbers(found))]
    return _without_stragglers(points)


def points_at(
    path: str | Path, field: str, *, epoch: int, step: int, global_step: int
) -> list[Point]:
    """The records with ``field`` of one micro-step that still hold; no file gives an empty list.

    Lines without the field are not parsed: a long run has millions.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    marks = (f'"{field}"'.encode(), f'"{Kind.RESUMED}"'.encode())
    found = map(_with_numbers, read_objects(path, having=marks))
    place = {"epoch": epoch, "step": step, "global_step": global_step}
    return [
        point
        for point in each_step_once(_without_stragglers([p for p in found if _fits(p)]))
        if field in point and place.items() <= point.items()
    ]


def _without_stragglers(points: list[Point]) -> list[Point]:
    """The records but those that an earlier attempt wrote once another one had gone on."""
    found, current = [], None
    for point in points:
        if current is None or point.get("event") == Kind.RESUMED:
            current = point.get("attempt")
        if point.get("attempt", current) == current:
            found.append(point)
    return found


def _with_numbers(record: Mapping[str, Any]) -> Point:
    return {
        key: NON_FINITE.get(value, value) if isinstance(value, str) else value
        for key, value in record.items()
    }


def _fits(record: Mapping[str, Any]) -> bool:
    return all(check(record[name]) for name, check in FIELDS.items() if name in record)


def _is_after(record: Mapping[str, Any], global_step: int) -> bool:
    step = record.get("global_step")
    return "event" not in record and isinstance(step, int) and step > global_step


def _identity(record: Mapping[str, Any], number: int) -> tuple[Any, ...]:
    """What makes two records the same point: a micro-step that was logged twice counts once."""
    if "event" in record or "global_step" not in record:
        return ("line", number)
    kind = "eval" if "eval_loss" in record else "train"
    place = (record.get("epoch"), record.get("step"), record["global_step"])
    return (kind, record.get("prompt"), *place)


def archive_previous(path: str | Path) -> Path | None:
    """Move an earlier run's file aside as ``NAME.N.jsonl``; return its new name.

    N is the first number that is free, claimed exclusively: no archive is ever overwritten,
    not even by two runs that start at once. An absent or empty file stays where it is.
    """
    path = Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return None
    number = 1
    while True:
        target = path.with_name(f"{path.stem}.{number}{path.suffix}")
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            number += 1
            continue
        os.replace(path, target)
        return target
