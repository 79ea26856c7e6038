"""This machine: its GPUs, its ports, and which processes of a run live on it.

Standard library only.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from launcher.records import Event


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


def free_port() -> int:
    """A TCP port that is free on this host now, under all of its addresses."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
