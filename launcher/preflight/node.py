"""What one node sees before the ranks start, as a program that runs once on each of them.

Prints one line of JSON. Its checks run side by side, and one that a file server or a driver holds
up keeps the others from nothing. Standard library only, and few modules of it: every node starts
this before every run.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launcher.preflight import gpus

SECONDS = 20.0
"""How long a check may take. An NFS server that fails over takes longer; the ranks would wait, too,
and only a node that is alone with it is called unfit."""
REACH_SECONDS = 10.0
"""To connect to the batch host: three tries of TCP."""
PROBE = b"a node's probe of the run folder; it may be removed\n" * 80


def folder(probe: str) -> dict[str, Any]:
    """Whether a file can be written, read back and removed: ``folder`` is the complaint, or "".

    ``folder_code`` is the name of its error.
    """
    try:
        file = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, PROBE)
            os.fsync(file)
            same = os.pread(file, len(PROBE), 0) == PROBE
        finally:
            os.close(file)
            os.unlink(probe)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "")
        return {"folder": error.strerror or str(error), "folder_code": code}
    return {"folder": "" if same else "a file reads back otherwise than it was written"}


def shared_memory() -> dict[str, Any]:
    """``shared_memory``: free bytes of /dev/shm; left out where there is none."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return {}
    return {"shared_memory": found.f_bavail * found.f_frsize}


def devices(commands: Sequence[str], pattern: str) -> dict[str, Any]:
    """``gpus`` that are here, ``gpus_said`` by their driver, ``gpus_given`` by Slurm, if known."""
    given = os.environ.get("SLURM_GPUS_ON_NODE", "")
    found: dict[str, Any] = {"gpus_given": int(given)} if given.isdecimal() else {}
    try:
        seen = gpus.visible(commands, pattern)
    except TimeoutError as error:
        seen = gpus.Shown(0, 0, str(error))
    if seen is not None:
        found["gpus"], found["gpus_said"] = seen.parts, seen.complaint
    return found


def clock(host: str, port: int) -> dict[str, Any]:
    """``reach``: why the batch host cannot be reached, or ""; ``clock``: seconds ahead of its.

    ``clock_within`` is how wrong that may be: the other clock is read while this process waits.
    """
    before = time.time()
    try:
        with socket.create_connection((host, port), REACH_SECONDS) as connection:
            connection.settimeout(REACH_SECONDS)
            theirs = float(connection.makefile("r").readline())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return {"reach": f"{host} port {port}: {reason}"}
    after = time.time()
    middle, within = (before + after) / 2, (after - before) / 2
    return {"reach": "", "clock": middle - theirs, "clock_within": within}


def look(checks: Mapping[str, Callable[[], dict[str, Any]]], seconds: float) -> dict[str, Any]:
    """What all ``checks`` find; ``late`` names those that have not ended after ``seconds``."""
    found: dict[str, Any] = {}
    threads = {}
    for name, check in checks.items():

        def run(check: Callable[[], dict[str, Any]] = check) -> None:
            found.update(check())

        threads[name] = threading.Thread(target=run, daemon=True)
        threads[name].start()
    until = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, until - time.monotonic()))
    return {**found, "late": [name for name, thread in threads.items() if thread.is_alive()]}


def main(argv: list[str]) -> None:
    """``PROBE COMMANDS PATTERN [HOST PORT]``.

    The name of a file to write; what lists accelerators, as JSON, and their line in it; where
    the batch host answers.
    """
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "folder": lambda: folder(f"{argv[0]}-{name}"),
        "shared_memory": shared_memory,
        "gpus": lambda: devices(json.loads(argv[1]), argv[2]),
    }
    if len(argv) > 3:
        checks["reach"] = lambda: clock(argv[3], int(argv[4]))
    found = look(checks, SECONDS)
    sys.stdout.write(json.dumps({"node": name, **found}) + "\n")
    sys.stdout.flush()
    # A check that is held up would keep this process.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
