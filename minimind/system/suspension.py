"""Processes that somebody keeps from running: they make no step, and nothing is wrong with them.

Standard library only.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

STOPPED, FROZEN = "stopped", "frozen"

_STATES = ("T", "t")
"""Stopped by a signal, or by a debugger (proc(5))."""


def suspension(pid: int, proc: Path = Path("/proc")) -> str:
    """``STOPPED``, or ``FROZEN`` with its control group; "" for one that may run, or has ended."""
    with contextlib.suppress(OSError, IndexError):
        # The state follows the program's name, which may hold spaces and parentheses.
        if (proc / f"{pid}/stat").read_text().rpartition(")")[2].split()[0] in _STATES:
            return STOPPED
    return FROZEN if _is_frozen(pid, proc) else ""


def _is_frozen(pid: int, proc: Path) -> bool:
    """A group's own files say what its parents impose on it, too."""
    mounts = [line.split(" ") for line in _lines(proc / "mounts")]
    for line in _lines(proc / f"{pid}/cgroup"):
        _, controllers, path = line.split(":", 2)
        for _, folder, kind, options, *_ in mounts:
            group = Path(folder + path)
            if kind == "cgroup2" and not controllers:
                words = _lines(group / "cgroup.events")
            elif kind == "cgroup" and "freezer" in controllers and "freezer" in options:
                words = _lines(group / "freezer.state")
            else:
                continue
            if {"frozen 1", "FROZEN", "FREEZING"} & set(words):
                return True
    return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
