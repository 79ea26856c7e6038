"""This machine: its GPUs, and which processes of a run live on it.

Standard library only.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from launcher.spec.run_folder import RunFolder
from minimind.rundir import env
from minimind.rundir.events import SILENT_SECONDS, Event, Kind
from minimind.system.process import process_identity

_ATTEMPT_EVENTS = (Kind.ATTEMPT_STARTED, Kind.ATTEMPT_ENDED, Kind.REQUEUED)
_EVENTS = f"{env.EVENTS}=".encode()


def count_gpus() -> int:
    """The NVIDIA GPUs of this machine; 0 where there is no driver."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def supervisor_pid(events: list[Event]) -> int | None:
    """The local supervisor that wrote ``events``, while it lives on this host.

    Another process may have its number by now, here or on the host where it ran: a signal must
    not go to that one.
    """
    newest = next((e for e in reversed(events) if e["event"] == Kind.SUPERVISOR_STARTED), None)
    if newest is None or newest.get("host") != socket.gethostname():
        return None
    began = process_identity(newest["pid"])
    return newest["pid"] if began is not None and began == newest.get("began") else None


def supervisor_elsewhere(run: RunFolder, events: list[Event]) -> tuple[str, bool] | None:
    """The other host that ``run``'s supervisor began on and has not left, and whether it lives.

    A machine that was switched off leaves nothing but silence, and one with a new name, as
    containers have, must be able to go on: so silence counts as death after a while.
    """
    newest = next((e for e in reversed(events) if e["event"] == Kind.SUPERVISOR_STARTED), None)
    if newest is None or newest.get("host", socket.gethostname()) == socket.gethostname():
        return None
    since = [e["event"] for e in events[events.index(newest) :] if e["event"] in _ATTEMPT_EVENTS]
    if since and since[-1] == Kind.ATTEMPT_ENDED:
        # The supervisor that goes on says "requeued".
        return None
    try:
        # Opening, unlike a look from outside, asks the file server.
        with run.supervisor_lock.open("rb") as lock:
            age = time.time() - os.fstat(lock.fileno()).st_mtime
    except OSError:
        age = SILENT_SECONDS
    return newest["host"], abs(age) < SILENT_SECONDS


def living_ranks(run: RunFolder) -> list[int]:
    """The processes of this host that are ranks of ``run``, whether or not a supervisor lives.

    They are known by their environment: a supervisor that is killed can leave no list that is
    sure to be whole, and a number in a list may be another process's by now.
    """
    events_file = os.path.realpath(run.events_file)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
        except OSError:
            continue
        mine = (os.fsdecode(v[len(_EVENTS) :]) for v in variables if v.startswith(_EVENTS))
        # A rank leads a session; the others in it, its loader workers, end with it.
        if session == folder.name and any(os.path.realpath(p) == events_file for p in mine):
            found.append(int(folder.name))
    return found
