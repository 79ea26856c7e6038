"""What Slurm's own words for the state of a job mean.

A later version may have more words than these. A job in a state that is in none of the lists may
still run, so nothing may take its place.
"""

from __future__ import annotations

import re

QUEUED = (
    "PENDING",
    "CONFIGURING",
    "EXPEDITING",
    "POWER_UP_NODE",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
)
"""The job waits: it has no nodes, or none that are ready."""

HELD = ("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
"""It waits until somebody releases it."""

LIVING = (
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STAGE_OUT",
    "STOPPED",
    "SIGNALING",
    "RESIZING",
)
"""The job has nodes."""

SUSPENDED = ("SUSPENDED", "STOPPED")
"""The job has nodes, and its processes are kept from running on them."""

_HOLDS = re.compile("held|(?<!thres)hold", re.IGNORECASE)


def is_held(state: str, reason: str) -> bool:
    """True for a job that waits for a person: ``JobHeldUser``, ``job_requeued_in_held_state``."""
    return state in HELD or (state in QUEUED and _HOLDS.search(reason) is not None)


def held_later(state: str, reason: str) -> bool:
    """True for a job that runs, and that Slurm holds once it is requeued."""
    return state in LIVING and _HOLDS.search(reason) is not None


_ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)


def has_ended(state: str) -> bool:
    """True for a job that is surely over; ``CANCELLED by 1000`` is CANCELLED."""
    return state.partition(" ")[0] in _ENDED
