"""A stop in the middle of each long piece of work of a rank."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.faults.moments import later, send, some_moment
from tests.chaos.faults.registry import Act, fault
from tests.chaos.faults.signals import CRASHED, EARLY, EVERYWHERE, NOBODY, STOPS, is_watched
from tests.chaos.target import Lost, wait_for

STOPPED = 75
CAUSES = ("crash", "cancelled")
"""A run under Slurm rests by being cancelled."""


@dataclass(frozen=True)
class Work:
    """A function of a rank, and what has to be done for a rank to come into it."""

    name: str
    file: str
    function: str
    sightings: int = 10
    """At most so many times is it seen, a thousandth of a second apart, before the signal."""
    forgets: str = ""
    """Files of the cache without which the work has to be done again."""
    ends: bool = False
    """Whether it is done only as an attempt ends."""
    needs: Callable[[Any], bool] = is_watched


def compiles(run: Any) -> bool:
    """Whether such a run compiles its model."""
    return is_watched(run) and bool(run.compiles)


def profiles(run: Any) -> bool:
    """Whether such a run writes a profile."""
    return is_watched(run) and "profile" in run.flags


def has_a_tracker(run: Any) -> bool:
    """Whether such a run has a tracker, which the image lacks."""
    return is_watched(run) and bool(run.flags["tracker"])


WORKS = (
    Work("tokenising", "minimind/data/tokenize/build.py", "build_store", forgets="tokens-*"),
    Work("loading_a_checkpoint", "minimind/training/saving.py", "find_checkpoint"),
    Work("building_the_model", "minimind/training/build_model.py", "init_model", 2),
    Work("compiling", "minimind/training/build_model.py", "warm_up", 500, needs=compiles),
    Work("scoring_held_out_text", "minimind/training/evaluate.py", "score_batch", 100),
    Work("writing_samples", "minimind/inference/generate.py", "generate", 100),
    Work("writing_a_profile", "minimind/training/profiler.py", "_write_files", 50, needs=profiles),
    Work("drawing_the_loss", "minimind/charts/loss_curve.py", "plot_loss_curve", 50, ends=True),
    Work(
        "a_tracker_finishes", "trackers/tensorboard.py", "finish", 1, ends=True, needs=has_a_tracker
    ),
)


def stop_during(run: Any, rng: Random, work: Work) -> str:
    """Whichever rank is seen in the work first gets a stop signal there."""
    if run.endings or run.is_running():
        run.rest()
    if run.is_over():
        return NOBODY
    for path in run.cache_dir.glob(work.forgets) if work.forgets else ():
        shutil.rmtree(path)
    # A second SIGINT is a person's impatience, which is another fault.
    number = rng.choice([number for number in STOPS if not work.ends or number.name != "SIGINT"])
    place = f"{work.file} {work.function} {rng.randint(1, work.sightings)} {int(number)}"
    run.order.write_text(place)
    run.ensure_running()
    if work.ends:
        later(run, rng)
        for pid in run.ranks():
            send(pid, number)
        wait_for(lambda: not (run.order.exists() and run.is_running()), "the end of the attempt")
    else:
        wait_for(
            lambda: not (run.order.exists() and run.is_running() and run.steps() < 60), work.name
        )
    try:
        run.order.unlink()
    except FileNotFoundError:
        return number.name
    for pid in run.ranks():
        send(pid, number)
    return "(never came)"


def stop_in(work: Work) -> Act:
    """The fault's function, named after the work."""

    def act(run: Any, rng: Random) -> str:
        return stop_during(run, rng, work)

    act.__name__ = f"stop_while_{work.name}"
    return act


for each in WORKS:
    fault(
        *EVERYWHERE, codes=(CRASHED, *EARLY), causes=CAUSES, ends=True, weight=3, needs=each.needs
    )(stop_in(each))


ALONE = ("", "stop_requested", "crash")


@fault(*EVERYWHERE, causes=CAUSES, weight=2, needs=is_watched)
def stop_while_sizing_batches(run: Any, rng: Random) -> str:
    """In ``--batch_size auto`` of a run of its own, since what it finds differs from run to run."""
    number = rng.choice(STOPS)
    with run.beside({"batch_size": "auto"}) as other:
        place = f"minimind/training/batch_size.py seconds_of_step {rng.randint(1, 10)}"
        other.order.write_text(f"{place} {int(number)}")
        other.ensure_running()
        wait_for(lambda: not (other.order.exists() and other.is_running()), "trial steps")
        if other.order.exists():
            return "(never came)"
        other.settle()
        ending = other.endings[0]
        if set(ending.codes) - {STOPPED, CRASHED, *EARLY} or ending.cause not in ALONE:
            raise Lost(f"stopped in --batch_size auto, it ended with {ending}")
    return number.name


@fault(*EVERYWHERE, codes=EARLY, causes=("crash",), ends=True, weight=3, needs=is_watched)
def hangup(run: Any, rng: Random) -> str:
    """The terminal is closed, or ssh drops: SIGHUP to all ranks."""
    moment = some_moment(run, rng)
    ranks = run.ranks()
    for pid in ranks:
        send(pid, signal.SIGHUP)
    return moment if ranks else NOBODY
