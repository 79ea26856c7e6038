"""``events.jsonl``: what happened to a run, in the words of launcher and training.

The launcher appends ``submitted``, ``attempt_started``, ``attempt_ended``, …; the training, which
finds the file by the environment variable ``MINIMIND_EVENTS``, ``preparing``, ``started``,
``resumed``, ``checkpointed``, ``preempted``, ``finished`` and ``failed``. Many processes on many
nodes append, and some are killed while they do: a line that is no event as its readers know it is
left out. Steps are optimiser steps. Standard library only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from minimind.rundir import env
from minimind.system.jsonl import JsonLog, append_durably, read_objects
from minimind.system.validators import (
    MOST,
    is_finite,
    is_text,
    is_whole,
    is_word,
    is_word_list,
)

BEAT_SECONDS = 5.0
"""How often whoever holds a run shows that it lives, by the time of a file: the events, a lock."""
SILENT_SECONDS = 60.0
"""After how long without that it is given up for dead. Hosts' clocks agree better than that."""


def is_fresh(age: float) -> bool:
    """Whether a sign of life of that age, in seconds, counts; one from the future is none."""
    return abs(age) < SILENT_SECONDS


Event = dict[str, Any]
"""``time`` (Unix seconds), ``event`` (its kind), and what belongs to that kind."""


class Kind:
    """The name of an event; who writes it, and when."""

    # The launcher:
    SUBMITTED = "submitted"
    SUPERVISOR_STARTED = "supervisor_started"
    ATTEMPT_STARTED = "attempt_started"
    PREFLIGHT = "preflight"
    ATTEMPT_ENDED = "attempt_ended"
    SUSPENDED = "suspended"
    CONTINUED = "continued"
    NODE_FAILED = "node_failed"
    NODE_SUSPECTED = "node_suspected"
    NODE_EXCLUDED = "node_excluded"
    NODE_KEPT = "node_kept"
    NODE_ADMITTED = "node_admitted"
    RESTARTED = "restarted"
    REQUEUED = "requeued"
    REQUEUE_FAILED = "requeue_failed"
    CANCEL_REQUESTED = "cancel_requested"
    CANCEL_WITHDRAWN = "cancel_withdrawn"
    RELEASED = "released"
    RUN_ENDED = "run_ended"
    # The training:
    PREPARING = "preparing"
    STARTED = "started"
    RESUMED = "resumed"
    CHECKPOINTED = "checkpointed"
    PREEMPTED = "preempted"
    FINISHED = "finished"
    FAILED = "failed"


OF_TRAINING = (
    Kind.PREPARING,
    Kind.STARTED,
    Kind.RESUMED,
    Kind.CHECKPOINTED,
    Kind.PREEMPTED,
    Kind.FINISHED,
    Kind.FAILED,
)
"""What the training writes, with the number of its ``attempt`` under the launcher."""

BEGUN = (Kind.STARTED, Kind.RESUMED)
"""Events that tell that an attempt has begun to train, at ``step``."""

SAVED = (Kind.CHECKPOINTED, Kind.PREEMPTED, Kind.FINISHED)
"""Events that tell of a durable checkpoint, of ``step``."""

GOES_ON = (Kind.RESTARTED, Kind.REQUEUED)
"""Events that tell that another attempt follows: in the same job, or once Slurm runs it again."""

LONGEST_JOB_ID = 32


def _is_code(value: Any) -> bool:
    return value is None or (isinstance(value, int) and abs(value) < MOST)


def _is_job_id(value: Any) -> bool:
    return is_word(value) and len(value) <= LONGEST_JOB_ID


FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "time": is_finite,
    "event": is_word,
    "attempt": is_whole,
    "step": is_whole,
    "pid": is_whole,
    "log_offset": is_whole,
    "stall_seconds": is_finite,
    "exit_code": _is_code,
    "job_id": _is_job_id,
    "cause": is_word,
    "reason": is_text,
    "cluster": is_word,
    "host": is_word,
    "what": is_word,
    "node": is_word,
    "certain": lambda value: isinstance(value, bool),
    "until": is_finite,
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    Kind.SUBMITTED: ("job_id",),
    Kind.ATTEMPT_STARTED: ("attempt",),
    Kind.ATTEMPT_ENDED: ("attempt", "cause"),
    Kind.SUSPENDED: ("reason",),
    Kind.RESTARTED: ("cause",),
    Kind.REQUEUED: ("cause",),
    Kind.REQUEUE_FAILED: ("reason",),
    Kind.SUPERVISOR_STARTED: ("pid",),
    Kind.PREPARING: ("what",),
    Kind.NODE_SUSPECTED: ("node", "reason", "certain"),
    Kind.NODE_EXCLUDED: ("node", "reason", "until", "job_id"),
    Kind.NODE_KEPT: ("node", "reason"),
    Kind.NODE_ADMITTED: ("node", "job_id"),
}

log = logging.getLogger(__name__)


def new_event(event: str, **fields: Any) -> Event:
    """An event of this moment."""
    return {"time": time.time(), "event": event, **fields}


def append_event(path: Path, event: str, **fields: Any) -> None:
    """Append an event of this moment to a file, durably.

    Raises:
        OSError: the disk refuses it.
    """
    append_durably(path, new_event(event, **fields))


def read_events(path: Path) -> list[Event]:
    """All events of a run, oldest first; a file that cannot be read has none.

    Those of a training that has been superseded are left out: see :func:`without_stragglers`.
    """
    with contextlib.suppress(OSError):
        return without_stragglers([event for event in read_objects(path) if is_event(event)])
    return []


def without_stragglers(events: list[Event]) -> list[Event]:
    """The events but those that a training wrote once a newer attempt had begun.

    A rank on a lost node can live on for a while. What it saves then has no effect, and must not
    be taken for the newest word on what there is to go on from.
    """
    found, current = [], 0
    for event in events:
        if event["event"] == Kind.ATTEMPT_STARTED:
            current = event["attempt"]
        elif event["event"] in OF_TRAINING and event.get("attempt", current) < current:
            continue
        found.append(event)
    return found


def is_event(value: Mapping[str, Any]) -> bool:
    """True when ``value`` has what every reader of its kind of event relies on."""
    if not {"time", "event"} <= value.keys():
        return False
    if not all(check(value[name]) for name, check in FIELDS.items() if name in value):
        return False
    kind = value["event"]
    if kind == Kind.ATTEMPT_STARTED and not is_word_list(value.get("nodes", [])):
        return False
    return all(name in value for name in NEEDED.get(kind, ()))


def stands_at(events: Iterable[Event]) -> int | None:
    """The optimiser step of the checkpoint that a run goes on from; None: it has saved none.

    The newest word counts, not the largest: a run that fell back to an older checkpoint has lost
    what came after it, and one that began anew has left all earlier ones behind.

    Args:
        events: of the run's whole life, oldest first.
    """
    step: int | None = None
    for event in events:
        kind = event.get("event")
        if kind in (*SAVED, Kind.RESUMED) and "step" in event:
            step = event["step"]
        elif kind == Kind.STARTED and event.get("step") == 0:
            # Where it goes on from a checkpoint of step 0, "resumed" follows.
            step = None
    return step


def of_attempt(events: list[Event], attempt: int) -> list[Event]:
    """The events from the start of ``attempt`` up to the start of the next one."""
    inside = False
    found = []
    for event in events:
        if event.get("event") == Kind.ATTEMPT_STARTED:
            inside = event.get("attempt") == attempt
        if inside:
            found.append(event)
    return found


def has_begun(events: Iterable[Event]) -> bool:
    """Whether an attempt came to train, by its own ``events``."""
    return any(event.get("event") in BEGUN for event in events)


def preparing(events: list[Event]) -> str:
    """What an attempt does that has not come to train yet, by its own ``events``; or ""."""
    own = [e for e in events if e["event"] not in (Kind.SUSPENDED, Kind.CONTINUED)]
    return str(own[-1]["what"]) if own and own[-1]["event"] == Kind.PREPARING else ""


def suspended(events: list[Event]) -> str:
    """Who keeps an attempt from running, as far as its own ``events`` say; or ""."""
    seen = [e for e in events if e["event"] in (Kind.SUSPENDED, Kind.CONTINUED)]
    return str(seen[-1]["reason"]) if seen and seen[-1]["event"] == Kind.SUSPENDED else ""


class EventLog:
    """The training's events: appended to a file, or dropped when there is none to append to."""

    def __init__(self, path: str | Path | None, attempt: int | None = None) -> None:
        """``attempt``: the number under which the launcher started this training."""
        self.path = Path(path) if path else None
        self._attempt = attempt
        self._file: JsonLog | None = None
        self._beaten_at = float("-inf")

    @classmethod
    def from_environment(cls) -> EventLog:
        return cls(os.environ.get(env.EVENTS), env.attempt())

    def append(self, event: str, **fields: Any) -> None:
        """Append an event of this moment, durable when this returns.

        An event that cannot be written is logged as a warning: no bookkeeping stops a run.
        """
        if self.path is None:
            return
        try:
            if self._file is None:
                self._file = JsonLog(self.path, {"attempt": self._attempt}, shared=True)
            self._file.write(new_event(event, **fields))
        except OSError as error:
            log.warning("cannot record the event %r in %s: %s", event, self.path, error)

    def beat(self) -> None:
        """Show that the run gets on: the file's time changes, every ``BEAT_SECONDS`` at most.

        A run that trains or prepares may have no event, and no line of metrics, for very long.
        """
        now = time.monotonic()
        if self.path is None or now - self._beaten_at < BEAT_SECONDS:
            return
        self._beaten_at = now
        with contextlib.suppress(OSError):
            os.utime(self.path)
