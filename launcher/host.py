"""This machine: its GPUs, its ports, and which processes of a run live on it.

Standard library only.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from launcher.records import Event
from launcher.runs import RunFolder

_EVENTS = b"MINIMIND_EVENTS="


def count_gpus() -> int:
    """The NVIDIA GPUs of this machine; 0 where there is no driver."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def process_start(pid: int | str) -> str | None:
    """When a process started, in words that no other process of this machine shares.

    The boot and the clock ticks since then (proc(5)); None when it is gone, or is a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"


def alive(pid: int | str) -> bool:
    """True while ``pid`` runs; a zombie does not."""
    return process_start(pid) is not None


def supervisor_pid(events: list[Event]) -> int | None:
    """The local supervisor that wrote ``events``, while it lives on this host.

    Another process may have its number by now, here or on the host where it ran: a signal must
    not go to that one.
    """
    newest = next((e for e in reversed(events) if e["event"] == "supervisor_started"), None)
    if newest is None or newest.get("host") != socket.gethostname():
        return None
    began = process_start(newest["pid"])
    return newest["pid"] if began is not None and began == newest.get("began") else None


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


def free_port() -> int:
    """A TCP port that is free on this host now, under all of its addresses."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
