"""A stop in the middle of each long piece of work of a rank."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.faults import signals
from tests.chaos.faults.moments import later, send, some_moment
from tests.chaos.faults.registry import Act, fault
from tests.chaos.faults.signals import CRASHED, EARLY, EVERYWHERE, NOBODY, STOPS, is_watched
from tests.chaos.places import sitecustomize as places
from tests.chaos.target import Lost, happens, wait_for

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
    begins: bool = False
    """Whether it is done only before an attempt trains, or soon after."""
    ends: bool = False
    """Whether it is done only as an attempt ends."""
    follows: bool = False
    """Whether an attempt that is stopped in it has an end with work of its own."""
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


DRAWING = Work(
    "drawing_the_loss", "minimind/charts/loss_curve.py", "plot_loss_curve", 50, ends=True
)
FINISHING = Work(
    "a_tracker_finishes", "trackers/tensorboard.py", "finish", 1, ends=True, needs=has_a_tracker
)
WORKS = (
    Work(
        "tokenising",
        "minimind/data/tokenize/build.py",
        "build_store",
        begins=True,
        forgets="tokens-*",
    ),
    Work("loading_a_checkpoint", "minimind/training/saving.py", "find_checkpoint", begins=True),
    Work("building_the_model", "minimind/training/build_model.py", "init_model", 2, begins=True),
    Work(
        "compiling",
        "minimind/training/build_model.py",
        "warm_up",
        500,
        begins=True,
        needs=compiles,
    ),
    Work(
        "scoring_held_out_text", "minimind/training/evaluate.py", "score_batch", 100, follows=True
    ),
    Work("writing_samples", "minimind/inference/generate.py", "generate", 100, follows=True),
    Work(
        "writing_a_profile",
        "minimind/training/profiler.py",
        "_write_files",
        50,
        begins=True,
        follows=True,
        needs=profiles,
    ),
    DRAWING,
    FINISHING,
)

MOST_STEPS = 60
"""So many of an attempt pass at most until a work that comes up in training does."""
END_SECONDS = 20.0
"""How long an attempt's end may take to come to a work."""
NEVER = "(never came)"


def name_of(work: Work) -> str:
    """The fault's name."""
    return f"stop_while_{work.name}"


def prepare(run: Any, work: Work) -> None:
    """See to it that the work is still to come in the attempt under way, or in the next."""
    is_past = work.begins and run.is_running() and run.steps()
    if (work.forgets or is_past) and (run.endings or run.is_running()):
        run.rest()
    for path in run.cache_dir.glob(work.forgets) if work.forgets else ():
        shutil.rmtree(path)


def stops_in(run: Any, rng: Random, work: Work) -> list[tuple[Work, signal.Signals]]:
    """Where signals fall: most of those in training are followed by others in its end's work."""
    # A second SIGINT is a person's impatience, which is another fault.
    others = [number for number in STOPS if number.name != "SIGINT"]
    first = rng.choice(others if work.ends else STOPS)
    falls = [(work, first)]
    if work.follows and first in others and rng.random() < 0.8:
        falls += [(end, rng.choice(others)) for end in (DRAWING, FINISHING) if end.needs(run)]
    return falls


def taken(order: Path) -> bool:
    """Whether a rank has followed an order, which else is taken back."""
    try:
        order.unlink()
    except FileNotFoundError:
        return True
    return False


def stop_during(run: Any, rng: Random, work: Work) -> list[str]:
    """Whichever rank is seen in the work first gets a stop signal there."""
    prepare(run, work)
    if run.is_over():
        return [f"{name_of(work)} {NOBODY}"]
    falls = stops_in(run, rng, work)
    orders = [
        f"{each.file} {each.function} {rng.randint(1, each.sightings)} {int(number)}"
        for each, number in falls
    ]
    first, *others = places.give(run.order, orders)
    run.ensure_running()
    before, ended = run.steps(), len(run.endings)

    def is_done(order: Path) -> bool:
        return not (order.exists() and run.is_running() and len(run.endings) == ended)

    if work.ends:
        later(run, rng)
        for pid in run.ranks():
            send(pid, falls[0][1])
        happens(lambda: is_done(first), END_SECONDS)
        struck = [taken(first)]
    else:
        wait_for(lambda: is_done(first) or run.steps() > before + MOST_STEPS, work.name)
        struck = [taken(first)]
        for pid in run.ranks() if not struck[0] else []:
            send(pid, falls[0][1])
    for order in others:
        happens(lambda order=order: is_done(order), END_SECONDS)
        struck.append(taken(order))
    return [
        f"{name_of(each)} {number.name if hit else NEVER}"
        for (each, number), hit in zip(falls, struck, strict=True)
    ]


def stop_in(work: Work) -> Act:
    """The fault's function, named after the work."""

    def act(run: Any, rng: Random) -> list[str]:
        return stop_during(run, rng, work)

    act.__name__ = name_of(work)
    return act


for each in WORKS:
    fault(
        *EVERYWHERE, codes=(CRASHED, *EARLY), causes=CAUSES, ends=True, weight=3, needs=each.needs
    )(stop_in(each))


AT_A_TERMINAL = (*signals.ALONE, "nfs")
"""A launcher's ranks have none; they are sent SIGHUP as one of the stop signals."""
ALONE = ("", "stop_requested", "crash")


@fault(*EVERYWHERE, causes=CAUSES, weight=2, needs=is_watched)
def stop_while_sizing_batches(run: Any, rng: Random) -> str:
    """In ``--batch_size auto`` of a run of its own, since what it finds differs from run to run."""
    number = rng.choice(STOPS)
    with run.beside({"batch_size": "auto"}) as other:
        place = f"minimind/training/batch_size.py seconds_of_step {rng.randint(1, 10)}"
        places.give(other.order, [f"{place} {int(number)}"])
        other.ensure_running()
        wait_for(lambda: not (other.order.exists() and other.is_running()), "trial steps")
        if other.order.exists():
            return NEVER
        other.settle()
        ending = other.endings[0]
        if set(ending.codes) - {STOPPED, CRASHED, *EARLY} or ending.cause not in ALONE:
            raise Lost(f"stopped in --batch_size auto, it ended with {ending}")
    return number.name


@fault(*AT_A_TERMINAL, codes=EARLY, ends=True, weight=3, needs=is_watched)
def hangup(run: Any, rng: Random) -> str:
    """The terminal is closed, or ssh drops: SIGHUP to all ranks."""
    moment = some_moment(run, rng)
    ranks = run.ranks()
    for pid in ranks:
        send(pid, signal.SIGHUP)
    return moment if ranks else NOBODY
