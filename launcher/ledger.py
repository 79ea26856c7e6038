"""Goodput: where a run's wall-clock time went, from its event log alone."""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass

from launcher.records import Event, Point


@dataclass(frozen=True)
class Ledger:
    """Seconds by what they were spent on; ``lost_steps`` were trained and had to be done again.

    ``goodput`` is the share of the whole time that went into steps that count.
    """

    queue: float = 0.0
    startup: float = 0.0
    training: float = 0.0
    checkpoint_stall: float = 0.0
    lost: float = 0.0
    lost_steps: int = 0

    @property
    def total(self) -> float:
        """All seconds since the submission."""
        return self.queue + self.startup + self.training + self.checkpoint_stall + self.lost

    @property
    def goodput(self) -> float | None:
        """0 to 1; None before the run was submitted."""
        return self.training / self.total if self.total > 0 else None

    def to_dict(self) -> dict[str, float | int | None]:
        """For ``--json``."""
        return {**asdict(self), "goodput": self.goodput}


def ledger(events: list[Event], reached: dict[int, int], now: float) -> Ledger:
    """Adds up the time of every phase up to ``now`` (or the run's end).

    ``reached``: attempt number → the furthest step it logged, saved or not. A step between the
    last saved and the furthest one of an attempt is lost; its share of the attempt's training
    time is, too.
    """
    sums = dict.fromkeys(("queue", "startup", "training", "checkpoint_stall", "lost"), 0.0)
    lost_steps = 0
    phase, since = "", 0.0
    attempt, first, saved, trained, stall = 0, 0, 0, 0.0, 0.0

    def close(time: float) -> float:
        span = max(0.0, time - since)
        if phase:
            sums[phase] += span
        return span

    def settle() -> None:
        """Moves an attempt's lost share and its stalls out of its training time."""
        nonlocal lost_steps
        furthest = max(reached.get(attempt, saved), saved)
        done, lost = furthest - first, furthest - saved
        waste = trained * lost / done if done > 0 else 0.0
        sums["training"] -= waste + stall
        sums["lost"] += waste
        sums["checkpoint_stall"] += stall
        lost_steps += lost

    for event in events:
        name, time = event["event"], float(event["time"])
        if name == "submitted" and phase in ("", "idle"):
            phase, since = "queue", time
        elif name == "attempt_started":
            if phase == "training":
                trained += close(time)
                settle()
            else:
                close(time)
            attempt, first, trained, stall = event["attempt"], saved, 0.0, 0.0
            phase, since = "startup", time
        elif name in ("started", "resumed") and phase == "startup":
            close(time)
            first = saved = int(event.get("step", saved))
            phase, since = "training", time
        elif name in ("checkpointed", "preempted", "finished"):
            saved = max(saved, int(event.get("step", saved)))
            stall += float(event.get("stall_seconds", 0.0))
        elif name == "attempt_ended":
            span = close(time)
            if phase == "training":
                trained += span
                settle()
            phase, since = "queue", time
        elif name == "run_ended":
            phase = ""
    span = close(now)
    if phase == "training":
        sums["training"] -= min(stall, span)
        sums["checkpoint_stall"] += min(stall, span)
    return Ledger(**sums, lost_steps=lost_steps)


def furthest_steps(events: list[Event], metrics: list[Point]) -> dict[int, int]:
    """Attempt → the furthest step that it logged, by the times of the logged points."""
    starts = sorted((e["time"], e["attempt"]) for e in events if e["event"] == "attempt_started")
    times = [time for time, _ in starts]
    reached: dict[int, int] = {}
    for point in metrics:
        if "time" not in point or "global_step" not in point:
            continue
        begun = bisect.bisect_right(times, point["time"])
        if begun:
            owner = starts[begun - 1][1]
            reached[owner] = max(reached.get(owner, 0), point["global_step"])
    return reached
