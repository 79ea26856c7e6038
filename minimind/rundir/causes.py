"""How an attempt of a run can end, for the event log, and each end as people read it.

Standard library only.
"""

from __future__ import annotations

DONE = "done"
PREEMPTED = "preempted"
TIME_LIMIT = "time_limit"
NODE_FAILURE = "node_failure"
CRASH = "crash"
HANG = "hang"
NO_PROGRESS = "no_progress"
CANCELLED = "cancelled"
STOP_REQUESTED = "stop_requested"
CONFIG = "config"
LOST = "lost"

LAUNCH_FAILED = "launch_failed"
UNFIT_NODE = "unfit_node"

FAILURES = (CRASH, HANG)
"""What a run is allowed a few times."""

IN_PLACE = (*FAILURES, LAUNCH_FAILED, UNFIT_NODE)
"""The job's nodes can be as good as before: the next attempt may begin on them at once."""

FREE = (PREEMPTED, TIME_LIMIT, STOP_REQUESTED, LAUNCH_FAILED, UNFIT_NODE)
"""Not the run's fault: any number of them is allowed while the run moves on."""

DESCRIPTIONS = {
    DONE: "finished",
    PREEMPTED: "preempted by a job of higher priority",
    TIME_LIMIT: "reached its time limit",
    NODE_FAILURE: "lost a node",
    CRASH: "crashed",
    HANG: "made no step for too long (hang)",
    NO_PROGRESS: "made no progress in several attempts",
    CANCELLED: "cancelled by the user",
    STOP_REQUESTED: "stopped on a signal, after a checkpoint",
    CONFIG: "refused its flags or data",
    LAUNCH_FAILED: "was not launched by Slurm",
    UNFIT_NODE: "found a node unfit before its ranks started",
    LOST: "ended without a trace (its supervisor was killed)",
}


def described(cause: str) -> str:
    """A cause as people read it; one of another version stays as it is."""
    return DESCRIPTIONS.get(cause, cause)


def state_after(cause: str) -> str:
    """The state of a run that ended for good: done, cancelled or failed."""
    return cause if cause in (DONE, CANCELLED) else "failed"
