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
    comparison = Comparison(world, what, remedy, patient)
    while not comparison.holds(mine := read()):
        # A second one need not lie in memory beside it.
        del mine
    return mine.value


class Comparison:
    """What all ranks have read, compared until it is the same; see :func:`read_alike`."""

    def __init__(self, world: World, what: str, remedy: str, patient: bool = True) -> None:
        self._world = world
        self._what, self._remedy, self._patient = what, remedy, patient
        self._clock = AwakeClock(longest_gap=2 * LONGEST_PAUSE)
        self._pause, self._waits = FIRST_PAUSE, False

    def holds(self, mine: Reading[Any]) -> bool:
        """Whether every rank has read the same as rank 0; False: after a pause, read again.

        Raises:
            RanksDifferError: it does not, and it is too late to read again.
        """
        world = self._world
        reports = world.gather(Report.of(mine, self._clock.read()))
        differing = [rank for rank, seen in enumerate(reports) if seen.parts != reports[0].parts]
        if not differing:
            return True
        if not self._patient or reports[0].waited >= WAIT_SECONDS:
            found = difference(self._what, reports, differing)
            error = RanksDifferError(f"{found}; {self._remedy}")
            error.reported_elsewhere = not world.is_main
            raise error
        if world.rank in differing and not self._waits:
            self._waits = True
            log.warning("%s; looking again", difference(self._what, reports, [world.rank]))
        time.sleep(min(self._pause, WAIT_SECONDS))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return False


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
