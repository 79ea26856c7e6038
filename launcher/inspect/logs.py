"""Finding and following the ranks' logs."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from launcher.inspect import run_state as state
from launcher.inspect.follow import StateWatch
from launcher.spec.run_folder import RunFolder

POLL_SECONDS = 0.5
_RANK = re.compile(r"rank-([0-9]{1,9})\.log")


def log_files(run: RunFolder, attempt: int | None = None) -> dict[int, Path]:
    """Rank → log of one attempt, by default the newest."""
    number = attempt or (run.attempt_numbers() or [0])[-1]
    folder = run.attempt_dir(number)
    if not folder.is_dir():
        return {}
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := _RANK.fullmatch(path.name)) is not None
    }
    return dict(sorted(found.items()))


def print_log(run: RunFolder, rank: int, attempt: int | None, *, follow: bool) -> None:
    """Prints a log; with ``follow`` goes on through later attempts until the run has ended."""
    first = attempt or (run.attempt_numbers() or [1])[-1]
    shown: dict[int, int] = {}
    watch = StateWatch(run) if follow else None
    while True:
        # Asked first: what was written up to the end is then sure to be printed.
        last_look = watch is None or watch.look()[0] not in (*state.ACTIVE, state.UNKNOWN)
        for number in [attempt] if attempt else run.attempt_numbers():
            if number >= first:
                shown[number] = _print_from(run.rank_log(number, rank), shown.get(number, 0))
        if last_look:
            return
        time.sleep(POLL_SECONDS)


def _print_from(path: Path, offset: int) -> int:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return offset
    sys.stdout.write(data.decode(errors="replace"))
    sys.stdout.flush()
    return offset + len(data)
