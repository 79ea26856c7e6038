"""Where the seconds go from the process's start to the first step."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil


def process_start() -> float:
    """Unix time at which this process was started, to a hundredth of a second on Linux."""
    try:
        # Counted in ticks since the machine's start; the fields before it follow the
        # program's name, which may hold spaces and parentheses. See proc_pid_stat(5).
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, AttributeError, IndexError, ValueError):
        return psutil.Process().create_time()


class StartupClock:
    """Splits the time since the operating system started this process into named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = process_start()

    def lap(self, name: str) -> None:
        """What was done since the last lap, or since the process's start, was ``name``."""
        now = time.time()
        # The clock that stamps processes ticks in hundredths of a second.
        self.seconds[name] = max(0.0, now - self._last)
        self._last = now

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
