"""A rank that lives on beside its successor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from launcher.rank.fencing import RUN_IS_OVER
from launcher.spec.run_folder import Final, RunFolder
from minimind.errors import EXIT_TERMINATED

RANK = """
import sys, time
from launcher.rank import fencing
from launcher.spec.run_folder import RunFolder
fencing.POLL_SECONDS = 0.05
fencing.stand_back(RunFolder(sys.argv[1]), local=sys.argv[2] == "local")
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(submitted: RunFolder) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a rank of attempt 1 that does nothing but look whether it may live."""
    submitted.new_attempt()

    def rank(cluster: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RANK, str(submitted.root), cluster],
            env={**os.environ, "LAUNCHER_ATTEMPT": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    return rank


def test_a_rank_leaves_once_a_newer_attempt_has_begun(
    submitted: RunFolder, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    rank = start("slurm")
    submitted.finish(Final("crash", 1, "Slurm ends the ranks of a job that is over"))
    with pytest.raises(subprocess.TimeoutExpired):
        rank.wait(0.3)
    assert submitted.new_attempt() == 2
    assert rank.wait(30) == EXIT_TERMINATED
    assert rank.stderr is not None
    assert rank.stderr.read() == "launcher: attempt 2 has begun; this rank is of 1\n"


def test_a_local_rank_is_asked_to_save_once_its_run_is_over(
    submitted: RunFolder, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    rank = start("local")
    submitted.finish(Final("cancelled", 130, "cancelled by the user"))
    assert rank.wait(30) == -15
    assert rank.stderr is not None
    assert rank.stderr.read() == RUN_IS_OVER
