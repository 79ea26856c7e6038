"""Which rank the others wait for, and for how long: at a log line, by what each did on its own."""

from __future__ import annotations

import os
import socket
import statistics
from typing import Any

from minimind.distributed.world import World


class SlowestRank:
    """Compares the ranks' own time, without what they waited for each other.

    In a step all ranks take equally long, since the faster ones wait in its exchange.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._nodes: list[str] = []
        """Of the ranks, in their order; asked for at the first log line."""

    def read(self, alone: float) -> dict[str, Any]:
        """What a log line says of the ranks, all of which call this; {} for one rank.

        Args:
            alone: seconds since the last log line in which this rank waited for no other.

        Returns:
            ``slowest_rank``, its ``slowest_node`` where there are several, and ``slowest_share``:
            the part of its time in which a typical rank waits, 0 to 1.
        """
        if not self._world.is_distributed:
            return {}
        self._nodes = self._nodes or self._world.gather(_node_name())
        seconds = self._world.gather_number(alone)
        rank = max(range(len(seconds)), key=seconds.__getitem__)
        typical = statistics.median_low(seconds[:rank] + seconds[rank + 1 :])
        share = 1 - typical / seconds[rank] if seconds[rank] > 0 else 0.0
        node = {"slowest_node": self._nodes[rank]} if len(set(self._nodes)) > 1 else {}
        return {"slowest_rank": rank, **node, "slowest_share": share}


def _node_name() -> str:
    """As Slurm calls this machine, where it runs the job."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
