"""The memory of this machine, or of the container or job that this process is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


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


def cgroup_memory(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> tuple[int | None, int]:
    """The tightest memory limit on this process and what is used of it, in bytes.

    Reads cgroup v2 and v1. A limit on a group also binds the groups inside of it, so that
    every ancestor counts. ``(None, 0)``: no limit.
    """
    found: list[tuple[int, int]] = []
    for folder, limit_name, usage_name in _cgroup_folders(membership, mount):
        try:
            limit = int((folder / limit_name).read_text())
            found.append((limit, int((folder / usage_name).read_text())))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found) if found else (None, 0)


def _cgroup_folders(membership: Path, mount: Path) -> Iterator[tuple[Path, str, str]]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inner = line.split(":", 2)
        if controllers == "":
            root, names = mount, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root = mount / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the host's, which is not mounted here: the walk
        # then ends at the mount point, which is the container's own group.
        folder = root / inner.strip("/")
        while True:
            yield folder, *names
            if folder == root:
                break
            folder = folder.parent
