"""A rank whose starter is gone saves and stops.

torchrun ends at once on SIGUSR1 or SIGKILL, and so does ``minimind pretrain --procs`` on SIGKILL.
Their ranks would train on with nobody to stop them or to see how they end. A lone process, under
nohup or in tmux, may outlive its shell, and Slurm ends the ranks of its jobs itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping

from minimind.rundir import env
from minimind.system.terminal import show

POLL_SECONDS = 1.0
GONE = "The process that started this rank is gone: it saves and stops\n"


def find_starter(environ: Mapping[str, str]) -> int | None:
    """The process that has to live as long as this rank; None where there is no such thing."""
    if environ.get(env.RANK_STARTER, "").isdecimal():
        return int(environ[env.RANK_STARTER])
    return os.getppid() if env.TORCHRUN_ID in environ else None


@contextlib.contextmanager
def stopping_with_starter() -> Iterator[None]:
    """Send this process SIGTERM once its starter is gone; its handler must be installed.

    Outside of the main thread, where Python allows no handlers, nothing is watched.
    """
    starter = find_starter(os.environ)
    if starter is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def watch() -> None:
        # Whoever becomes a child of another process has lost its parent.
        while os.getppid() == starter:
            if over.wait(POLL_SECONDS):
                return
        if os.environ.get(env.LOCAL_RANK, "0") == "0":
            show(sys.stderr, GONE)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch, name="starter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
