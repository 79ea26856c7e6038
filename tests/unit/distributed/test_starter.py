from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.distributed.starter import GONE, find_starter
from minimind.rundir.env import LOCAL_RANK, RANK_STARTER, TORCHRUN_ID
from tests.e2e.lab import poll

RANK = """
import pathlib, signal, sys, time
from minimind.distributed.starter import stopping_with_starter
folder = pathlib.Path(sys.argv[1])
def stop(number, frame):
    (folder / "stopped").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
with stopping_with_starter():
    (folder / "up").touch()
    time.sleep(float(sys.argv[2]))
(folder / "done").touch()
time.sleep(1.5)
(folder / "left").touch()
"""

PARENT = """
import os, subprocess, sys, time
environment = dict(os.environ)
if sys.argv[1] == "procs":
    environment["MINIMIND_RANK_STARTER"] = str(os.getpid())
if sys.argv[1] == "torchrun":
    environment["TORCHELASTIC_RUN_ID"] = "none"
subprocess.Popen([sys.executable, "-c", *sys.argv[2:]], env=environment)
time.sleep(60)
"""


def start(how: str, folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Start a process that starts a rank; returns once the rank has come up."""
    words = [sys.executable, "-c", PARENT, how, RANK, str(folder), str(seconds)]
    environment = {
        k: v for k, v in os.environ.items() if k not in (RANK_STARTER, TORCHRUN_ID, LOCAL_RANK)
    }
    parent = subprocess.Popen(words, env=environment, stderr=(folder / "said").open("wb"))
    poll(lambda: (folder / "up").exists(), "the rank", 30)
    return parent


@pytest.mark.parametrize("how", ["procs", "torchrun"])
def test_a_rank_stops_when_its_starter_is_killed(how: str, tmp_path: Path) -> None:
    parent = start(how, tmp_path, 60)
    parent.kill()
    parent.wait()
    poll(lambda: (tmp_path / "stopped").exists(), "the stop", 30)
    assert (tmp_path / "said").read_text() == GONE


def test_a_lone_process_outlives_its_shell(tmp_path: Path) -> None:
    parent = start("shell", tmp_path, 3)
    parent.kill()
    parent.wait()
    poll(lambda: (tmp_path / "done").exists(), "the end", 30)
    assert not (tmp_path / "stopped").exists()


def test_a_rank_that_is_done_is_not_stopped_any_more(tmp_path: Path) -> None:
    parent = start("procs", tmp_path, 0.1)
    poll(lambda: (tmp_path / "done").exists(), "the end", 30)
    parent.kill()
    parent.wait()
    poll(lambda: (tmp_path / "left").exists(), "the exit", 30)
    assert not (tmp_path / "stopped").exists()


def test_who_started_a_rank() -> None:
    assert find_starter({}) is None
    assert find_starter({"RANK": "0", "WORLD_SIZE": "2", "SLURM_STEP_ID": "0"}) is None
    assert find_starter({TORCHRUN_ID: "none"}) == os.getppid()
    assert find_starter({TORCHRUN_ID: "none", RANK_STARTER: "123"}) == 123
    assert find_starter({RANK_STARTER: "nobody"}) is None
