"""Containers, and the clients that started them."""

from __future__ import annotations

import signal
from random import Random
from typing import Any

from tests.chaos.faults.moments import send, some_moment
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import NOBODY, STOPS


@fault("docker", causes=("crash",), ends=True, weight=2)
def container_killed(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    found = run.containers()
    if found:
        run.engine.run("kill", rng.choice(found))
    for pid in run.ranks() if not found else []:
        send(pid, signal.SIGKILL)
    return moment


@fault("docker", causes=("crash",), ends=True, weight=2)
def container_stopped(run: Any, rng: Random) -> str:
    """SIGTERM to its first process, and SIGKILL if that takes too long."""
    moment = some_moment(run, rng)
    for container in run.containers():
        run.engine.run("stop", "--time", "30", container)
    return moment


@fault("docker", causes=("crash",), weight=3)
def docker_client_signalled(run: Any, rng: Random) -> str:
    """After a SIGKILL of its client a container lives on as an orphan, until it is swept."""
    moment = some_moment(run, rng)
    clients = run.clients()
    if not clients:
        return NOBODY
    number = rng.choice((*STOPS, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL))
    for pid in clients:
        send(pid, number)
    return f"{number.name} {moment}"
