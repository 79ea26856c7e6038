"""How long this process has been waiting, not counting the time when it could not run."""

from __future__ import annotations

import time
from collections.abc import Callable


class AwakeClock:
    """Seconds since it was made, less the gaps in which nobody read it.

    A process that is stopped, frozen, or on a laptop that sleeps, must not blame others for the
    time that it was away: between two readings at most ``longest_gap`` counts.
    """

    def __init__(self, longest_gap: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap = longest_gap
        self._now = now
        self._last = now()
        self._seconds = 0.0

    def read(self) -> float:
        """Seconds so far."""
        now = self._now()
        self._seconds += min(now - self._last, self._longest_gap)
        self._last = now
        return self._seconds
