"""Ranks as processes of this machine: for ``minimind pretrain --procs``, the image, the launcher.

torchrun will not do: it turns a rank's exit code 75 into 1, sends SIGKILL 30 seconds after
SIGTERM, and forwards no other stop signal. Standard library only.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from minimind.errors import EXIT_CANCELLED, EXIT_RUN_ME_AGAIN, as_shell_code
from minimind.rundir import env
from minimind.system.process import free_port
from minimind.system.signals import FORWARDED, STOP_SIGNALS, heeded

SECONDS_AFTER_A_CRASH = 10.0
"""How long the other ranks get to fail and say why, once one has crashed."""
SECONDS_AFTER_A_STOP = 60.0
"""The same once one has stopped. In training all go together; earlier they may wait for it."""

POLL_SECONDS = 0.1


class LocalRanks:
    """One process for each of ``environments``, the leader of a session of its own.

    So Ctrl-C at a terminal reaches a rank only through :meth:`send`, and :meth:`kill` ends its
    loader workers too.

    Args:
        logs: a file for each rank, to append its output to (default: this process's output).

    Raises:
        OSError: a rank cannot be started; none is left running.
    """

    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        *,
        logs: Sequence[Path] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank, environment in enumerate(environments):
                with contextlib.ExitStack() as stack:
                    log = stack.enter_context(logs[rank].open("ab")) if logs else None
                    process = subprocess.Popen(
                        command,
                        env=environment,
                        cwd=cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log and subprocess.STDOUT,
                        start_new_session=True,
                    )
                self._processes.append(process)
        except OSError:
            self.kill()
            raise

    def codes(self) -> list[int | None]:
        """Every rank's exit code, 128 + N where signal N ended it; None while it runs."""
        return [as_shell_code(process.poll()) for process in self._processes]

    def send(self, number: int) -> None:
        """Send a signal to every rank that runs; one that is stopped goes on to save and stop."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)
                if number in STOP_SIGNALS:
                    os.killpg(process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End every rank that runs, and its loader workers, at once."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def place_variables(rank: int, count: int, port: int) -> dict[str, str]:
    """torchrun's names for the place of a rank among ``count`` on this machine."""
    return {
        env.RANK: str(rank),
        env.LOCAL_RANK: str(rank),
        env.WORLD_SIZE: str(count),
        env.LOCAL_WORLD_SIZE: str(count),
        env.MASTER_ADDR: "127.0.0.1",
        env.MASTER_PORT: str(port),
    }


def run_ranks(command: Sequence[str], count: int) -> int:
    """Run ``count`` ranks of ``command`` to their end; stop signals go on to each of them.

    The ranks stop by themselves when this process is gone.

    Returns:
        0: all are done. 75: stopped on request, at least one of them, and no crash. Else the
        code of the rank that crashed first, 128 + N when signal N ended it.

    Raises:
        OSError: a rank cannot be started.
    """
    shared = {**os.environ, env.RANK_STARTER: str(os.getpid())}
    port = free_port()
    received: list[int] = []
    with _receiving(received.append):
        ranks = [{**shared, **place_variables(rank, count, port)} for rank in range(count)]
        return _watch(LocalRanks(command, ranks), received)


@contextlib.contextmanager
def _receiving(take: Callable[[int], None]) -> Iterator[None]:
    """Hand the signals that ranks are to get to ``take``, instead of being ended by them."""
    previous = {n: signal.signal(n, lambda number, frame: take(number)) for n in heeded(FORWARDED)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _watch(ranks: LocalRanks, received: Sequence[int]) -> int:
    """Forward what is ``received`` until all ranks have ended; the exit code of all together."""
    failure: int | None = None
    deadline = math.inf
    n_sent = 0
    while None in (codes := ranks.codes()):
        for number in received[n_sent:]:
            ranks.send(number)
            n_sent += 1
        failure = first_failure(codes, received) if failure is None else failure
        impatient = received.count(signal.SIGINT) > 1
        if any(codes) or impatient:
            crashed = failure is not None or impatient
            grace = SECONDS_AFTER_A_CRASH if crashed else SECONDS_AFTER_A_STOP
            deadline = min(deadline, time.monotonic() + grace)
        if time.monotonic() > deadline:
            ranks.kill()
            if failure is None:
                failure = EXIT_CANCELLED if impatient else EXIT_RUN_ME_AGAIN
        time.sleep(POLL_SECONDS)
    failure = first_failure(codes, received) if failure is None else failure
    if failure is not None:
        return failure
    return EXIT_RUN_ME_AGAIN if any(codes) else 0


def first_failure(codes: Sequence[int | None], received: Sequence[int]) -> int | None:
    """The code of a rank that neither finished nor stopped on request; None where there is none.

    A stop signal that ends a rank met one that did not handle it yet: it had nothing to save. A
    second Ctrl-C is another matter.
    """
    stops = {as_shell_code(-number) for number in received if number in STOP_SIGNALS}
    if received.count(signal.SIGINT) > 1:
        stops.discard(EXIT_CANCELLED)
    return next((code for code in codes if code and code not in (EXIT_RUN_ME_AGAIN, *stops)), None)
