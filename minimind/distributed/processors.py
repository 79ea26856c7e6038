"""How many processors a rank computes on: its share of those that the ranks of its node have.

Standard library only: what is decided here must be decided before torch is loaded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, MutableMapping

from minimind.distributed.rendezvous import find_rendezvous
from minimind.system.process import available_cores, bound_cores

log = logging.getLogger(__name__)

THREADS = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
"""By these torch knows how many threads compute, and how many compile; by itself it takes all that
the process is bound to for each."""


def share_processors(environ: MutableMapping[str, str]) -> None:
    """Tell torch the share of this rank, where that is less than what torch would take.

    A number that is set already stays, as what the user asks for.

    Raises:
        ConfigError: variables of the rank's place contradict each other.
    """
    share = processors_of_rank(environ)
    if share < bound_cores():
        for name in THREADS:
            environ.setdefault(name, str(share))


def processors_of_rank(environ: Mapping[str, str]) -> int:
    """The processors of this rank, at least one.

    All ranks of a node share what they may use: by affinity, by a container's quota, by what Slurm
    gave the job here. A rank that Slurm bound to some of those has no others.

    Raises:
        ConfigError: variables of the rank's place contradict each other.
    """
    place = find_rendezvous(environ)
    mine = available_cores()
    of_job = environ.get("SLURM_CPUS_ON_NODE", "")
    of_all = int(of_job) if of_job.isdecimal() else mine
    if mine >= (os.cpu_count() or 1):
        # Bound to nothing: Slurm may count more than there are, or not enforce what it counts.
        of_all = min(of_all, mine)
    return max(1, min(mine, of_all // (place.local_world_size if place else 1)))


def bounded_workers(num_workers: int) -> int:
    """Lower ``--num_workers`` to this rank's share of the processors, and say so."""
    most = processors_of_rank(os.environ)
    if num_workers > most:
        log.warning("--num_workers %d lowered to %d: that many cores a rank", num_workers, most)
    return min(num_workers, most)
