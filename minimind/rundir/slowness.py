"""Who holds up a run, from its log lines. Standard library only."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from minimind.rundir.metrics import Point

T = TypeVar("T")

WINDOW = 10
"""The newest log lines that tell whether a rank is slow now."""
LEAST_LINES = 5
"""Fewer say nothing: any rank is the slowest of one line."""
STEADILY = 0.8
"""Share of the lines in which it is the same rank, or node."""
REMARKABLE = 0.1
"""Share of the time that is worth a word."""


@dataclass(frozen=True)
class Slowest:
    """Who was the slowest in the most of ``lines`` log lines.

    ``who``: "rank 3 on n2"; "n2" where its ranks took turns. ``times``: in how many lines.
    ``share``: the part of the time that a typical rank waited then, 0 to 1, the median.
    """

    who: str
    times: int
    lines: int
    share: float

    @property
    def steadily(self) -> bool:
        """Whether the machine is worth a look."""
        often = self.times >= STEADILY * self.lines
        return self.lines >= LEAST_LINES and often and self.share >= REMARKABLE

    def __str__(self) -> str:
        return (
            f"{self.who} was the slowest in {self.times} of {self.lines} log lines; "
            f"the others waited {100 * self.share:.0f}% of the time for it"
        )


def slowest(points: Sequence[Point]) -> Slowest | None:
    """Who was the slowest most often; None where nothing is on record, as of one rank."""
    known = [point for point in points if {"slowest_rank", "slowest_share"} <= point.keys()]
    if not known:
        return None
    node, of_node = _most_common([str(point.get("slowest_node", "")) for point in known])
    on_node = [point for point in known if point.get("slowest_node", "") == node]
    rank, of_rank = _most_common([point["slowest_rank"] for point in on_node])
    where = f" on {node}" if node else ""
    if node and of_rank < STEADILY * of_node:
        chosen, who = on_node, node
    else:
        chosen = [point for point in on_node if point["slowest_rank"] == rank]
        who = f"rank {rank}{where}"
    share = statistics.median(point["slowest_share"] for point in chosen)
    return Slowest(who, len(chosen), len(known), share)


def slow_now(points: Sequence[Point]) -> Slowest | None:
    """Who is steadily slow in the newest attempt of a run; None: nobody."""
    newest = points[-1].get("attempt") if points else None
    mine = [p for p in points if p.get("attempt") == newest and "slowest_rank" in p]
    found = slowest(mine[-WINDOW:])
    return found if found is not None and found.steadily else None


def _most_common(values: Sequence[T]) -> tuple[T, int]:
    return Counter(values).most_common(1)[0]
