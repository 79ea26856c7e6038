"""A rank that lives on beside its successor."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from launcher.rank.fencing import RUN_IS_OVER
from launcher.spec.run_folder import Final, RunFolder
from minimind.errors import EXIT_TERMINATED

RANK = """
import signal, sys
from launcher.rank import fencing
from launcher.spec.run_folder import RunFolder

class Asked(RunFolder):
    def superseded(self, number):
        print("looks", flush=True)
        sys.stdin.readline()
        return super().superseded(number)

fencing.POLL_SECONDS = 0
fencing.stand_back(Asked(sys.argv[1]), local=sys.argv[2] == "local")
while True:
    signal.pause()
"""


@contextlib.contextmanager
def rank_of(run: RunFolder, cluster: str) -> Iterator[subprocess.Popen[str]]:
    """A rank of attempt 1 that does nothing but look whether it may live, once for each line."""
    assert run.new_attempt() == 1
    process = subprocess.Popen(
        [sys.executable, "-c", RANK, str(run.root), cluster],
        env={**os.environ, "LAUNCHER_ATTEMPT": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert looks(process)
        yield process
    finally:
        process.kill()


def looks(rank: subprocess.Popen[str]) -> bool:
    assert rank.stdout is not None
    return rank.stdout.readline() == "looks\n"


def let_look(rank: subprocess.Popen[str]) -> None:
    assert rank.stdin is not None
    rank.stdin.write("\n")
    rank.stdin.flush()


def test_a_rank_leaves_once_a_newer_attempt_has_begun(submitted: RunFolder) -> None:
    with rank_of(submitted, "slurm") as rank:
        submitted.finish(Final("crash", 1, "Slurm ends the ranks of a job that is over"))
        let_look(rank)
        assert looks(rank), "the end of the run is nothing to it"
        assert submitted.new_attempt() == 2
        let_look(rank)
        assert rank.wait(30) == EXIT_TERMINATED
        assert rank.stderr is not None
        assert rank.stderr.read() == "launcher: attempt 2 has begun; this rank is of 1\n"


def test_a_local_rank_is_asked_to_save_once_its_run_is_over(submitted: RunFolder) -> None:
    with rank_of(submitted, "local") as rank:
        submitted.finish(Final("cancelled", 130, "cancelled by the user"))
        let_look(rank)
        assert rank.wait(30) == -15
        assert rank.stderr is not None
        assert rank.stderr.read() == RUN_IS_OVER
