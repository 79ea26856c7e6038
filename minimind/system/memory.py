"""The memory of this machine, or of the container or job that this process is in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from minimind.system.cgroups import MEMBERSHIP, MOUNT, own_groups

_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.current"),
}


@dataclass(frozen=True)
class HostMemory:
    """In bytes.

    Attributes:
        total: of the machine, or the limit (cgroup) that holds for this process.
        free: what a process can have without swapping; None: not known.
        swap: what may be had beside ``total``.
    """

    total: int
    free: int | None
    swap: int


def host_memory() -> HostMemory | None:
    """What there is; None where the system does not say."""
    found = _meminfo(Path("/proc/meminfo"))
    total, free, swap = (found.get(name) for name in ("MemTotal", "MemAvailable", "SwapTotal"))
    if total is None:
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return None
    limit, used = cgroup_memory()
    if limit is not None and limit < total:
        total = limit
        free = max(0, limit - used) if free is None else min(free, max(0, limit - used))
    return HostMemory(total, free, swap or 0)


def _meminfo(path: Path) -> dict[str, int]:
    """Linux's own table, in bytes."""
    found = {}
    try:
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = int(value.removesuffix(" kB")) * 1024
    except (OSError, ValueError):
        return {}
    return found


def cgroup_memory(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> tuple[int | None, int]:
    """The tightest memory limit on this process and what is used of it, in bytes.

    ``(None, 0)``: no limit.
    """
    found: list[tuple[int, int]] = []
    for folder, version in own_groups("memory", membership, mount):
        limit_name, usage_name = _FILES[version]
        try:
            limit = int((folder / limit_name).read_text())
            found.append((limit, int((folder / usage_name).read_text())))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found) if found else (None, 0)
