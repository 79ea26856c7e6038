"""Processes of this machine, and what it has for one: processors, a free port.

Standard library only.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from minimind.system.cgroups import MEMBERSHIP, MOUNT, own_groups


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


def bound_cores() -> int:
    """Processors that this process may be put on: its CPU affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_cores() -> int:
    """Processors of this process: its CPU affinity, lowered by a container's CPU quota."""
    return max(1, min([bound_cores(), *map(math.ceil, cpu_quotas())]))


def cpu_quotas(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> Iterator[float]:
    """Each limit of a control group on this process, in processors.

    Version 2 writes quota and period in one line ("max 100000", "200000 100000", in
    microseconds), version 1 in a file each, -1 for no limit.
    """
    for folder, version in own_groups("cpu", membership, mount):
        try:
            if version == 2:
                words = (folder / "cpu.max").read_text().split()
            else:
                files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                words = [(folder / name).read_text() for name in files]
            quota, period = map(int, words)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:
            yield quota / period


def free_port() -> int:
    """A TCP port that is free now, under all addresses of this machine."""
    import socket  # readers of a run ask no network, and need not load one

    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
