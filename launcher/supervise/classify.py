"""Why an attempt ended, told apart from the evidence that Slurm and the ranks leave.

srun's exit code alone says little: the highest of all ranks wins, and a signal looks alike
whether it came from a preemption, a time limit or the user. The batch log has the words
``DUE TO …`` that slurmstepd writes, the event log has what rank 0 agreed on, and the
controller knows whether a preemption is under way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from launcher.slurm.parse import JobInfo, limit_seconds, parse_stamp, unanswered
from minimind.errors import EXIT_RUN_ME_AGAIN, EXIT_USER_ERROR
from minimind.rundir.causes import (
    CANCELLED,
    CONFIG,
    CRASH,
    DONE,
    HANG,
    LAUNCH_FAILED,
    LOST,
    NODE_FAILURE,
    PREEMPTED,
    STOP_REQUESTED,
    TIME_LIMIT,
    UNFIT_NODE,
)
from minimind.rundir.events import Event, Kind, has_begun

SIGNAL_SLACK = 65
"""Seconds by which Slurm may send ``--signal`` too early, and a little more."""

CANCEL_EVENTS = (Kind.CANCEL_REQUESTED, Kind.CANCEL_WITHDRAWN, Kind.SUBMITTED)
"""The newest counts: who submits a run again takes the cancel back."""

NODE_FAILED = "Node failure on"
"""How srun says that a node of its step is lost."""

_CANCELLED_AT = re.compile(
    r"\*\*\* (?P<what>JOB|STEP) (?P<id>\S+) ON \S+ CANCELLED AT \S+?"
    # 25.05 and newer name the signal where they know no reason: "DUE to SIGNAL Terminated".
    r"(?: DUE to SIGNAL [^*\n]*?| DUE TO (?P<due>[^*\n]*?))?,?(?: SEE [^*\n]*)? \*\*\*"
)


UNCONFIRMED = "Unable to confirm allocation for job"
"""How srun begins to say that nobody knows its job.

With ``enable_stepmgr`` that is so for a whole start of a job whose batch host has no step manager.
"""

_NOT_LAUNCHED = re.compile(
    r"^srun: error: (?P<what>Task launch for \S+ failed on node .*|Application launch failed: .*"
    rf"|{UNCONFIRMED} .*"
    r"|Unable to create step for job \S+: (?P<refused>.*))$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Evidence:
    """What is known when the ranks of an attempt are gone.

    ``exit_code``: srun's, or None when nobody was left to see it. ``log``: what Slurm wrote
    about this attempt of ``job_id``. ``events``: this attempt's part of the event log. ``job``:
    the controller's record. ``gone_nodes``: what Slurm has taken out of a job that outlives them;
    ``down_nodes`` has them, too. ``reasons``: node → why Slurm, or a person, has set its state.
    ``distribution``: srun's word for how it deals out the ranks, "" where the job names none.
    ``unfit``: node → why the ranks were not started on it.
    ``killed_for_hang``: the supervisor ended it itself.
    ``signal_lead``: seconds before its limit at which the job asked to be warned. ``time_up``:
    the supervisor stopped it at its time limit. ``restarted``: Slurm runs the job again, and
    nothing warned us before: the node of the batch script was gone.
    """

    exit_code: int | None
    log: str = ""
    job_id: str = ""
    events: tuple[Event, ...] = ()
    job: JobInfo | None = None
    down_nodes: tuple[str, ...] = ()
    gone_nodes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    unfit: Mapping[str, str] = field(default_factory=dict)
    killed_for_hang: bool = False
    signal_lead: int = 0
    time_up: bool = False
    restarted: bool = False
    now: float = 0.0


def slurm_causes(log: str, job_id: str = "") -> list[tuple[str, str]]:
    """``("JOB"|"STEP", reason)`` of every cancel notice; the reason is "" where none is given.

    ``job_id``: this job's notices only, where several jobs write into one file.
    """
    found = []
    for match in _CANCELLED_AT.finditer(log):
        job = match["id"].partition(".")[0]
        if not (job_id and job.isdecimal() and job != job_id):
            found.append((match["what"], (match["due"] or "").strip()))
    return found


def failed_launch(log: str) -> str:
    """Why Slurm did not start all ranks, in srun's words; "" where it did, as far as it says.

    Nodes that read a new configuration do that, and a controller that does not answer. A step
    that Slurm refuses for good is none of these.
    """
    for match in _NOT_LAUNCHED.finditer(log):
        if match["refused"] is None or unanswered(match["refused"]):
            return match["what"]
    return ""


def needs_another_start(launch: str) -> bool:
    """Whether a launch that failed for the reason ``launch`` fails as long as this start lasts."""
    return launch.startswith(UNCONFIRMED) and not unanswered(launch)


def asked_to_cancel(events: Iterable[Event]) -> bool:
    """Whether a person has asked for the end, and not taken that back."""
    return _newest_wish(events) == Kind.CANCEL_REQUESTED


def _newest_wish(events: Iterable[Event]) -> str | None:
    asked = [event["event"] for event in events if event.get("event") in CANCEL_EVENTS]
    return asked[-1] if asked else None


def classify(evidence: Evidence) -> str:
    """The cause of an attempt's end, one of :mod:`minimind.rundir.causes`."""
    named = {event.get("event") for event in evidence.events}
    code = evidence.exit_code
    # Where the job outlives a node, srun calls the end of the step that was on it a success.
    lost = NODE_FAILED in evidence.log or evidence.gone_nodes
    if Kind.FINISHED in named or (code == 0 and not lost):
        return DONE
    if asked_to_cancel(evidence.events):
        return CANCELLED
    # The others wait for the ranks of a node that is silent, until it is found lost.
    if evidence.killed_for_hang and not evidence.gone_nodes:
        return HANG
    by_slurm = _slurm_says(evidence)
    if by_slurm is not None:
        return by_slurm
    if evidence.unfit:
        return UNFIT_NODE
    begun = has_begun(evidence.events)
    if not begun and failed_launch(evidence.log):
        return LAUNCH_FAILED
    if not begun and code == EXIT_USER_ERROR:
        return CONFIG
    if code == EXIT_RUN_ME_AGAIN or Kind.PREEMPTED in named:
        return TIME_LIMIT if evidence.time_up else STOP_REQUESTED
    if code is not None:
        return CRASH
    return NODE_FAILURE if evidence.restarted else LOST


def _slurm_says(evidence: Evidence) -> str | None:
    notices = slurm_causes(evidence.log, evidence.job_id)
    due = " ".join(reason for _, reason in notices)
    if "NODE FAIL" in due or NODE_FAILED in evidence.log or evidence.down_nodes:
        return NODE_FAILURE
    if "PREEMPTION" in due:
        return PREEMPTED
    if "TIME LIMIT" in due:
        return TIME_LIMIT
    if "REQUEUE" in due:
        return STOP_REQUESTED
    job = evidence.job or {}
    if parse_stamp(job.get("PreemptTime")) is not None:
        return PREEMPTED
    cancelled = ("JOB", "") in notices or job.get("JobState", "").startswith("CANCELLED")
    # A person who has submitted it again since, once its job was over, wants it to go on.
    again = evidence.exit_code is None and _newest_wish(evidence.events) == Kind.SUBMITTED
    if cancelled and not again:
        return CANCELLED
    if notices or evidence.exit_code == EXIT_RUN_ME_AGAIN:
        # Slurm's warning signal comes up to a minute early, and says nothing about why.
        started, limit = parse_stamp(job.get("StartTime")), limit_seconds(job.get("TimeLimit", ""))
        if started is not None and limit is not None:
            early = evidence.signal_lead + SIGNAL_SLACK
            if (evidence.now or time.time()) >= started + limit - early:
                return TIME_LIMIT
    return None
