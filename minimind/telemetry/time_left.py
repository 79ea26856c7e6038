"""How long a run has still to train."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class TimeLeft:
    """What is left of the steps at the speed so far, or of ``--max_minutes`` if that is less.

    The speed is that of this attempt from here on, with all that training waits for: saves,
    evaluations, samples.

    Attributes:
        done: optimiser steps before this attempt.
        total: optimiser steps of the whole run, ``--max_steps`` considered.
        deadline: ``time.monotonic()`` at which ``--max_minutes`` is over; infinite without it.
    """

    done: int
    total: int
    deadline: float

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self, done: float) -> float:
        """Seconds to the end of training, when ``done`` optimiser steps are done, parts too."""
        now = time.monotonic()
        limit = max(0.0, self.deadline - now)
        taken = done - self.done
        if taken <= 0:
            return limit
        return min(limit, max(0.0, self.total - done) * (now - self._start) / taken)
