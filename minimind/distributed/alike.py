"""What every rank reads for itself, and all must read alike: nothing is trained on before they do.

A name is not a file: a host may have another file system mounted there, or a network file system
may still show what the name stood for a minute ago. So all ranks compare what they have read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from minimind.distributed.world import World
from minimind.errors import RanksDifferError
from minimind.system.awake import AwakeClock

T = TypeVar("T")

WAIT_SECONDS = 120.0
"""How long a rank that reads something else looks again. NFS keeps names for up to 60 seconds."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two looks; twice as long each time."""

SHOWN_RANKS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What one rank has read.

    Attributes:
        parts: what must be alike, under the names that a message has for it: steps, digests.
        place: where it was read; may differ.
        value: stays on its rank.
    """

    parts: Mapping[str, str]
    place: str
    value: T


@dataclass(frozen=True)
class Report:
    """What the other ranks get to know of a reading."""

    parts: Mapping[str, str]
    place: str
    host: str
    waited: float
    """Seconds that this rank has been looking."""

    @staticmethod
    def of(reading: Reading[Any], waited: float) -> Report:
        return Report(dict(reading.parts), reading.place, socket.gethostname(), waited)

    def listed(self, names: Sequence[str]) -> str:
        """The parts called ``names``, and where they were read."""
        parts = [
            f"{name} {_short(self.parts[name])}".strip() for name in names if name in self.parts
        ]
        return f"{', '.join(parts) or 'nothing'} ({self.place})"


def _short(value: str) -> str:
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", value)


def read_alike(
    world: World,
    what: str,
    read: Callable[[], Reading[T]],
    *,
    remedy: str,
    patient: bool = True,
) -> T:
    """Return what this rank reads, once every rank reads the same as rank 0.

    Args:
        what: in the plural, for the message.
        read: reads anew each time; all ranks call it together, so it may exchange something.
        remedy: what to change when ranks differ, in the imperative.
        patient: whether to read again, for up to WAIT_SECONDS; alone, nobody waits.

    Raises:
        RanksDifferError: on every rank; one line that names those that differ.
    """
    clock = AwakeClock(longest_gap=2 * LONGEST_PAUSE)
    pause, waits = FIRST_PAUSE, False
    while True:
        mine = read()
        reports = world.gather(Report.of(mine, clock.read()))
        differing = [rank for rank, seen in enumerate(reports) if seen.parts != reports[0].parts]
        if not differing:
            return mine.value
        if not patient or reports[0].waited >= WAIT_SECONDS:
            error = RanksDifferError(f"{difference(what, reports, differing)}; {remedy}")
            error.reported_elsewhere = not world.is_main
            raise error
        if world.rank in differing and not waits:
            waits = True
            log.warning("%s; looking again", difference(what, reports, [world.rank]))
        # A second one need not lie in memory beside it.
        del mine
        time.sleep(min(pause, WAIT_SECONDS))
        pause = min(2 * pause, LONGEST_PAUSE)


def difference(what: str, reports: Sequence[Report], differing: Sequence[int]) -> str:
    """What the first of the ``differing`` ranks sees and what rank 0 does; who else differs."""
    theirs, ours = reports[differing[0]], reports[0]
    names = [
        name
        for name in dict.fromkeys([*theirs.parts, *ours.parts])
        if theirs.parts.get(name) != ours.parts.get(name)
    ]
    shown = [f"{rank} on {reports[rank].host}" for rank in differing[1:SHOWN_RANKS]]
    if more := len(differing) - 1 - len(shown):
        shown.append(f"{more} more")
    others = f" (ranks {', '.join(shown)} differ too)" if shown else ""
    return (
        f"ranks read different {what}: rank {differing[0]} on {theirs.host} sees "
        f"{theirs.listed(names)}, rank 0 on {ours.host} {ours.listed(names)}{others}"
    )


def look_anew(path: Path) -> None:
    """Let a network file system ask its server again what ``path`` is."""
    with contextlib.suppress(OSError):
        os.listdir(path.parent)
