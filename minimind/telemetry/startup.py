"""Where the seconds go from the process's start to the first step."""

from __future__ import annotations

import time

import psutil

from minimind.system.process import started_at


class StartupClock:
    """Splits the time since the operating system started this process into named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = started_at() or psutil.Process().create_time()

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
