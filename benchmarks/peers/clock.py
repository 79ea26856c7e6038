"""The clock of a trainer under measurement: how many real tokens in how many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class UpdateClock:
    """Counts the real tokens of optimiser steps between two moments at update boundaries.

    The measured span starts at the first boundary after ``warmup_seconds`` and at least one
    update (a compiled model compiles in its first), and ends at the first boundary after
    ``seconds`` more. Both are whole updates, so that no forward pass counts without its
    backward pass.

    Args:
        synchronize: waits for the device; called at boundaries only where the clock is read
            for good, so that it costs the run nothing in between.
    """

    def __init__(
        self,
        warmup_seconds: float,
        seconds: float,
        *,
        synchronize: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._warmup_seconds = warmup_seconds
        self._seconds = seconds
        self._synchronize = synchronize
        self._now = now
        self._began = now()
        self._start: float | None = None
        self._stop: float | None = None
        self._tokens = 0
        self._updates = 0

    def update(self, tokens: int) -> bool:
        """An optimiser step over so many real tokens is done; True: the time is up."""
        if self._start is None:
            if self._now() - self._began >= self._warmup_seconds:
                self._synchronize()
                self._start = self._now()
            return False
        self._tokens += tokens
        self._updates += 1
        if self._now() - self._start >= self._seconds:
            self._synchronize()
            self._stop = self._now()
            return True
        return False

    def result(self) -> dict[str, Any]:
        """Real tokens, seconds, tokens per second and updates of the measured span.

        Raises:
            ValueError: the run ended before the time was up.
        """
        if self._start is None or self._stop is None:
            raise ValueError("the run ended before its measurement: give it more data")
        seconds = self._stop - self._start
        return {
            "tokens": self._tokens,
            "seconds": seconds,
            "tokens_per_second": self._tokens / seconds,
            "updates": self._updates,
            "warmup_seconds": self._start - self._began,
        }
