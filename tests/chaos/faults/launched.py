"""What people and signals do to a run's launcher; and two who start one run."""

from __future__ import annotations

import signal
import time
from random import Random
from typing import Any

from tests.chaos.faults.files import REFUSED
from tests.chaos.faults.moments import send, some_moment, steps
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import NOBODY, STOPS
from tests.chaos.target import Lost, wait_for


@fault("plain", "local", "slurm", weight=1.5)
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


@fault("local", "slurm", "docker", causes=("cancelled", "lost", "crash"))
def cancel_and_requeue(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    run.lab.launcher("cancel", run.name)
    active = ("RUNNING", "PENDING", "REQUEUED")
    wait_for(lambda: run.state() not in active, "the cancelled end")
    return moment
