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
LOOK_SECONDS = 60.0
"""How often ranks without progress are looked at: are they suspended?"""
HELD_UP_SECONDS = 5.0
"""A look that comes later than this: the supervisor itself was suspended."""
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

    def suspended(self, *, on_all_nodes: bool) -> str:
        """Who keeps ranks from running, such as SIGSTOP or a frozen container; else "".

        ``on_all_nodes``: look at other nodes too, which takes seconds. What cannot be seen is not
        known to be suspended.
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

    def begin_anew(self) -> None:
        """Counts from now: until now nothing could be expected to change."""
        self._changed_at = self._clock()

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


class HangWatch:
    """Tells a hang from ranks, or a supervisor, that somebody keeps from running.

    ``on_change``: is given who suspends the ranks once that is seen, and "" once they go on.
    """

    def __init__(
        self,
        ranks: Ranks,
        progress: Progress,
        timeout: float,
        on_change: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._ranks = ranks
        self._progress = progress
        self._timeout = timeout
        self._on_change = on_change
        self._clock = clock
        self._suspended = ""
        self._asked_at = self._looked_at = clock()

    def held_up(self) -> bool:
        """True when this process itself was suspended since the last call: that is no idling."""
        now, before = self._clock(), self._asked_at
        self._asked_at = now
        if now - before <= max(min(HELD_UP_SECONDS, self._timeout / 2), 4 * POLL_SECONDS):
            return False
        self._progress.begin_anew()
        return True

    def hung(self) -> bool:
        """True once the ranks have made no step for too long although they may run."""
        now, idle = self._clock(), self._progress.idle_seconds()
        pause = min(LOOK_SECONDS, self._timeout / 4)
        wanted = bool(self._suspended) or idle > pause
        if not wanted or (now - self._looked_at < pause and idle <= self._timeout):
            return False
        self._looked_at = now
        before, thorough = self._suspended, bool(self._suspended) or idle > self._timeout
        self._suspended = self._ranks.suspended(on_all_nodes=thorough)
        # A controller that is slow to answer is nobody's suspension.
        self._asked_at = self._clock()
        if bool(before) != bool(self._suspended):
            self._on_change(self._suspended)
        if before or self._suspended:
            self._progress.begin_anew()
            return False
        return idle > self._timeout


def watch(
    ranks: Ranks,
    progress: Progress,
    *,
    hang_timeout: float,
    each_tick: Callable[[], None],
    on_suspension: Callable[[str], None] = lambda reason: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Waits until the ranks are gone; ends them itself on a hang or when one has left.

    ``each_tick`` runs twice a second, for what the caller has to keep an eye on.
    ``on_suspension``: as :class:`HangWatch` has it.
    """
    broken_at: float | None = None
    hung = False
    hang = HangWatch(ranks, progress, hang_timeout, on_suspension, clock)
    while (code := ranks.poll()) is None:
        each_tick()
        held_up = hang.held_up()
        if (broken_at is None and ranks.broken()) or (broken_at is not None and held_up):
            broken_at = clock()
        if broken_at is not None and clock() - broken_at > STRAGGLER_SECONDS:
            ranks.kill()
        elif not hung and broken_at is None and hang.hung():
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
