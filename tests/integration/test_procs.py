"""Ranks on one machine, by ``--procs`` and by torchrun: codes, signals, and who outlives whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import minimind
from minimind.distributed.starter import GONE
from minimind.system.process import free_port, is_alive
from tests.runs import WAIT_SECONDS, Run, assert_same_run, wait_until

MakeRun = Callable[..., Run]
Start = Callable[..., subprocess.Popen[bytes]]

FILE = str(Path(minimind.__file__).with_name("train_pretrain.py"))
LONG: dict[str, Any] = {"epochs": 4000, "save_interval": 10_000, "log_interval": 1000}
"""Not over before a test interferes, and without a checkpoint until then."""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a run as a shell would, in its folder; whatever still lives afterwards is ended."""
    runs: list[Run] = []

    def start(run: Run, program: Sequence[str], *last: str, **changes: Any) -> Any:
        runs.append(run)
        run.folder.mkdir(exist_ok=True)
        with (run.folder / "output.0").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *program, *run.argv(**changes), *last],
                cwd=run.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    yield start
    for pid in {pid for run in runs for pid in rank_pids(run)}:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def torchrun(n_ranks: int) -> list[str]:
    place = ["--nproc_per_node", str(n_ranks), "--master_port", str(free_port())]
    return ["-m", "torch.distributed.run", *place, "-m", "minimind.train_pretrain"]


def rank_pids(run: Run) -> list[int]:
    """The processes that trained, by what they record of each micro-step; the newest last."""
    return [record["pid"] for rank in range(2) for record in run.records(rank)[-1:]]


def wait_for_training(run: Run, before: Sequence[int] = ()) -> list[int]:
    """Wait until both ranks have trained; their process numbers."""
    wait_until(lambda: len(set(rank_pids(run)) - set(before)) == 2, f"two ranks: {run.output}")
    return rank_pids(run)


def wait_for_the_end(run: Run, pids: Sequence[int]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), f"the ranks' end: {run.output}")


def test_ranks_train_as_they_do_when_others_start_them(make_run: MakeRun, start: Start) -> None:
    whole = make_run("whole").complete(2)
    run = make_run("run")
    process = start(run, ["-m", "minimind", "pretrain", "--procs", "2"])
    assert process.wait(WAIT_SECONDS) == 0, run.output
    assert "2 ranks on this machine" in run.output
    assert_same_run(whole, run)
    assert "procs" not in (run.save_dir / "config.toml").read_text()


def test_a_stop_of_the_starter_is_one_of_every_rank(make_run: MakeRun, start: Start) -> None:
    run = make_run("run", **LONG)
    process = start(run, [FILE], "--procs=2")
    wait_for_training(run)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 75, run.output
    stopped = run.state()
    assert stopped["world_size"] == len(stopped["ranks"]) == 2
    done = stopped["global_step"]
    run.complete(2, max_steps=done + 2)
    assert run.state()["global_step"] == done + 2


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({"batch_size": 0}, ["--procs", "2"]),
        ({}, ["--procs", "0"]),
        ({"data_path": "missing.jsonl"}, ["--procs", "2"]),
    ],
)
def test_what_is_wrong_is_said_once(
    changes: dict[str, Any], last: list[str], make_run: MakeRun, start: Start
) -> None:
    run = make_run("run")
    assert start(run, ["-m", "minimind.train_pretrain"], *last, **changes).wait(WAIT_SECONDS) == 2
    said = run.output.replace("2 ranks on this machine\n", "").splitlines()
    assert len([line for line in said if "error" in line]) == 1, run.output
    assert "Traceback" not in run.output


def test_a_rank_that_is_killed_takes_the_others_along(make_run: MakeRun, start: Start) -> None:
    run = make_run("run", **LONG)
    process = start(run, ["-m", "minimind.train_pretrain", "--procs", "2"])
    pids = wait_for_training(run)
    os.kill(pids[1], signal.SIGKILL)
    assert process.wait(WAIT_SECONDS) == 128 + signal.SIGKILL, run.output
    assert not any(map(is_alive, pids))


def test_ranks_whose_starter_is_killed_save_and_stop(make_run: MakeRun, start: Start) -> None:
    run = make_run("run", **LONG)
    process = start(run, ["-m", "minimind.train_pretrain", "--procs", "2"])
    pids = wait_for_training(run)
    process.kill()
    process.wait(WAIT_SECONDS)
    wait_for_the_end(run, pids)
    assert run.state()["world_size"] == 2
    assert GONE in run.output


def test_ranks_whose_torchrun_is_gone_save_and_stop(make_run: MakeRun, start: Start) -> None:
    """It does not handle SIGUSR1, and hands neither signal on."""
    run = make_run("run", **LONG)
    pids: list[int] = []
    steps = [0]
    for number in (signal.SIGUSR1, signal.SIGKILL):
        process = start(run, torchrun(2))
        pids = wait_for_training(run, before=pids)
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == -number
        wait_for_the_end(run, pids)
        steps.append(run.state()["global_step"])
    assert steps[0] < steps[1] < steps[2], "each went on where the one before had stopped"
    assert run.output.count(GONE) == 2, "once a machine"
