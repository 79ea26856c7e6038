"""Watches the ranks of one attempt: hangs, ranks left alone, and warnings from Slurm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

POLL_SECONDS = 0.5
STRAGGLER_SECONDS = 60.0
"""How long ranks may live on after another one left them; they wait for it in a collective."""
STACK_SECONDS = 5.0
"""How long the ranks of a hang get to write their stacks."""


class Ranks(Protocol):
    """The running ranks of one attempt, be they a Slurm step or local processes."""

    def poll(self) -> int | None:
        """The attempt's exit code, None while it runs."""

    def broken(self) -> bool:
        """True once a rank has ended and is not done: the others cannot go on without it.

        One that is asked to stop leaves alone only before training; later all go together.
        """

    def dump_stacks(self) -> None:
        """Makes every rank write its stacks into its log."""

    def kill(self) -> None:
        """Ends every rank at once."""


@dataclass(frozen=True)
class Outcome:
    """How the watch ended. ``exit_code`` is that of the ranks together."""

    exit_code: int
    hung: bool


class Progress:
    """Notices when files that the ranks write on their way have changed."""

    def __init__(self, files: list[Path], clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._seen = self._stamps()
        self._changed_at = clock()

    def idle_seconds(self) -> float:
        """Seconds since the last change."""
        stamps = self._stamps()
        if stamps != self._seen:
            self._seen = stamps
            self._changed_at = self._clock()
        return self._clock() - self._changed_at

    def _stamps(self) -> list[tuple[int, int]]:
        found = []
        for path in self._files:
            try:
                status = os.stat(path)
            except OSError:
                found.append((0, 0))
            else:
                found.append((status.st_size, status.st_mtime_ns))
        return found


def watch(
    ranks: Ranks,
    progress: Progress,
    *,
    hang_timeout: float,
    each_tick: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Waits until the ranks are gone; ends them itself on a hang or when one has left.

    ``each_tick`` runs twice a second, for what the caller has to keep an eye on.
    """
    broken_at: float | None = None
    hung = False
    while (code := ranks.poll()) is None:
        each_tick()
        if broken_at is None and ranks.broken():
            broken_at = clock()
        if broken_at is not None and clock() - broken_at > STRAGGLER_SECONDS:
            ranks.kill()
        elif not hung and broken_at is None and progress.idle_seconds() > hang_timeout:
            hung = True
            ranks.dump_stacks()
            _wait(ranks, STACK_SECONDS, clock, sleep)
            ranks.kill()
        sleep(POLL_SECONDS)
    return Outcome(code, hung)


def _wait(
    ranks: Ranks, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    deadline = clock() + seconds
    while ranks.poll() is None and clock() < deadline:
        sleep(POLL_SECONDS)
