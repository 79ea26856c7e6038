"""``metrics.jsonl``: every logged point of a run, one JSON object a line.

Each line is on disk before ``write`` returns, so that the record survives a SIGKILL; while the
disk refuses, lines wait in memory, and training goes on. JSON has
no NaN and no infinity: a non-finite number is written as the string ``"NaN"``, ``"Infinity"``
or ``"-Infinity"``, which keeps every line readable by any parser, and ``read_metrics`` gives
it back as a float.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minimind.system.durable import sync_folder
from minimind.system.redact import redact

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Lines that wait while a disk refuses them: some megabytes at most."""

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


WHOLE = ("epoch", "step", "iters", "global_step", "total_steps", "tokens")
NUMBERS = ("time", "loss", "logits_loss", "aux_loss", "eval_loss", "learning_rate")
"""What readers compute with: a record that has it in another type is taken for a torn one."""


def to_json(record: Mapping[str, Any]) -> str:
    """One line of strict JSON (RFC 8259); tensors and NumPy scalars become numbers, paths text.

    A secret's value is not in it (see :mod:`minimind.system.redact`).
    """
    return json.dumps(_strict(record), ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return redact(value)
    if not isinstance(value, float):
        if not hasattr(value, "item"):
            return redact(str(value))
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class MetricsLog:
    """Appends records to a file, each in one write and synced to disk.

    A writer that was killed, or a disk that ran full, may have left half a line at the end;
    the next record then starts on a line of its own, so that only the torn one is lost.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        if os.fstat(self._fd).st_size == 0:
            # A record in a file whose name is not on the disk is not on the disk either.
            sync_folder(path.parent)
        self._path = path
        self._tail_is_known = False
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._refused = False
        # A checkpoint's thread records events beside the main one.
        self._lock = threading.Lock()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it is durable when this returns, unless the disk refuses it.

        No bookkeeping stops a run: a refused record waits, in memory, for the next that can be
        written. An outage is one warning when it begins, and one when it ends.
        """
        line = to_json(record).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            self._waiting.append(line)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self._lost += 1
            try:
                self._write_waiting()
            except OSError as error:
                if not self._refused:
                    reason = error.strerror or error
                    log.warning("%s cannot be written: %s; its lines wait", self._path, reason)
                self._refused = True
                return
            if self._refused:
                log.warning("%s is written again; %d lines are lost", self._path, self._lost)
                self._refused, self._lost = False, 0

    def _write_waiting(self) -> None:
        while self._waiting:
            data = self._waiting[0]
            if not self._tail_is_known and self._ends_torn():
                data = b"\n" + data
            self._tail_is_known = False
            while data:
                data = data[os.write(self._fd, data) :]
            self._tail_is_known = True
            self._waiting.popleft()
        # Lines whose sync is refused are not written again: they would be there twice.
        os.fsync(self._fd)

    def _ends_torn(self) -> bool:
        size = os.fstat(self._fd).st_size
        return size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def close(self) -> None:
        """Close the file; lines that wait are tried once more."""
        with self._lock:
            if self._fd < 0:
                return
            if self._waiting:
                with contextlib.suppress(OSError):
                    self._write_waiting()
                if lost := self._lost + len(self._waiting):
                    log.warning("%s: %d lines are lost", self._path, lost)
            os.close(self._fd)
            self._fd = -1


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a run in order, each training step once; no file gives an empty list.

    Torn lines are skipped.
    """
    return each_step_once(read_lines(path))


def each_step_once(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that still hold, in order.

    A ``resumed`` event takes back the points after the checkpoint that it went on from: those
    steps are trained, and logged, again.
    """
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, record in enumerate(lines):
        if record.get("event") == "resumed" and isinstance(record.get("global_step"), int):
            resumed_at = record["global_step"]
            for key in [k for k, r in records.items() if _is_after(r, resumed_at)]:
                del records[key]
        key = _identity(record, number)
        records.pop(key, None)
        records[key] = record
    return list(records.values())


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Every whole record as it was written, taken back or not; no file gives an empty list."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [record for line in lines if (record := _parse(line)) is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    record = {
        key: NON_FINITE.get(value, value) if isinstance(value, str) else value
        for key, value in record.items()
    }
    whole = all(_is_whole(record[name]) for name in WHOLE if name in record)
    return record if whole and all(_is_number(record[n]) for n in NUMBERS if n in record) else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


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
