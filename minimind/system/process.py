"""Processes of this machine, and what it has for one: processors, a free port.

Standard library only.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def start_ticks(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process (proc(5)); None once it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The fields follow the program's name, which may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has ended; only its parent has not looked yet.
        return None if fields[0] == "Z" else int(fields[19])
    return None


def is_alive(pid: int, started: int | None = None) -> bool:
    """Whether a process runs; a zombie does not.

    Args:
        started: its :func:`start_ticks`, where known: numbers are given out again, in a
            container almost at once.
    """
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    now = start_ticks(pid)
    return now is not None and (started is None or now == started)


def boot_id() -> str:
    """What tells one start of this machine from all others; "" where there is no such thing."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def process_identity(pid: int) -> str | None:
    """``BOOT TICKS``, which no other process of this machine shares; None once it has ended."""
    started = start_ticks(pid)
    return None if started is None else f"{boot_id()} {started}"


def pid_namespace() -> str:
    """Process numbers mean nothing between containers, whose host names may be equal."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def started_at() -> float | None:
    """Unix time at which this process was started, to a hundredth of a second.

    None where the system does not tell.
    """
    ticks = start_ticks(os.getpid())
    if ticks is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


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
    import socket  # readers of a run ask no network, and need not load one

    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
