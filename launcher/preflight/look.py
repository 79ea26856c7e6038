"""Has every node of a job look at itself, all at the same time, and collects what they report."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from launcher.preflight.judge import Report, Seen, read_report
from launcher.spec.devices import Devices
from launcher.spec.run_folder import RunFolder
from minimind.system.terminal import printable

LONGEST_SECONDS = 60.0
"""How long nodes get to answer. A thousand of them that start a Python from one file server take
longer than a few."""
END_SECONDS = 5.0
"""How long a step may live on once every node has answered, or once it is told to end."""
POLL_SECONDS = 0.05
COMPUTE_SECONDS = 90.0
"""For the GPUs: a first import of torch from a file server takes a minute."""
COMPUTE = ("-m", "launcher.preflight.compute")
NODE = ("-m", "launcher.preflight.node")


class Clock:
    """Tells its time to every node that connects; that it is reached is an answer, too."""

    def __enter__(self) -> int:
        """Returns the port."""
        self._server = _listen()
        threading.Thread(target=self._answer, name="clock", daemon=True).start()
        return int(self._server.getsockname()[1])

    def __exit__(self, *error: object) -> None:
        # A thread that waits in accept() would go on to wait.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(f"{time.time()!r}\n".encode())


def _listen() -> socket.socket:
    """On all addresses of this host, of both kinds where it has both."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
    return socket.create_server(("", 0), backlog=1024)


def look(
    run: RunFolder,
    nodes: Sequence[str],
    step: Sequence[str],
    address: str,
    devices: Devices | None = None,
    limit: float = LONGEST_SECONDS,
) -> Seen:
    """What ``nodes``, this one first, report of themselves.

    Args:
        step: srun, as it starts one process on each of them; not needed where they are this one.
        address: of this node, for the others.
        devices: that each of them is to show; None: none.
    """
    began = time.monotonic()
    lists = (json.dumps(devices.list_commands), devices.listed) if devices else ("[]", "")
    here = [sys.executable, *NODE, str(run.probe), *lists]
    try:
        if len(nodes) == 1:
            reports, silent, problem = _collect(here, nodes, limit)
        else:
            with Clock() as port:
                words = [*step, *here, address, str(port)]
                reports, silent, problem = _collect(words, nodes, limit)
    except OSError as error:
        reports, silent, problem = {}, [], f"the nodes could not be looked at: {error.strerror}"
    return Seen(tuple(nodes), reports, silent, problem, time.monotonic() - began)


def compute(
    nodes: Sequence[str],
    step: Sequence[str],
    environment: Mapping[str, str],
    limit: float = COMPUTE_SECONDS,
) -> Seen:
    """What ``nodes``, in Slurm's order, report of their GPUs and of an all-reduce between them.

    Args:
        step: srun, and the Python of the ranks, as it starts once on each of them.
    """
    began = time.monotonic()
    words = [*step, *COMPUTE, ",".join(nodes)]
    try:
        found = _collect(words, nodes, limit, environment, _computed)
    except OSError as error:
        found = {}, [], f"the GPUs could not be looked at: {error.strerror}"
    return Seen(tuple(nodes), *found, time.monotonic() - began)


def _computed(report: Report) -> bool:
    """Whether a node has no more to say."""
    return bool(report.computes) or report.reduces is not None


def _collect(
    words: Sequence[str],
    nodes: Sequence[str],
    limit: float,
    environment: Mapping[str, str] | None = None,
    is_last: Callable[[Report], bool] = lambda report: True,
) -> tuple[dict[str, Report], list[str], str]:
    """The reports, the nodes that have not answered in time, and why there are fewer reports."""
    process = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    reports: dict[str, Report] = {}
    said: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            report = read_report(line)
            if report is None:
                said.append(line.strip())
            elif report.node in nodes:
                reports[report.node] = report

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def all_said() -> bool:
        # The others wait for a node that does not compute.
        told = list(reports.copy().values())
        hopeless = any(report.computes for report in told)
        return len(told) == len(nodes) and (hopeless or all(map(is_last, told)))

    in_time = _wait(lambda: all_said() or not reader.is_alive(), limit)
    _wait(lambda: not reader.is_alive(), END_SECONDS if in_time else 0)
    _end(process)
    missing = [node for node in nodes if node not in reports]
    if not missing:
        return reports, [], ""
    errors = [line for line in said if "error" in line.lower()]
    if in_time or errors:
        # It could not start there, or its Python is too old: no fault of the nodes'.
        why = printable((errors or said or [f"status {process.returncode}"])[-1])
        return reports, [], f"{', '.join(missing)} could not be looked at: {why}"
    return reports, missing, ""


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    """Whether ``done`` comes true in time. Who is suspended with the nodes does not count it."""
    for _ in range(max(1, round(seconds / POLL_SECONDS))):
        if done():
            return True
        time.sleep(POLL_SECONDS)
    return done()


def _end(process: subprocess.Popen[str]) -> None:
    """Ends it where it runs, without waiting for what a file server holds up."""
    for end in (lambda: None, process.terminate, process.kill):
        end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS if end == process.terminate else 0.1)
            return
