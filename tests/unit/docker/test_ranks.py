from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks

RANK = """
import json, os, pathlib, signal, sys, time
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
rank = os.environ["RANK"]
seen = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
    signal.signal(number, lambda number, frame: seen.append(signal.Signals(number).name))
(folder / f"env.{rank}").write_text(json.dumps(dict(os.environ)))
(folder / f"up.{rank}").touch()
if behaviour == "codes":
    sys.exit(int(sys.argv[3 + int(rank)]))
if behaviour == "crash" and rank == "1":
    os.kill(os.getpid(), signal.SIGSEGV)
while not seen:
    time.sleep(0.02)
time.sleep(0.2)
(folder / f"seen.{rank}").write_text(" ".join(seen))
sys.exit(75)
"""

STARTER = """
import sys
sys.path.insert(0, sys.argv[1])
import ranks
ranks.SECONDS_AFTER_A_CRASH = 0.5
sys.exit(ranks.run_ranks([sys.executable, "-c", *sys.argv[3:]], int(sys.argv[2]), 6))
"""


def start(folder: Path, count: int, *behaviour: str) -> subprocess.Popen[bytes]:
    source = str(Path(ranks.__file__).parent)
    words = [sys.executable, "-c", STARTER, source, str(count), RANK, str(folder), *behaviour]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.Popen(words, env=environment)


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, f"{count} × {pattern}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "codes, expected",
    [
        ("0 0 0", 0),
        ("75 75 75", 75),
        ("0 75 0", 75),
        ("2 2 2", 2),
        ("75 1 75", 1),
    ],
)
def test_exit_code(tmp_path: Path, codes: str, expected: int) -> None:
    assert start(tmp_path, 3, "codes", *codes.split()).wait(30) == expected


def test_every_rank_knows_its_place(tmp_path: Path) -> None:
    assert start(tmp_path, 3, "codes", "0", "0", "0").wait(30) == 0
    seen = [json.loads((tmp_path / f"env.{rank}").read_text()) for rank in range(3)]
    assert [s["RANK"] for s in seen] == [s["LOCAL_RANK"] for s in seen] == ["0", "1", "2"]
    assert {s["WORLD_SIZE"] for s in seen} == {s["LOCAL_WORLD_SIZE"] for s in seen} == {"3"}
    assert len({(s["MASTER_ADDR"], s["MASTER_PORT"]) for s in seen}) == 1
    assert {s["OMP_NUM_THREADS"] for s in seen} == {"2"}, "6 cores among 3 ranks"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"])
def test_a_stop_signal_reaches_every_rank_once_and_75_comes_back(tmp_path: Path, name: str) -> None:
    process = start(tmp_path, 2, "wait")
    wait_for(tmp_path, "up.*", 2)
    process.send_signal(signal.Signals[name])
    assert process.wait(30) == 75
    assert [(tmp_path / f"seen.{rank}").read_text() for rank in range(2)] == [name, name]


def test_ranks_are_out_of_reach_of_the_terminal(tmp_path: Path) -> None:
    process = start(tmp_path, 2, "wait")
    wait_for(tmp_path, "up.*", 2)
    listing = subprocess.run(
        ["ps", "-o", "sid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    sessions = [int(word) for word in listing.stdout.split()]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert len(set(sessions)) == 2
    assert os.getsid(0) not in sessions


def test_a_crashed_rank_takes_the_hanging_ones_along(tmp_path: Path) -> None:
    process = start(tmp_path, 3, "crash")
    assert process.wait(30) == 128 + signal.SIGSEGV
    assert not list(tmp_path.glob("seen.*"))
