"""Signals to ranks and loader workers: at random moments, and exactly at a call on a file."""

from __future__ import annotations

import shutil
import signal
import time
from random import Random
from typing import Any

from tests.chaos.faults.moments import later, send, some_moment, steps
from tests.chaos.faults.registry import fault
from tests.chaos.target import children, happens, wait_for
from tests.shim import striking

ALONE = ("plain", "procs")
"""Where nobody starts a run again but the adversary."""
HERE = (*ALONE, "local")
"""Where all ranks see the same files at the same time."""
SHIMMED = (*HERE, "nfs")
EVERYWHERE = (*SHIMMED, "slurm", "docker")

STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
CRASHED, ABORTED = 1, 130
EARLY = tuple(-int(number) for number in STOPS)
"""Before its handlers are there, a stop signal ends a process as any other."""
NOBODY = "(none there)"
"""Said when there was nothing left to hit: it does not count."""
CALLS = ("fsync", "fsync", "rename", "rename", "open", "write", "link", "unlink", "read")


def has_peers(run: Any) -> bool:
    """Whether one rank can be hit and another not."""
    return bool(run.world_size > 1)


def compiles(run: Any) -> bool:
    """Whether the run compiles its model."""
    return bool(run.compiles)


def has_workers(run: Any) -> bool:
    """Whether loader processes read the data."""
    return bool(run.has_workers)


def scores(run: Any) -> bool:
    """Whether the run scores held-out text after each micro-step."""
    return bool(run.scores)


def is_watched(run: Any) -> bool:
    """Whether the run does what it can be asked for beside training."""
    return "tracker" in run.flags


@fault(*EVERYWHERE, codes=EARLY, causes=("crash",), ends=True, weight=2)
def stop_all_ranks(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    number = rng.choice(STOPS)
    ranks = run.ranks()
    for pid in ranks:
        send(pid, number)
    return f"{number.name} {moment}" if ranks else NOBODY


@fault(
    *EVERYWHERE,
    codes=(CRASHED, *EARLY),
    causes=("crash",),
    ends=True,
    weight=2,
    needs=has_peers,
)
def stop_one_rank(run: Any, rng: Random) -> str:
    """The others stop with it, at the same step; before they have met, they fail with it."""
    moment = some_moment(run, rng)
    number = rng.choice(STOPS)
    if not (ranks := run.ranks()):
        return NOBODY
    send(rng.choice(ranks), number)
    return f"{number.name} {moment}"


@fault(*EVERYWHERE, weight=2)
def suspended(run: Any, rng: Random) -> str:
    """Ranks are stopped, for longer than a hang may take where that is watched, and go on."""
    moment = some_moment(run, rng)
    ranks = run.ranks()
    if ranks and rng.random() < 0.5:
        ranks = [rng.choice(ranks)]
    for pid in ranks:
        send(pid, signal.SIGSTOP)
    # The pause is the fault itself, and longer than the launcher lets a run hang.
    time.sleep(run.suspension_seconds * rng.uniform(0.8, 1))
    for pid in ranks:
        send(pid, signal.SIGCONT)
    return moment if ranks else NOBODY


@fault(*EVERYWHERE, codes=(*EARLY,), causes=("crash",), ends=True, weight=4, needs=scores)
def stop_while_scoring(run: Any, rng: Random) -> str:
    """Between the line of a loss and that of the held-out loss of the same step."""
    later(run, rng)
    wait_for(lambda: run.is_scoring() or not run.is_running(), "an evaluation")
    number = rng.choice(STOPS)
    ranks = run.ranks()
    for pid in ranks:
        send(pid, number)
    return number.name if ranks else NOBODY


@fault(*EVERYWHERE, codes=(-9,), causes=("crash",), ends=True, weight=2)
def kill_all_ranks(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    ranks = run.ranks()
    for pid in ranks:
        send(pid, signal.SIGKILL)
    return moment if ranks else NOBODY


@fault(*EVERYWHERE, codes=(-9, CRASHED), causes=("crash",), ends=True, weight=2, needs=has_peers)
def kill_one_rank(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    if not (ranks := run.ranks()):
        return NOBODY
    send(rng.choice(ranks), signal.SIGKILL)
    return moment


@fault(*SHIMMED, codes=(CRASHED,), causes=("crash",), weight=3, needs=has_workers)
def kill_loader_worker(run: Any, rng: Random) -> str:
    later(run, rng)
    workers = [child for pid in run.ranks() for child in children(pid)]
    if not workers:
        return NOBODY
    send(rng.choice(workers), signal.SIGKILL)
    return ""


@fault(*SHIMMED, weight=3, needs=has_workers)
def signal_loader_worker(run: Any, rng: Random) -> str:
    """A stop signal to a worker alone: it is its parent's business, so training goes on."""
    later(run, rng)
    workers = [child for pid in run.ranks() for child in children(pid)]
    if not workers:
        return NOBODY
    send(rng.choice(workers), rng.choice(STOPS))
    return ""


@fault(*ALONE, codes=(CRASHED, ABORTED, *EARLY), ends=True)
def impatient_interrupt(run: Any, rng: Random) -> str:
    """Ctrl-C twice: the second ends the process at once."""
    moment = some_moment(run, rng)
    for _ in range(2):
        for pid in run.ranks():
            send(pid, signal.SIGINT)
        time.sleep(rng.uniform(0, 0.05))
    return moment


@fault(*EVERYWHERE, codes=(-9, CRASHED, *EARLY), causes=("crash",), ends=True)
def stop_then_kill(run: Any, rng: Random) -> str:
    """A site that gives no time: SIGTERM, and SIGKILL a moment later, in mid-save."""
    moment = some_moment(run, rng)
    ranks = run.ranks()
    for pid in ranks:
        send(pid, signal.SIGTERM)
    time.sleep(rng.uniform(0, 0.15))
    for pid in ranks:
        send(pid, signal.SIGKILL)
    return moment if ranks else NOBODY


@fault(*ALONE, codes=(-9, CRASHED, *EARLY), ends=True, weight=8, needs=compiles)
def signal_while_compiling(run: Any, rng: Random) -> str:
    """At a moment of the seconds that the compiler needs when nothing is cached."""
    run.rest()
    for compiled in run.cache_dir.glob("compiled-*"):
        shutil.rmtree(compiled)
    before = run.compilations()
    run.ensure_running()
    wait_for(lambda: run.compilations() > before or not run.is_running(), "the compiler")
    if happens(lambda: run.steps() or not run.is_running(), rng.uniform(0, 6)):
        return "(too late)"
    number = rng.choice((*STOPS, signal.SIGKILL))
    ranks = run.ranks()
    for pid in ranks:
        send(pid, number)
    return number.name if ranks else NOBODY


def strike(run: Any, rng: Random, number: signal.Signals) -> str:
    """A signal that a rank gets exactly before or after its n-th call of a kind on its files."""
    call, when = rng.choice(CALLS), rng.choice(("before", "after"))
    # Forty micro-steps have about four saves, with so many calls of each kind.
    most = {"link": 3, "unlink": 3, "rename": 6}.get(call, 12)
    faults = striking(run.folder, call, rng.randint(1, most), when, number)
    run.ensure_running(faults)
    steps(run, 40)
    return f"{when} {call}" if run.settings.struck() else "(never came)"


@fault(*SHIMMED, codes=(-9, CRASHED), causes=("crash",), ends=True, weight=5)
def kill_at_a_file_call(run: Any, rng: Random) -> str:
    told = strike(run, rng, signal.SIGKILL)
    for pid in run.ranks():
        send(pid, signal.SIGKILL)
    return told


@fault(*SHIMMED, codes=(CRASHED, *EARLY), causes=("crash",), ends=True, weight=4)
def stop_at_a_file_call(run: Any, rng: Random) -> str:
    told = strike(run, rng, rng.choice(STOPS))
    for pid in run.ranks():
        send(pid, signal.SIGTERM)
    return told
