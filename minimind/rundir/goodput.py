"""Where a run's time went: its attempts and their phases, from the event log.

The log is the one that the launcher keeps in a run folder, ``events.jsonl``: its own entries
(``submitted``, ``attempt_started``, ``attempt_ended``, ``run_ended``) and those of the training
(``started``, ``resumed``, ``checkpointed``, ``preempted``, ``finished``, ``failed``). Steps are
optimiser steps, times are Unix seconds. ``launcher status`` takes its figures from here too:
standard library only.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minimind.rundir.events import BEGUN, Kind
from minimind.system.validators import is_finite

Event = Mapping[str, Any]

PHASES = ("queue", "startup", "training", "checkpoint_stall", "lost")


@dataclass(frozen=True)
class Span:
    """A stretch of time that went into one thing."""

    phase: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class Attempt:
    """One try at the run; ``cause`` and ``ended`` are None while it goes on."""

    number: int
    began: float
    nodes: tuple[str, ...] = ()
    ended: float | None = None
    cause: str | None = None
    exit_code: int | None = None
    error: str = ""
    first_step: int = 0
    went_back_from: int = 0
    """The step on record when it began to train at an older one; 0: it did not."""
    saved_step: int = 0
    furthest_step: int = 0
    trained: bool = False
    lost_steps: int = 0
    lost_seconds: float = 0.0


@dataclass
class Logged:
    """What the metrics of one attempt tell: how far it came, saved or not, and for how long the
    saving of checkpoints held it up."""

    furthest_step: int = 0
    stall_seconds: float = 0.0


@dataclass
class Account:
    """All time since the submission, as spans in order, and the attempts within."""

    spans: list[Span] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def seconds(self, phase: str) -> float:
        return sum((span.seconds for span in self.spans if span.phase == phase), 0.0)

    @property
    def total(self) -> float:
        return sum((span.seconds for span in self.spans), 0.0)

    @property
    def lost_steps(self) -> int:
        """Optimiser steps that were trained, lost and trained again."""
        return sum(attempt.lost_steps for attempt in self.attempts)

    @property
    def goodput(self) -> float | None:
        """The share of all time that went into steps that count; None before there is time."""
        return self.seconds("training") / self.total if self.total > 0 else None

    def to_dict(self) -> dict[str, float | int | None]:
        """Seconds by phase, ``lost_steps`` and ``goodput``, for ``--json``."""
        seconds = {phase: self.seconds(phase) for phase in PHASES}
        return {**seconds, "lost_steps": self.lost_steps, "goodput": self.goodput}


class _Book:
    """Follows the events, one open phase at a time."""

    def __init__(self, logged: Mapping[int, Logged]) -> None:
        self.account = Account()
        self.logged = logged
        self.phase = ""
        self.since = self.clock = 0.0
        self.saved = 0
        self.attempt: Attempt | None = None

    def open(self, phase: str, time: float) -> None:
        self.phase, self.since = phase, time

    def close(self, time: float, over: bool = True) -> None:
        """End the open phase; ``over``: its attempt is over, and what it did not save is lost."""
        end = max(self.since, time)
        if self.phase == "training":
            self._close_training(end, over)
        elif self.phase:
            self._add(self.phase, self.since, end)
        self.phase = ""

    def _close_training(self, end: float, over: bool) -> None:
        attempt = self.attempt
        assert attempt is not None
        span = end - self.since
        logged = self.logged.get(attempt.number, Logged())
        attempt.furthest_step = max(logged.furthest_step, self.saved)
        waste = 0.0
        if over:
            done = attempt.furthest_step - attempt.first_step
            attempt.lost_steps = attempt.furthest_step - self.saved
            # An attempt's steps take about as long as each other.
            waste = span * attempt.lost_steps / done if done > 0 else 0.0
            attempt.lost_seconds = waste
        stall = min(logged.stall_seconds, span - waste)
        self._add("training", self.since, end - waste - stall)
        self._add("checkpoint_stall", end - waste - stall, end - waste)
        self._add("lost", end - waste, end)

    def _add(self, phase: str, start: float, end: float) -> None:
        if end > start:
            self.account.spans.append(Span(phase, start, end))

    def _begin_earlier(self, seconds: float) -> None:
        """The nodes were looked at before the attempt began: its start-up, and no queue."""
        spans = self.account.spans
        if seconds > 0 and spans and (spans[-1].phase, spans[-1].end) == ("queue", self.since):
            queue = spans.pop()
            self.since = max(queue.start, queue.end - seconds)
            self._add("queue", queue.start, self.since)

    def take(self, event: Event) -> None:
        # The clocks of two nodes may differ: no time runs backwards.
        name, time = event["event"], max(self.clock, float(event["time"]))
        self.clock = time
        if name == Kind.SUBMITTED and not self.phase:
            self.open("queue", time)
        elif name == Kind.ATTEMPT_STARTED:
            self.close(time)
            self.attempt = Attempt(
                number=int(event.get("attempt", len(self.account.attempts) + 1)),
                began=time,
                nodes=tuple(map(str, event.get("nodes", ()))),
                first_step=self.saved,
                saved_step=self.saved,
                furthest_step=self.saved,
            )
            self.account.attempts.append(self.attempt)
            self.open("startup", time)
        elif name == Kind.PREFLIGHT and self.phase == "startup":
            took = [event.get(name, 0.0) for name in ("seconds", "compute_seconds")]
            self._begin_earlier(sum(seconds for seconds in took if is_finite(seconds)))
        elif name in BEGUN and self.phase == "startup":
            self.close(time)
            assert self.attempt is not None
            step = int(event.get("step", self.saved))
            if step < self.saved:
                self.attempt.went_back_from = self.saved
            self.attempt.first_step = self.saved = step
            self.attempt.trained = True
            self.open("training", time)
        elif name in (Kind.CHECKPOINTED, Kind.PREEMPTED, Kind.FINISHED):
            self.saved = max(self.saved, int(event.get("step", self.saved)))
        elif name == Kind.FAILED and self.attempt is not None:
            self.attempt.error = str(event.get("error", ""))
        elif name == Kind.ATTEMPT_ENDED:
            self.close(time)
            if self.attempt is not None:
                self.attempt.ended = time
                self.attempt.cause = str(event.get("cause", ""))
                self.attempt.exit_code = event.get("exit_code")
            self.open("queue", time)
        elif name == Kind.RESTARTED and self.phase == "queue":
            # The job has kept its nodes since the attempt ended: that was no queue.
            self.phase = "startup"
        elif name == Kind.RUN_ENDED:
            self.phase = ""
        if self.attempt is not None:
            self.attempt.saved_step = self.saved
            self.attempt.furthest_step = max(self.attempt.furthest_step, self.saved)


def account_for(events: Sequence[Event], metrics: Iterable[Event], now: float) -> Account:
    """Give every second up to ``now``, or up to the run's end, one place.

    Args:
        events: the event log.
        metrics: every logged point as it was written, those taken back by a resume too. What an
            attempt logged beyond its last saved step is lost, and so is that share of its
            training time.
    """
    book = _Book(logged_by_attempt(events, metrics))
    for event in events:
        book.take(event)
    book.close(now, over=False)
    return book.account


def logged_by_attempt(events: Iterable[Event], metrics: Iterable[Event]) -> dict[int, Logged]:
    """Attempt → what it logged, told apart by the times of the points."""
    begun = [event for event in events if event.get("event") == Kind.ATTEMPT_STARTED]
    begun.sort(key=lambda event: float(event["time"]))
    times = [float(event["time"]) for event in begun]
    found: dict[int, Logged] = {}
    for point in metrics:
        if "time" not in point or "global_step" not in point:
            continue
        nth = bisect.bisect_right(times, point["time"])
        if nth:
            logged = found.setdefault(int(begun[nth - 1].get("attempt", nth)), Logged())
            logged.furthest_step = max(logged.furthest_step, int(point["global_step"]))
            stall = float(point.get("checkpoint_seconds", 0.0))
            logged.stall_seconds += stall if math.isfinite(stall) else 0.0
    return found


def events_of_metrics(lines: Iterable[Event], over: bool) -> list[dict[str, Any]]:
    """The event log that a run without a launcher would have, from its metrics alone.

    A ``resumed`` record begins an attempt, and tells what the one before had saved. How long an
    attempt took to start is not on record.

    Args:
        lines: every record as it was written.
        over: whether the last attempt has ended.
    """
    segments: list[list[Event]] = []
    for line in lines:
        if "time" not in line or "global_step" not in line:
            continue
        if not segments or line.get("event") == Kind.RESUMED:
            segments.append([])
        segments[-1].append(line)
    events: list[dict[str, Any]] = []
    for number, segment in enumerate(segments, 1):
        first, end = segment[0], float(segment[-1]["time"])
        began, step = float(first["time"]), int(first["global_step"])
        if first.get("event") != Kind.RESUMED:
            began, step = began - float(first.get("elapsed_seconds", 0.0)), 0
        if number < len(segments):
            saved = int(segments[number][0]["global_step"])
        else:
            saved = max(int(point["global_step"]) for point in segment)
        events += [
            {"time": began, "event": Kind.ATTEMPT_STARTED, "attempt": number},
            {"time": began, "event": Kind.STARTED, "step": step},
            {"time": end, "event": Kind.CHECKPOINTED, "step": saved},
        ]
        if over or number < len(segments):
            events.append({"time": end, "event": Kind.ATTEMPT_ENDED, "attempt": number})
    if events and over:
        events.append({"time": events[-1]["time"], "event": Kind.RUN_ENDED})
    return events
