"""The run folder: spec, events, attempts and the markers that end a run.

It lies on a filesystem that all nodes share. Standard library only: the host side of a job
runs with whatever Python 3.10+ the node has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.spec import JobSpec

Event = dict[str, Any]

SWEEP_FILE = "sweep.json"
"""Lies in a folder whose sub-folders are the points of a sweep."""


@dataclass(frozen=True)
class Final:
    """How a run ended for good: its cause, exit status and one line for people."""

    cause: str
    exit_code: int
    reason: str


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.spec_file = self.root / "spec.json"
        self.events_file = self.root / "events.jsonl"
        self.attempts = self.root / "attempts"
        self.code = self.root / "code"
        self.submitit = self.root / "submitit"
        self.batch_log = self.root / "batch.log"
        self.secrets_file = self.root / "secrets.json"
        self.current_file = self.attempts / "current"
        self.done_marker = self.root / "DONE"
        self.stopped_marker = self.root / "STOPPED"

    @property
    def name(self) -> str:
        """The name that commands know the run by; a point of a sweep is ``SWEEP/INDEX``."""
        if (self.root.parent / SWEEP_FILE).exists():
            return f"{self.root.parent.name}/{self.root.name}"
        return self.root.name

    def exists(self) -> bool:
        """True once a run was made here."""
        return self.spec_file.is_file()

    def spec(self) -> JobSpec:
        """The spec that the run was last submitted with."""
        return JobSpec.from_json(self.spec_file.read_text(encoding="utf-8"))

    def write_spec(self, spec: JobSpec) -> None:
        """Stores ``spec`` atomically."""
        write_atomically(self.spec_file, spec.to_json())

    def write_secrets(self, values: dict[str, str]) -> None:
        """Stores the secret variables, readable by their owner alone."""
        if values:
            write_atomically(self.secrets_file, json.dumps(values), mode=0o600)
        else:
            self.secrets_file.unlink(missing_ok=True)

    def secrets(self) -> dict[str, str]:
        """What ``write_secrets`` stored."""
        if not self.secrets_file.exists():
            return {}
        return dict(json.loads(self.secrets_file.read_text(encoding="utf-8")))

    def append(self, event: str, **values: Any) -> None:
        """Appends one event durably. A single write under O_APPEND: lines never mix."""
        line = json.dumps({"time": time.time(), "event": event, **values}, ensure_ascii=False)
        data = (line + "\n").encode()
        descriptor = os.open(self.events_file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # A crash or a full disk tore the line before: it must not take this one along.
                data = b"\n" + data
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if size == 0:
            sync_folder(self.root)

    def events(self) -> list[Event]:
        """All events, oldest first. A line torn by a crash is left out."""
        return read_json_lines(self.events_file)

    def attempt_dir(self, number: int) -> Path:
        """Where the logs of attempt ``number`` (from 1) lie."""
        return self.attempts / str(number)

    def rank_log(self, attempt: int, rank: int) -> Path:
        """The log of one rank."""
        return self.attempt_dir(attempt) / f"rank-{rank}.log"

    def attempt_numbers(self) -> list[int]:
        """The numbers of all attempts so far, ascending."""
        if not self.attempts.is_dir():
            return []
        return sorted(int(p.name) for p in self.attempts.iterdir() if p.name.isdigit())

    def new_attempt(self) -> int:
        """Makes the next attempt's folder; two callers never get the same number."""
        if not self.attempts.is_dir():
            self.attempts.mkdir(parents=True, exist_ok=True)
            sync_folder(self.root)
        number = (self.attempt_numbers() or [0])[-1] + 1
        while True:
            try:
                self.attempt_dir(number).mkdir()
            except FileExistsError:
                number += 1
                continue
            write_atomically(self.current_file, str(number))
            return number

    def current_attempt(self) -> int | None:
        """The number of the newest attempt; ranks and supervisors of others must stand back."""
        try:
            return int(self.current_file.read_text())
        except (OSError, ValueError):
            return None

    def final(self) -> Final | None:
        """How the run ended, or None while it may run on."""
        for marker in (self.done_marker, self.stopped_marker):
            if marker.exists():
                stored = json.loads(marker.read_text(encoding="utf-8"))
                return Final(stored["cause"], stored["exit_code"], stored["reason"])
        return None

    def finish(self, final: Final) -> None:
        """Leaves the marker that makes any further start exit at once."""
        marker = self.done_marker if final.cause == "done" else self.stopped_marker
        write_atomically(marker, json.dumps(vars(final), ensure_ascii=False))

    def reopen(self) -> None:
        """Lets a stopped (not a finished) run start again."""
        self.stopped_marker.unlink(missing_ok=True)

    def job_id(self) -> str | None:
        """The job of the newest submission."""
        for event in reversed(self.events()):
            if event.get("event") == "submitted":
                return str(event["job_id"])
        return None


def read_json_lines(path: Path) -> list[Event]:
    """The JSON objects of ``path``, one a line; missing file: none; torn lines: left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file that others see whole or not at all, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Forces the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def last_step(events: Iterable[Event]) -> int:
    """The furthest optimiser step that a durable checkpoint holds; 0 when there is none."""
    saved = {"checkpointed", "preempted", "finished"}
    steps = [event["step"] for event in events if event.get("event") in saved and "step" in event]
    return max(steps, default=0)


def of_attempt(events: list[Event], attempt: int) -> list[Event]:
    """The events from the start of ``attempt`` up to the start of the next one."""
    inside = False
    found = []
    for event in events:
        if event.get("event") == "attempt_started":
            inside = event.get("attempt") == attempt
        if inside:
            found.append(event)
    return found
