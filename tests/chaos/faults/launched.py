"""What people and signals do to a run's launcher; and two who start one run."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.chaos.faults.files import REFUSED
from tests.chaos.faults.moments import send, some_moment, steps
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import HERE, NOBODY, STOPS
from tests.chaos.target import Lost, happens, wait_for
from tests.shim import striking

LAUNCHED = ("local", "slurm", "docker")

SHORT = {"open": 2, "write": 2, "fsync": 2, "read": 3}
PREPARES = {"open": 30, "write": 4, "fsync": 8, "rename": 3, "read": 6}
SUPERVISES = {"open": 14, "write": 10, "fsync": 10, "rename": 3, "read": 12}
"""Calls on the run folder of a command that only tells a run something, of one that makes its
folder, and of a supervisor in two attempts: about how many there are."""


@fault(*HERE, "slurm", weight=1.5)
def second_submission(run: Any, rng: Random) -> None:
    """The same run once more beside itself is refused, and the first does not notice."""
    some_moment(run, rng)
    steps(run, 1)
    codes = run.start_another()
    if run.is_running() and set(codes) != {REFUSED}:
        raise Lost(f"a second run on a folder in use ended with {codes}, not {REFUSED}")


@fault("local", "docker", causes=("lost", "crash"), weight=4)
def signal_supervisor(run: Any, rng: Random) -> str:
    """The process that starts the ranks: stopped in good order, or killed; then told to go on."""
    moment = some_moment(run, rng)
    pid = run.supervisor()
    if pid is None:
        return NOBODY
    number = rng.choice((*STOPS, signal.SIGKILL, signal.SIGKILL, signal.SIGHUP))
    send(pid, number)
    time.sleep(rng.uniform(0, 3))
    if rng.random() < 0.5 and run.state() == "INTERRUPTED":
        run.requeue_twice()
    return f"{number.name} {moment}"


@fault(*LAUNCHED, causes=("cancelled", "lost", "crash"))
def cancel_and_requeue(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    run.lab.launcher("cancel", run.name)
    active = ("RUNNING", "PENDING", "REQUEUED")
    wait_for(lambda: run.state() not in active, "the cancelled end")
    return moment


def at_a_call(
    run: Any, rng: Random, numbers: Sequence[int], only: str, calls: dict[str, int]
) -> dict[str, str]:
    """A signal that a process of the launcher gets before or after its n-th call of a kind."""
    call, when = rng.choice(list(calls)), rng.choice(("before", "after"))
    number = signal.Signals(rng.choice(numbers))
    return striking(run.folder, call, rng.randint(1, calls[call]), when, number, only)


def after_the_strike(run: Any, faults: dict[str, str], what: str) -> str:
    """Ends the strikes; what was struck, for the report. A call that never came does not count."""
    call, _, when, _ = faults["SHIM_STRIKE"].split(":")
    done = f"{what} {when} {call}" if run.launching.struck() else f"({what}: never came)"
    run.launching.write({})
    run.insist_consistent()
    return done


def strike_command(run: Any, rng: Random, numbers: Sequence[int]) -> str:
    """A command of the launcher is signalled at a call on the run folder."""
    command = rng.choice(("requeue", "resume", "cancel"))
    if not run.launched.exists():
        command = "submit"
    elif command == "cancel":
        some_moment(run, rng)
    else:
        run.rest()
    calls = SHORT if command in ("requeue", "cancel") else PREPARES
    word = command.replace("resume", "submit")
    faults = at_a_call(run, rng, numbers, f"launcher {word}", calls)
    run.struck(faults, command)
    return after_the_strike(run, faults, command)


LAUNCHER_ENDS = ("cancelled", "lost", "crash", "preempted")


@fault(*LAUNCHED, causes=LAUNCHER_ENDS, weight=3)
def command_killed_at_a_file_call(run: Any, rng: Random) -> str:
    """SIGKILL to submit, requeue, submit --resume or cancel."""
    return strike_command(run, rng, [signal.SIGKILL])


@fault(*LAUNCHED, causes=LAUNCHER_ENDS, weight=2)
def command_stopped_at_a_file_call(run: Any, rng: Random) -> str:
    """A stop signal to one of them, as Ctrl-C at the terminal is."""
    return strike_command(run, rng, STOPS)


def strike_supervisor(run: Any, rng: Random, numbers: Sequence[int]) -> str:
    """A supervisor is signalled at a call on the run folder, in one of its first attempts."""
    run.ensure_running()
    run.rest()
    if run.is_over():
        return NOBODY
    faults = at_a_call(run, rng, numbers, run.supervisor_words, SUPERVISES)
    run.struck(faults, "requeue")
    for _ in range(2):
        happens(lambda: run.launching.struck() or run.ranks(), run.gives_up_seconds / 8)
        # An attempt's end has calls, and so has the start of the next.
        for pid in run.ranks() if not run.launching.struck() else []:
            send(pid, signal.SIGKILL)
        wait_for(lambda: not run.ranks() or run.launching.struck(), "the ranks' end")
    happens(run.launching.struck, run.start_seconds)
    return after_the_strike(run, faults, "supervisor")


@fault(*LAUNCHED, causes=LAUNCHER_ENDS, weight=3)
def supervisor_killed_at_a_file_call(run: Any, rng: Random) -> str:
    """SIGKILL to the process that watches the ranks."""
    return strike_supervisor(run, rng, [signal.SIGKILL])


@fault(*LAUNCHED, causes=LAUNCHER_ENDS, weight=2)
def supervisor_stopped_at_a_file_call(run: Any, rng: Random) -> str:
    """A stop signal to it."""
    return strike_supervisor(run, rng, STOPS)
