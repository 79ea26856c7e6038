"""The state of a run, from its folder and one answer of the controller."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from launcher.slurm import states
from launcher.slurm.parse import JobInfo
from launcher.spec.run_folder import RunFolder
from launcher.supervise import attempt_log as attempt
from launcher.supervise import exclusion, host
from launcher.supervise.classify import asked_to_cancel
from minimind.errors import EXIT_CANCELLED, EXIT_RUN_ME_AGAIN, ConfigError
from minimind.rundir import causes
from minimind.rundir.events import (
    BEGUN,
    GOES_ON,
    Event,
    Kind,
    of_attempt,
    preparing,
    stands_at,
    suspended,
)
from minimind.rundir.metrics import Point
from minimind.system.jsonl import strict
from minimind.system.process import is_alive

PENDING = "PENDING"
RUNNING = "RUNNING"
REQUEUED = "REQUEUED"
HELD = "HELD"
DONE = "DONE"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
INTERRUPTED = "INTERRUPTED"
UNKNOWN = "UNKNOWN"
DAMAGED = "DAMAGED"

HELD_LATER = "Slurm holds it after its next requeue"
"""How the reason of a run begins that runs, and waits for a person once it is requeued."""

ACTIVE = (PENDING, RUNNING, REQUEUED, HELD)
"""A job exists that will run or runs: the run must not be submitted a second time."""


@dataclass(frozen=True)
class RunState:
    """One run as people want to see it. Steps are optimiser steps, times are seconds."""

    name: str
    state: str
    job_id: str | None = None
    reason: str = ""
    preparing: str = ""
    """What it does before it trains, where that takes long: it tokenises."""
    suspended: str = ""
    """Who keeps a run from running that would; it goes on when they let it."""
    exit_code: int | None = None
    nodes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    """Nodes that the run has failed on, and that its job is kept from."""
    attempt: int = 0
    epoch: int | None = None
    """Under way, counted from 1 as in the training's own lines."""
    step: int = 0
    total_steps: int | None = None
    loss: float | str | None = None
    """``"NaN"`` and the like where it is no finite number."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    restarts: dict[str, int] = field(default_factory=dict)
    run_dir: str = ""
    varied: dict[str, str] = field(default_factory=dict)
    """What sets a point of a sweep apart: flag → value."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    @property
    def percent(self) -> float | None:
        """How much of the run is done."""
        return 100 * self.step / self.total_steps if self.total_steps else None


def job_state(
    run: RunFolder, jobs: dict[str, JobInfo] | None, events: list[Event] | None = None
) -> tuple[str, str, int | None]:
    """``(state, reason, exit code)``; ``jobs`` None: the controller does not answer.

    ``events``: the run's, where the caller has read them already.
    """
    final = run.final()
    if final is not None:
        return causes.state_after(final.cause).upper(), final.reason, final.exit_code
    events = run.events() if events is None else events
    submitted = next((e for e in reversed(events) if e["event"] == Kind.SUBMITTED), None)
    if submitted is None:
        return INTERRUPTED, "prepared, but never submitted", None
    started = any(e["event"] == Kind.ATTEMPT_STARTED for e in events)
    if submitted.get("cluster") == "local":
        if host.supervisor_pid(events) is not None:
            return RUNNING, "", None
        elsewhere = host.supervisor_elsewhere(run, events)
        if elsewhere is not None and elsewhere[1]:
            return RUNNING, f"on {elsewhere[0]}", None
        since = events[events.index(submitted) :]
        taken_up = any(e["event"] == Kind.SUPERVISOR_STARTED for e in since)
        starter = submitted["job_id"]
        if not taken_up and starter.isdecimal() and is_alive(int(starter)):
            return (REQUEUED if started else PENDING), "", None
        reason = "its supervisor does not run"
        if elsewhere is not None:
            reason = f"its supervisor on {elsewhere[0]} has been silent for a minute or more"
        elif attempt.unfinished(events) is not None and host.living_ranks(run):
            reason = "its supervisor was killed, and its ranks train on"
        return INTERRUPTED, reason, EXIT_RUN_ME_AGAIN
    if jobs is None:
        return UNKNOWN, "Slurm does not answer", None
    job = jobs.get(str(submitted["job_id"]))
    ended = job is None or states.has_ended(job.get("JobState", ""))
    if ended and asked_to_cancel(events):
        return CANCELLED, causes.DESCRIPTIONS[causes.CANCELLED], EXIT_CANCELLED
    if job is None:
        return INTERRUPTED, "Slurm has no record of its job", None
    return slurm_state(job, started)


def slurm_state(job: JobInfo, started: bool) -> tuple[str, str, int | None]:
    """The state of a run whose job the controller knows and whose folder has no end."""
    state, reason = job.get("JobState", ""), job.get("Reason", "")
    if state in states.QUEUED:
        if states.is_held(state, reason):
            return HELD, reason, None
        return (REQUEUED if started else PENDING), reason, None
    if states.held_later(state, reason):
        return RUNNING, f"{HELD_LATER} ({reason})", None
    if state in states.LIVING:
        return RUNNING, "", None
    if state.startswith("CANCELLED"):
        return CANCELLED, "cancelled in Slurm", EXIT_CANCELLED
    said = f"Slurm says {state} ({reason})"
    return (INTERRUPTED if states.has_ended(state) else UNKNOWN), said, None


def suspension(run: RunFolder, jobs: dict[str, JobInfo] | None, events: list[Event]) -> str:
    """Who keeps a run that is ``RUNNING`` from making steps; "" where nobody is known to."""
    submitted = next((e for e in reversed(events) if e["event"] == Kind.SUBMITTED), {})
    job = (jobs or {}).get(str(submitted.get("job_id")), {})
    if submitted.get("cluster") != "local" and job.get("JobState") in states.SUSPENDED:
        return f"Slurm says that its job is {job['JobState']}"
    newest = max(run.attempt_numbers(), default=0)
    seen = suspended(of_attempt(events, newest))
    here = submitted.get("cluster") == "local" and not seen
    return host.suspended(run.events_file) if here else seen


@dataclass(frozen=True)
class Records:
    """What a run's folder says, read once."""

    events: list[Event]
    points: list[Point]

    @classmethod
    def read(cls, run: RunFolder) -> Records:
        """Reads them.

        Raises:
            ConfigError: the folder holds no usable spec.
        """
        return cls(run.events(), run.points())


def read_state(run: RunFolder, jobs: dict[str, JobInfo] | None, records: Records) -> RunState:
    """Everything that ``status`` shows of one run.

    Raises:
        ConfigError: its end marker is damaged.
    """
    events = records.events
    state, reason, exit_code = job_state(run, jobs, events)
    attempts = run.attempt_numbers()
    number = attempts[-1] if attempts else 0
    mine = of_attempt(events, number)
    newest: Point = next((point for point in reversed(records.points) if "loss" in point), {})
    step = max(stands_at(events) or 0, newest.get("global_step", 0))
    total = newest.get("total_steps")
    restarts = Counter(e["cause"] for e in events if e["event"] in GOES_ON)
    job_id = next((e["job_id"] for e in reversed(events) if e["event"] == Kind.SUBMITTED), None)
    kept_by = suspension(run, jobs, events) if state == RUNNING else ""
    moves = state == RUNNING and not kept_by
    return RunState(
        name=run.name,
        state=state,
        job_id=job_id,
        reason=reason,
        preparing=preparing(mine) if state == RUNNING else "",
        suspended=kept_by,
        exit_code=exit_code,
        nodes=tuple(mine[0].get("nodes", ())) if mine else (),
        excluded=tuple(event["node"] for event in exclusion.left_out(events, job_id)),
        attempt=number,
        epoch=newest["epoch"] + 1 if "epoch" in newest else None,
        step=step,
        total_steps=total,
        loss=strict(newest.get("loss")),
        tokens_per_second=newest.get("tokens_per_second") if moves else None,
        eta_seconds=_eta(mine, records.points, total) if moves else None,
        restarts=dict(restarts),
        run_dir=str(run.root),
        varied=run.varied(),
    )


def damaged(run: RunFolder, error: ConfigError) -> RunState:
    """A run whose folder cannot be read: it must not hide the others."""
    return RunState(name=run.name, state=DAMAGED, reason=str(error), run_dir=str(run.root))


def _eta(mine: list[Event], metrics: list[Point], total: int | None) -> float | None:
    """Seconds to the end: what the run itself has said last, or at this attempt's pace."""
    began = next((e for e in mine if e["event"] in BEGUN), None)
    points = [p for p in metrics if "time" in p and "global_step" in p]
    if began is None or total is None or not points:
        return None
    newest = points[-1]
    if newest["time"] >= began["time"] and "seconds_left" in newest:
        return float(newest["seconds_left"])
    steps = newest["global_step"] - began.get("step", 0)
    elapsed = newest["time"] - began["time"]
    if steps <= 0 or elapsed <= 0:
        return None
    return float((total - newest["global_step"]) * elapsed / steps)
