"""This machine: its accelerators, and which processes of a run live on it.

Standard library only. As a program, ``python -m launcher.supervise.host EVENTS_FILE`` tells who
suspends the run of that event log on this machine.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from launcher.containers import runtimes as container
from launcher.preflight.gpus import visible
from launcher.spec.devices import Devices
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from minimind.rundir import env
from minimind.rundir.events import GOES_ON, SILENT_SECONDS, Event, Kind, is_fresh
from minimind.system.process import process_identity
from minimind.system.suspension import FROZEN, STOPPED, suspension

_ATTEMPT_EVENTS = (Kind.ATTEMPT_STARTED, Kind.ATTEMPT_ENDED, *GOES_ON)
_EVENTS = f"{env.EVENTS}=".encode()


def count_devices(devices: Devices) -> int:
    """How many of these accelerators this machine has; 0 where no command of theirs lists any.

    One that is divided counts once: a process sees a single part of it.
    """
    try:
        shown = visible(devices.list_commands, devices.listed)
    except TimeoutError:
        return 0
    return shown.devices if shown is not None else 0


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
    return newest["host"], is_fresh(age)


def living_ranks(run: RunFolder) -> list[int]:
    """The processes of this host that are ranks of ``run``, whether or not a supervisor lives.

    They are known by their environment: a supervisor that is killed can leave no list that is
    sure to be whole, and a number in a list may be another process's by now.
    """
    # A rank leads a session; the others in it, its loader workers, end with it.
    return [pid for pid in _processes(run.events_file) if _session(pid) == pid]


def suspended(events_file: Path) -> str:
    """Who keeps a process of the run of ``events_file`` on this host from running; else ""."""
    said = {
        STOPPED: "process {} is stopped (kill -CONT lets it go on)",
        FROZEN: "the control group of process {} is frozen",
    }
    for pid in _processes(events_file):
        if word := suspension(pid):
            return said[word].format(pid)
    return ""


def paused(spec: JobSpec) -> str:
    """Which of the run's containers the runtime says to be paused; else ""."""
    found = _engine(container.paused_command(spec))
    unpause = f"{spec.container} unpause lets it go on"
    return f"container {found[0]} is paused ({unpause})" if found else ""


def unpause(spec: JobSpec) -> None:
    """Lets the run's containers go on: one that is paused takes no signal."""
    _engine(container.unpause_command(spec))


def _engine(command: list[str]) -> list[str]:
    if not command:
        return []
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return []


def _processes(events_file: Path) -> list[int]:
    """The processes of this host that were started with ``events_file``, as far as one may look."""
    wanted = os.path.realpath(events_file)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = (os.fsdecode(v[len(_EVENTS) :]) for v in variables if v.startswith(_EVENTS))
        if any(os.path.realpath(path) == wanted for path in mine):
            found.append(int(folder.name))
    return found


def _session(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None


def main() -> None:
    """``EVENTS_FILE``: prints who suspends the run on this machine, if anybody does."""
    if reason := suspended(Path(sys.argv[1])):
        print(f"{socket.gethostname()}: {reason}")


if __name__ == "__main__":
    main()
