from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minimind.distributed import local_ranks
from minimind.distributed.local_ranks import LocalRanks, first_failure
from tests.e2e.lab import poll

RANK = """
import json, os, pathlib, signal, sys, time
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
rank = os.environ["RANK"]
seen = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: seen.append(signal.Signals(number).name))
(folder / f"env.{rank}").write_text(json.dumps(dict(os.environ)))
(folder / f"up.{rank}").touch()
if behaviour == "codes":
    sys.exit(int(sys.argv[3 + int(rank)]))
if behaviour == "crash" and rank == "1":
    os.kill(os.getpid(), signal.SIGSEGV)
if behaviour == "deaf" and rank == "1":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if behaviour == "early":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
while not seen:
    time.sleep(0.02)
time.sleep(0.2)
(folder / f"seen.{rank}").write_text(" ".join(seen))
sys.exit(75)
"""

STARTER = """
import sys
from minimind.distributed import local_ranks
local_ranks.SECONDS_AFTER_A_CRASH = local_ranks.SECONDS_AFTER_A_STOP = 0.5
sys.exit(local_ranks.run_ranks([sys.executable, "-c", *sys.argv[2:]], int(sys.argv[1])))
"""


def start(folder: Path, count: int, *behaviour: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", STARTER, str(count), RANK, str(folder), *behaviour]
    return subprocess.Popen(words)


def are_up(folder: Path, count: int) -> None:
    poll(lambda: len(list(folder.glob("up.*"))) == count, f"{count} ranks", 30)


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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_a_stop_signal_reaches_every_rank_once_and_75_comes_back(tmp_path: Path, name: str) -> None:
    process = start(tmp_path, 2, "wait")
    are_up(tmp_path, 2)
    process.send_signal(signal.Signals[name])
    assert process.wait(30) == 75
    assert [(tmp_path / f"seen.{rank}").read_text() for rank in range(2)] == [name, name]


def test_ranks_are_out_of_reach_of_the_terminal(tmp_path: Path) -> None:
    process = start(tmp_path, 2, "wait")
    are_up(tmp_path, 2)
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


def test_a_stop_before_a_rank_listens_has_nothing_to_save(tmp_path: Path) -> None:
    process = start(tmp_path, 2, "early")
    are_up(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75


def test_a_rank_that_waits_for_one_that_has_stopped_is_ended(tmp_path: Path) -> None:
    process = start(tmp_path, 2, "deaf")
    are_up(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert [path.name for path in tmp_path.glob("seen.*")] == ["seen.0"]


@pytest.mark.parametrize(
    "codes, received, expected",
    [
        ((0, 75, None), (), None),
        ((0, 143), (signal.SIGTERM,), None),
        ((0, 143), (), 143),
        ((137, 143), (signal.SIGTERM,), 137),
        ((130, 75), (signal.SIGINT,), None),
        ((75, 130), (signal.SIGINT, signal.SIGINT), 130),
        ((131, 0), (signal.SIGQUIT,), 131),
    ],
)
def test_what_counts_as_a_failure(
    codes: tuple[int | None, ...], received: tuple[int, ...], expected: int | None
) -> None:
    assert first_failure(codes, received) == expected


def test_a_rank_that_is_stopped_goes_on_to_save(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    script = "trap 'exit 75' TERM; echo up; while :; do sleep 0.05; done"
    ranks = LocalRanks(["sh", "-c", script], [dict(os.environ)], logs=[log])
    try:
        poll(lambda: log.read_text(), "the trap", 30)
        ranks.send(signal.SIGSTOP)
        ranks.send(signal.SIGTERM)
        poll(lambda: ranks.codes() == [75], "the end", 10)
    finally:
        ranks.kill()


def test_logs_folder_and_environment_are_the_callers(tmp_path: Path) -> None:
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    logs[0].write_text("before\n")
    environments = [{**os.environ, "NAME": name} for name in ("a", "b")]
    ranks = LocalRanks(["sh", "-c", "pwd; echo $NAME >&2"], environments, logs=logs, cwd=tmp_path)
    poll(lambda: ranks.codes() == [0, 0], "the end", 30)
    assert [log.read_text() for log in logs] == [f"before\n{tmp_path}\na\n", f"{tmp_path}\nb\n"]


def test_a_rank_that_cannot_be_started_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*words, **options))
        return started[-1]

    monkeypatch.setattr(local_ranks.subprocess, "Popen", start)
    with pytest.raises(FileNotFoundError):
        LocalRanks(
            ["sleep", "600"],
            [dict(os.environ)] * 2,
            logs=[tmp_path / "0.log", tmp_path / "missing" / "1.log"],
        )
    assert [process.wait(30) for process in started] == [-signal.SIGKILL]
