"""What this machine has for a process: processors, a free port."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Processors of this process: its CPU affinity, lowered by a container's CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota(cores)))


def _quota(unlimited: int) -> int:
    """The cgroup v2 quota ("max 100000" or "200000 100000": microseconds in each period)."""
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return unlimited if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return unlimited


def free_port() -> int:
    """A TCP port that is free now, under all addresses of this machine."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
