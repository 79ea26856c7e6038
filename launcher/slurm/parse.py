"""Reads what Slurm's commands print: pure functions over their words."""

from __future__ import annotations

import math
import re
from datetime import datetime

JobInfo = dict[str, str]
"""The fields of ``scontrol show job``, e.g. ``JobState``, ``Reason``, ``Restarts``."""

MOST_TASKS = 4_000_001
"""Slurm's own limit of an array (MaxArraySize)."""

_SILENCE = re.compile(
    "contact|timed out|timeout|socket|connect|communication|transmitted|standby", re.IGNORECASE
)


def parse_fields(text: str) -> JobInfo:
    """``Key=value Key=value …`` of a one-line scontrol answer, as a dict.

    The first of two equal keys counts: a comment or a folder's name, further on in the line, may
    hold what looks like another ``JobState=``.
    """
    fields: JobInfo = {}
    for key, value in re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", text):
        fields.setdefault(key, value)
    return fields


def array_indices(text: str) -> list[int]:
    """``0-2,5%4`` → ``[0, 1, 2, 5]``: tasks that wait have one record together."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?::([0-9]+))?", part)
        if match is not None:
            first, last, step = match[1], match[2] or match[1], match[3] or "1"
            tasks = range(whole(first), whole(last) + 1, max(1, whole(step)))
            found += tasks[: MOST_TASKS - len(found)]
    return found


def whole(digits: str) -> int:
    """A number of Slurm's; one of more digits than any it prints is 0."""
    return int(digits) if len(digits) < 19 else 0


def leading_number(text: str, default: int = 0) -> int:
    """``"30 sec"`` → 30, ``"64+"`` → 64."""
    match = re.match(r"[0-9]+", text)
    return whole(match[0]) if match else default


def limit_seconds(text: str) -> int | None:
    """A time limit (``D-HH:MM:SS``, ``MM:SS``) → seconds; None for no limit."""
    match = re.fullmatch(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+)", text)
    if match is None:
        return None
    days, hours, minutes, secs = (whole(part or "0") for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + secs


def parse_stamp(text: str | None) -> float | None:
    """``2026-11-24T03:29:12`` → Unix seconds; ``None``, ``Unknown`` → None."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def seconds_left(job: JobInfo, now: float) -> float:
    """How long a running job may still run; 0 where its record does not tell."""
    end = parse_stamp(job.get("EndTime"))
    if end is not None:
        return max(0.0, end - now)
    return math.inf if job.get("TimeLimit") == "UNLIMITED" else 0.0


def count_devices(gres: str, wanted: str) -> int:
    """``gpu:a100:4(S:0-1),gpu:2`` → 6; other resources count nothing.

    Args:
        wanted: the resource, perhaps with a type: of ``gpu:a100`` there are 4.
    """
    counts = count_gres(gres).items()
    return sum(count for kind, count in counts if wanted in (kind, kind.partition(":")[0]))


def count_gres(gres: str) -> dict[str, int]:
    """``gpu:a100:4(S:0-1),nvme:2`` → ``{"gpu:a100": 4, "nvme": 2}``; 0: without a plain number."""
    found: dict[str, int] = {}
    for entry in filter(None, re.sub(r"\([^)]*\)", "", gres).split(",")):
        kind, _, count = entry.rpartition(":")
        if not (kind and count.isdecimal()):
            kind, count = entry, "0"
        found[kind] = found.get(kind, 0) + whole(count)
    return found


def is_down(state: str) -> bool:
    """True for a node that is lost: ``DOWN*+DRAIN``, ``MIXED*``, ``IDLE+NOT_RESPONDING``.

    A node that is only switched off or about to be (``IDLE+POWERED_DOWN``, ``MIXED+DRAIN``) is
    not: the site does that with nodes that are free again.
    """
    words = re.split(r"[^A-Z_*]+", state)
    lost = ("DOWN", "FAIL", "FAILING", "ERROR", "NOT_RESPONDING")
    return any(word.endswith("*") or word in lost for word in words)


def unanswered(complaint: str) -> bool:
    """True for a complaint of a command that the controller gave no answer to: ask again."""
    return _SILENCE.search(complaint) is not None
