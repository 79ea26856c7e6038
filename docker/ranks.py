"""All ranks of one machine, as torchrun would start them, with the exit codes that they mean.

torchrun itself will not do: it turns a rank's exit code 75 into 1, sends SIGKILL 30 seconds
after SIGTERM, and forwards no other stop signal. Standard library only.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType

EXIT_RUN_ME_AGAIN = 75
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
SECONDS_AFTER_A_CRASH = 10.0
"""How long the other ranks get to fail and say why, once one has crashed."""

POLL_SECONDS = 0.1


def run_ranks(command: Sequence[str], count: int, cores: int) -> int:
    """Run ``count`` ranks of ``command`` to their end; stop signals go on to each of them.

    Args:
        cores: processors to share among the ranks, unless OMP_NUM_THREADS says otherwise.

    Returns:
        0: all are done. 75: stopped on request, at least one of them, and no crash. Else the
        code of the rank that crashed first, 128 + N when signal N ended it.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    for number in FORWARDED:
        signal.signal(number, receive)
    port = free_port()
    processes = []
    for rank in range(count):
        # In a session of its own: Ctrl-C at a terminal must reach a rank once, from here.
        processes.append(
            subprocess.Popen(
                command,
                env=rank_environment(os.environ, rank, count, port, cores),
                start_new_session=True,
            )
        )
    failure: int | None = None
    deadline = float("inf")
    while True:
        while received:
            stop = received.pop(0)
            for process in processes:
                process.send_signal(stop)
        codes = [process.poll() for process in processes]
        if failure is None:
            failure = first_failure(codes)
            if failure is not None:
                deadline = time.monotonic() + SECONDS_AFTER_A_CRASH
        if all(code is not None for code in codes):
            break
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(POLL_SECONDS)
    if failure is not None:
        return failure
    return EXIT_RUN_ME_AGAIN if EXIT_RUN_ME_AGAIN in codes else 0


def first_failure(codes: Sequence[int | None]) -> int | None:
    """The code of a rank that neither finished nor stopped on request, as a shell gives it."""
    for code in codes:
        if code not in (None, 0, EXIT_RUN_ME_AGAIN):
            assert code is not None
            return 128 - code if code < 0 else code
    return None


def rank_environment(
    environment: Mapping[str, str], rank: int, count: int, port: int, cores: int
) -> dict[str, str]:
    """The variables that torchrun would set for this rank, and its share of the processors."""
    return {
        "OMP_NUM_THREADS": str(max(1, cores // count)),
        **environment,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
