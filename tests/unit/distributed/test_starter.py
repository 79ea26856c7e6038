from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from minimind.distributed.starter import GONE, find_starter
from minimind.rundir.env import LOCAL_RANK, RANK_STARTER, TORCHRUN_ID

RANK = """
import signal, sys, threading
from minimind.distributed.starter import stopping_with_starter

def stop(number, frame):
    print("stopped", flush=True)
    sys.exit(75)

signal.signal(signal.SIGTERM, stop)
with stopping_with_starter():
    print("trains with", threading.active_count(), "threads", flush=True)
    sys.stdin.readline()
print("is done with", threading.active_count(), "threads", flush=True)
sys.stdin.readline()
"""

PARENT = """
import os, subprocess, sys
environment = dict(os.environ)
if sys.argv[1] == "procs":
    environment["MINIMIND_RANK_STARTER"] = str(os.getpid())
if sys.argv[1] == "torchrun":
    environment["TORCHELASTIC_RUN_ID"] = "none"
subprocess.run([sys.executable, "-c", sys.argv[2]], env=environment)
"""


class Rank:
    """A rank that ``parent`` has started; both end when the test lets go of their pipes."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        assert parent.stdout
        assert parent.stderr
        self.parent, self.out, self.error = parent, parent.stdout, parent.stderr

    def go_on(self) -> None:
        assert self.parent.stdin
        self.parent.stdin.write("\n")
        self.parent.stdin.flush()


@contextlib.contextmanager
def started_by(how: str) -> Iterator[Rank]:
    environment = {
        k: v for k, v in os.environ.items() if k not in (RANK_STARTER, TORCHRUN_ID, LOCAL_RANK)
    }
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, how, RANK],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        yield Rank(parent)


@pytest.mark.parametrize("how", ["procs", "torchrun"])
def test_a_rank_stops_when_its_starter_is_killed(how: str) -> None:
    with started_by(how) as rank:
        assert rank.out.readline() == "trains with 2 threads\n"
        rank.parent.kill()
        assert rank.out.readline() == "stopped\n"
        assert rank.error.read() == GONE


def test_a_lone_process_outlives_its_shell() -> None:
    with started_by("shell") as rank:
        assert rank.out.readline() == "trains with 1 threads\n", "nothing watches its shell"
        rank.parent.kill()
        rank.parent.wait()
        rank.go_on()
        assert rank.out.readline() == "is done with 1 threads\n"


def test_a_rank_that_is_done_is_not_watched_any_more() -> None:
    with started_by("procs") as rank:
        assert rank.out.readline() == "trains with 2 threads\n"
        rank.go_on()
        assert rank.out.readline() == "is done with 1 threads\n"


def test_who_started_a_rank() -> None:
    assert find_starter({}) is None
    assert find_starter({"RANK": "0", "WORLD_SIZE": "2", "SLURM_STEP_ID": "0"}) is None
    assert find_starter({TORCHRUN_ID: "none"}) == os.getppid()
    assert find_starter({TORCHRUN_ID: "none", RANK_STARTER: "123"}) == 123
    assert find_starter({RANK_STARTER: "nobody"}) is None
