"""Gives a job back to Slurm whose batch host is lost, from others of its nodes.

Slurm itself runs a job again whose node fails, but not one that outlives the loss of a node: where
that was the batch host, the job keeps its other nodes, idle, until its time is up; and where only
the node's state was set, it ends as failed. ``python -m launcher.supervise.guard RUN_DIR JOB HOST
TURN`` runs on a few of the other nodes, from the first attempt in a job to the job's end, and
looks. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.slurm.parse import JobInfo, leading_number
from launcher.spec.run_folder import RunFolder
from launcher.supervise.classify import asked_to_cancel
from launcher.supervise.held_nodes import HeldNodes, once_a_node

GUARDS = 4
"""On so many nodes at most: with the batch host's all of them would have to be lost at once."""
LOOK_SECONDS = 15.0
"""Between two looks at the job."""
TURN_SECONDS = 5.0
"""How long each guard leaves the job to the one before it, which may be lost as well."""
AGAIN_SECONDS = 60.0
"""Between two starts of guards: the node of one may have been lost."""
END_SECONDS = 5.0
"""How long guards that are told to end get for it."""
TRIES = 10
"""How often Slurm is asked to run the job again and to let it start, until the next look."""


class Guards:
    """The guards of a job, as the supervisor on the batch host starts and ends them."""

    def __init__(self, run: RunFolder, address: str, held: HeldNodes | None) -> None:
        """``held`` None: a job that needs no guard, since Slurm itself runs it again."""
        self._run, self._address, self._held = run, address, held
        self._steps: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._wanted = 0
        self._began = 0.0

    def begin(self) -> None:
        """Starts those that are missing, on other nodes than this one."""
        if self._held is None:
            return
        self._began = time.monotonic()
        nodes = spread(self._held.others())
        self._wanted = len(nodes)
        living = self._living()
        free = [node for node in nodes if node not in living.values()]
        turns = (turn for turn in range(GUARDS) if turn not in living)
        for turn, node in zip(turns, free, strict=False):
            self._steps[turn] = (node, self._start(turn, node, self._held.batch_host))

    def keep(self) -> None:
        """Starts others where some have ended, once a minute."""
        due = time.monotonic() - self._began > AGAIN_SECONDS
        if due and len(self._living()) < self._wanted:
            self.begin()

    def end(self) -> None:
        """Ends them: so does the job."""
        for _, step in self._steps.values():
            step.terminate()
        deadline = time.monotonic() + END_SECONDS
        for _, step in self._steps.values():
            try:
                step.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                step.kill()

    def _living(self) -> dict[int, str]:
        """Turn → node of the guards that have not ended."""
        return {turn: node for turn, (node, step) in self._steps.items() if step.poll() is None}

    def _start(self, turn: int, node: str, host: str) -> subprocess.Popen[bytes]:
        watch = (sys.executable, "-m", "launcher.supervise.guard")
        what = (str(self._run.root), self._address, host, str(turn))
        # No GPU, no memory and no processor of the ranks'.
        beside = ("--overlap", "--mem=0", "--quiet", "--output=none")
        place = (f"--nodelist={node}", f"--job-name={slurm.GUARD_STEP}")
        return subprocess.Popen(
            [*once_a_node("1"), *beside, *place, *watch, *what],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def spread(nodes: Sequence[str]) -> list[str]:
    """:data:`GUARDS` of the nodes at most, far from each other: neighbours may share a switch."""
    return list(nodes[:: max(1, -(-len(nodes) // GUARDS))])


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


def watch(
    run: RunFolder, address: str, host: str, turn: int, told_within: Callable[[float], bool]
) -> None:
    """Looks until the batch host is lost, or the job or this guard ends.

    Args:
        turn: how many guards act before this one.
        told_within: waits so many seconds; whether this guard is told to end.
    """
    restarts = leading_number(os.environ.get("SLURM_RESTART_COUNT", ""), 0)

    def lost() -> bool:
        return has_lost(slurm.show_job(address), host, restarts)

    over = False
    while not over:
        # Where the batch host is lost the job may end at once, too: look once more.
        over = told_within(LOOK_SECONDS)
        if not lost():
            continue
        time.sleep(turn * TURN_SECONDS)
        if run.final() is not None or asked_to_cancel(run.events()):
            return
        if (not turn or lost()) and give_back(address, restarts):
            return


def main(argv: list[str]) -> None:
    """``RUN_DIR JOB HOST TURN``."""
    ends = [signal.SIGTERM]
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    run_dir, address, host, turn = argv
    watch(
        RunFolder(run_dir),
        address,
        host,
        int(turn),
        lambda seconds: signal.sigtimedwait(ends, seconds) is not None,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
