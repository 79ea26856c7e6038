"""The process that has started the ranks of a machine: signalled, killed, suspended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from random import Random
from typing import Any

from tests.chaos.faults.moments import send, some_moment
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import ABORTED, CRASHED, EARLY, NOBODY, STOPS

KILLED = (-9,)


def send_all(pids: Iterable[int], number: int) -> None:
    """Signal some processes, one right after the other."""
    for pid in pids:
        send(pid, number)


@fault("procs", codes=EARLY, ends=True, weight=4)
def stop_parent(run: Any, rng: Random) -> str:
    """A stop signal to the parent, as ``docker stop`` and a closed terminal send it: 75."""
    moment = some_moment(run, rng)
    number = rng.choice(STOPS)
    pids = run.parents()
    send_all(pids, number)
    return f"{number.name} {moment}" if pids else NOBODY


@fault("procs", codes=EARLY, ends=True, weight=3)
def stop_the_tree(run: Any, rng: Random) -> str:
    """The same signal to the parent and all ranks, in any order: each rank gets it twice."""
    moment = some_moment(run, rng)
    # A second SIGINT is a person's impatience, which is another fault.
    number = rng.choice([number for number in STOPS if number != signal.SIGINT])
    pids = [*run.parents(), *run.ranks()]
    rng.shuffle(pids)
    send_all(pids, number)
    return f"{number.name} {moment}" if pids else NOBODY


@fault("procs", codes=(ABORTED, CRASHED, *EARLY), ends=True)
def parent_interrupted_twice(run: Any, rng: Random) -> str:
    """Ctrl-C twice: the second ends all at once."""
    moment = some_moment(run, rng)
    pids = run.parents()
    send_all(pids, signal.SIGINT)
    # The moment of the second is drawn.
    time.sleep(rng.uniform(0, 0.5))
    send_all(pids, signal.SIGINT)
    return moment if pids else NOBODY


@fault("procs", codes=KILLED, ends=True, weight=4)
def kill_parent(run: Any, rng: Random) -> str:
    """SIGKILL to the parent alone: its ranks notice, save and stop."""
    moment = some_moment(run, rng)
    pids = run.parents()
    send_all(pids, signal.SIGKILL)
    return moment if pids else NOBODY


@fault("procs", codes=KILLED, ends=True, weight=3)
def kill_the_tree(run: Any, rng: Random) -> str:
    """SIGKILL to all of it, as the end of a container is."""
    moment = some_moment(run, rng)
    pids = [*run.parents(), *run.ranks()]
    rng.shuffle(pids)
    send_all(pids, signal.SIGKILL)
    return moment if pids else NOBODY


@fault("procs", weight=3)
def parent_suspended(run: Any, rng: Random) -> str:
    """The parent alone, or all of the tree, is stopped for a while and goes on."""
    moment = some_moment(run, rng)
    pids = run.parents()
    if whole := rng.random() < 0.5:
        pids += run.ranks()
    send_all(pids, signal.SIGSTOP)
    # The pause is the fault itself.
    time.sleep(run.suspension_seconds * rng.uniform(0.5, 1))
    send_all(pids, signal.SIGCONT)
    return f"{'with its ranks' if whole else 'alone'} {moment}" if pids else NOBODY


@fault("procs", codes=(*EARLY, *KILLED), ends=True, weight=3)
def suspended_tree_stopped(run: Any, rng: Random) -> str:
    """Ctrl-Z, a stop signal while nothing runs, and ``fg``; or SIGKILL to the parent instead."""
    moment = some_moment(run, rng)
    parents = run.parents()
    pids = parents + run.ranks()
    send_all(pids, signal.SIGSTOP)
    number = rng.choice((*STOPS, signal.SIGKILL))
    send_all(parents, number)
    # How long nothing runs is drawn.
    time.sleep(rng.uniform(0, 1))
    send_all(pids, signal.SIGCONT)
    return f"{number.name} {moment}" if pids else NOBODY
