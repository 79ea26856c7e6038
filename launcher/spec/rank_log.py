"""The log of a rank, which begins anew with every attempt."""

from __future__ import annotations

from launcher.spec.run_folder import RunFolder
from minimind.system.tail import Tail
from minimind.system.terminal import visible


class RankLog:
    """What one rank writes, from attempt ``first`` on, up to attempt ``last`` if there is one."""

    def __init__(self, run: RunFolder, rank: int, first: int, last: int | None = None) -> None:
        self._run = run
        self._rank = rank
        self._first = first
        self._last = last
        self._tails: dict[int, Tail] = {}

    def read(self) -> str:
        """What is new since the last look, for a terminal: no control sequence acts on it."""
        for number in self._run.attempt_numbers():
            if self._first <= number and (self._last is None or number <= self._last):
                path = self._run.rank_log(number, self._rank)
                self._tails.setdefault(number, Tail(path))
        return visible("".join(tail.read() for tail in self._tails.values()))
