"""Gives a job back to Slurm whose batch host is lost, from another of its nodes.

Slurm itself runs a job again whose node fails, but not one that outlives the loss of a node: where
that was the batch host, the job keeps its other nodes, idle, until its time is up; and where only
the node's state was set, it ends as failed. ``python -m launcher.supervise.guard RUN_DIR JOB HOST``
runs beside the ranks and looks. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.slurm.parse import JobInfo, leading_number
from launcher.spec.run_folder import RunFolder
from launcher.supervise.classify import asked_to_cancel
from launcher.supervise.held_nodes import HeldNodes, once_a_node

LOOK_SECONDS = 15.0
"""Between two looks at the job."""
AGAIN_SECONDS = 60.0
"""Between two starts of a guard: its own node may have been the one that is lost."""
END_SECONDS = 5.0
"""How long a guard that is told to end gets for it."""
TRIES = 10
"""How often Slurm is asked to run the job again and to let it start, until the next look."""


class Guard:
    """The guard of a job, as the supervisor on the batch host starts and ends it."""

    def __init__(self, run: RunFolder, address: str, held: HeldNodes | None) -> None:
        """``held`` None: a job that needs no guard, since Slurm itself runs it again."""
        self._run, self._address, self._held = run, address, held
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def begin(self) -> None:
        """Starts one on another node than this one, where the job has another."""
        if self._held is None:
            return
        self._began = time.monotonic()
        here = self._held.batch_host
        watch = (sys.executable, "-m", "launcher.supervise.guard")
        # No GPU, no memory and no processor of the ranks'.
        beside = ("--overlap", "--mem=0", "--quiet", "--output=none", f"--exclude={here}")
        self._process = subprocess.Popen(
            [*once_a_node("1"), *beside, *watch, str(self._run.root), self._address, here],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def keep(self) -> None:
        """Starts another where the one before has ended, once a minute."""
        ended = self._process is not None and self._process.poll() is not None
        if ended and time.monotonic() - self._began > AGAIN_SECONDS:
            self.begin()

    def end(self) -> None:
        """Ends it: the supervisor itself decides now."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()


def has_lost(job: JobInfo | None, host: str, restarts: int) -> bool:
    """Whether ``job``, still in its start after ``restarts`` others, is without its batch host.

    A job that a person, or its time limit, has ended is not to run again.
    """
    if job is None or leading_number(job.get("Restarts", ""), -1) != restarts:
        return False
    state = job.get("JobState", "")
    if state not in ("RUNNING", "COMPLETING", "FAILED", "NODE_FAIL"):
        return False
    left = slurm.expand_nodes(job.get("NodeList", ""))
    return bool(left) and host not in left


def give_back(address: str, restarts: int) -> bool:
    """Has Slurm run the job again, and start it although its batch script was killed.

    A later start stays as it is, and so does a hold that a person has put on the job before.
    False: Slurm has not said that the job waits.
    """
    wished: bool | None = None
    for _ in range(TRIES):
        job = slurm.show_job(address) or {}
        state, reason = job.get("JobState", ""), job.get("Reason", "")
        if states.is_held(state, reason) and not wished:
            slurm.run("scontrol", "release", address)
        elif state in states.QUEUED:
            return True
        elif leading_number(job.get("Restarts", ""), -1) == restarts:
            if wished is None:
                wished = states.held_later(state, reason)
            slurm.requeue(address)
        time.sleep(1)
    return False


def watch(run: RunFolder, address: str, host: str, told: threading.Event) -> None:
    """Looks until the batch host is lost, or ``told`` that the job or this guard ends."""
    restarts = leading_number(os.environ.get("SLURM_RESTART_COUNT", ""), 0)
    over = False
    while not over:
        # Where the batch host is lost the job may end at once, too: look once more.
        over = told.wait(LOOK_SECONDS)
        if not has_lost(slurm.show_job(address), host, restarts):
            continue
        ended = run.final() is not None or asked_to_cancel(run.events())
        if ended or give_back(address, restarts):
            return


def main(argv: list[str]) -> None:
    """``RUN_DIR JOB HOST``."""
    told = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()

    signal.signal(signal.SIGTERM, tell)
    run_dir, address, host = argv
    watch(RunFolder(run_dir), address, host, told)


if __name__ == "__main__":
    main(sys.argv[1:])
