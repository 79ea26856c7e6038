"""``logs``: prints what a rank has written, and what it goes on to write."""

from __future__ import annotations

import sys
import time

from launcher.inspect import run_state as state
from launcher.inspect.follow import StateWatch
from launcher.spec.rank_log import RankLog
from launcher.spec.run_folder import RunFolder

POLL_SECONDS = 0.5


def print_log(run: RunFolder, rank: int, attempt: int | None, *, follow: bool) -> None:
    """Prints a log; with ``follow`` goes on through later attempts until the run has ended."""
    first = attempt or max(run.attempt_numbers(), default=1)
    log = RankLog(run, rank, first, last=attempt)
    watch = StateWatch(run) if follow else None
    while True:
        # Asked first: what was written up to the end is then sure to be printed.
        last_look = watch is None or watch.look()[0] not in (*state.ACTIVE, state.UNKNOWN)
        sys.stdout.write(log.read())
        sys.stdout.flush()
        if last_look:
            return
        time.sleep(POLL_SECONDS)
