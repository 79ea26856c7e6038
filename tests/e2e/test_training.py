"""The real training on real Slurm: whatever interrupts it, the weights are the same bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.lab import Lab, poll, words
from tests.runs import STATE_KEYS, Run, differences

RANKS = ("--nodes", "2", "--gpus", "1")
STEPS = 300

E2E = Path(__file__).parent


def held(after: int, until: Path) -> tuple[str, ...]:
    """Options of ``submit``: the training crawls from ``after`` steps into each attempt on."""
    variables = {"PYTHONPATH": E2E, "HOLD_AFTER": after, "HELD_UNTIL": until}
    words = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return ("--module", "held_training", *words)


pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def flags(tiny_flags: dict[str, Any]) -> dict[str, Any]:
    """Flags of a run that saves only when it is interrupted."""
    changes = {"save_interval": 100000, "record_rows": False, "accumulation_steps": 1}
    return {**tiny_flags, **changes, "epochs": 10000, "max_steps": STEPS}


@pytest.fixture(scope="module")
def plain(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same training without launcher, Slurm or interruption: the measure of all below."""
    return Run(tmp_path_factory.mktemp("plain"), flags, {"OMP_NUM_THREADS": "1"}).complete(2)


def assert_same_training(lab: Lab, name: str, plain: Run) -> None:
    folder = lab.runs / name
    (checkpoint,) = (p for p in (folder / "checkpoints").glob("*.pt") if p.name.count(".") == 1)
    mine, theirs = torch.load(checkpoint, weights_only=True), plain.state()
    for key in STATE_KEYS:
        assert differences(mine[key], theirs[key], key) == []
    (weights,) = (folder / "out").glob("*.pth")
    (expected,) = plain.save_dir.glob("*.pth")
    first, second = (torch.load(path, weights_only=True) for path in (weights, expected))
    assert differences(first, second) == []


def test_sixteen_ranks_equal_a_plain_run(slurm: Lab, flags: dict[str, Any], tmp_path: Path) -> None:
    # No --device cpu: on nodes with pretend GPUs the training finds no CUDA and says so.
    few = {k: v for k, v in flags.items() if k != "device"} | {"max_steps": 4, "batch_size": 1}
    done = slurm.launcher(
        *("submit", "--name", "sixteen", "--nodes", "2", "--gpus", "8", "--wait", "--"),
        *words(few),
    )
    assert done.returncode == 0, done.stderr
    logs = slurm.runs / "sixteen" / "attempts" / "1"
    assert {p.name for p in logs.glob("rank-*.log")} == {f"rank-{i}.log" for i in range(16)}
    assert all(p.stat().st_size for p in logs.glob("rank-*.log"))
    assert slurm.events("sixteen", "started")[0]["world_size"] == 16
    plain = Run(tmp_path / "plain", few, {"OMP_NUM_THREADS": "1"}).complete(16)
    assert_same_training(slurm, "sixteen", plain)


def test_preempted_in_every_way_is_bit_identical(
    slurm: Lab, flags: dict[str, Any], plain: Run, tmp_path: Path
) -> None:
    """The ranks' PATH is empty: they have no scontrol, as in a container."""
    ways = [
        ("--grace-time", "20"),
        ("--grace-time", "0", "--kill-wait", "30"),
        ("--grace-time", "20", "--send-user-signal"),
        ("--grace-time", "20", "--preempt-mode", "CANCEL"),
        ("--grace-time", "0", "--preempt-mode", "CANCEL"),
    ]
    slurm.devcluster("up", *ways[0])
    go = tmp_path / "go"
    options = (*RANKS, *held(10, go), "--env", f"PATH={tmp_path}")
    slurm.submit("preempted", *options, train=words(flags))
    for attempt, way in enumerate(ways, start=1):
        slurm.wait_for_step("preempted", max(slurm.steps("preempted"), default=0) + 5, attempt)
        # While it trains: srun fails when the nodes read a new configuration as it starts ranks.
        slurm.devcluster("up", *way)
        slurm.preempt("preempted", attempt)
    go.touch()
    state = slurm.wait("preempted", seconds=900)
    causes = slurm.causes("preempted")
    assert causes == ["preempted"] * len(ways) + ["done"], slurm.why("preempted")
    assert state["restarts"] == {"preempted": len(ways)}
    assert slurm.steps("preempted") == list(range(1, STEPS + 1)), "a step was lost or done twice"
    signals = [event["signal"] for event in slurm.events("preempted", "preempted")]
    assert signals == ["SIGTERM", "SIGTERM", "SIGUSR2", "SIGTERM", "SIGTERM"]
    log = (slurm.runs / "preempted" / "batch.log").read_text()
    assert all(f"launcher: attempt {n} on n" in log for n in range(1, 7)), "logs are appended"
    assert_same_training(slurm, "preempted", plain)


def test_time_limit_continues_bit_identical(
    slurm: Lab, flags: dict[str, Any], plain: Run, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = slurm.submit("limited", *RANKS, *held(20, go), "--time", "5", train=words(flags))
    slurm.wait_for_step("limited", 20)
    # Slurm enforces limits every half a minute; moving the end saves the test four minutes.
    moved = slurm.command("scontrol", "update", f"jobid={job}", "endtime=now+1")
    assert moved.returncode == 0, moved.stderr
    poll(lambda: slurm.causes("limited"), "the limit")
    go.touch()
    # The moved end is the limit of later attempts, too.
    update = ("scontrol", "update", f"jobid={job}", "timelimit=60")
    poll(lambda: slurm.command(*update).returncode == 0, "a longer limit")
    slurm.wait("limited", seconds=900)
    causes = slurm.causes("limited")
    assert len(causes) > 1
    assert causes == ["time_limit"] * (len(causes) - 1) + ["done"]
    assert "DUE TO TIME LIMIT" in (slurm.runs / "limited" / "batch.log").read_text()
    assert slurm.steps("limited") == list(range(1, STEPS + 1))
    assert_same_training(slurm, "limited", plain)


def test_lost_node_costs_at_most_one_save_interval(
    slurm: Lab, flags: dict[str, Any], plain: Run, tmp_path: Path
) -> None:
    every = 10
    go = tmp_path / "go"
    options = (*RANKS, *held(3 * every + 3, go))
    slurm.submit("lost", *options, train=words({**flags, "save_interval": every}))
    slurm.wait_for_step("lost", 3 * every)
    pid = int((slurm.folder / "slurm" / "pids" / "slurmd-n2.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    poll(lambda: slurm.causes("lost"), "the loss to be seen")
    go.touch()
    slurm.devcluster("up")
    slurm.wait("lost", seconds=900)
    assert slurm.causes("lost") == ["node_failure", "done"]
    resumed = slurm.events("lost", "resumed")[0]
    saves = slurm.events("lost", "checkpointed")
    assert resumed["step"] == max(e["step"] for e in saves if e["time"] < resumed["time"])
    assert slurm.state("lost")["ledger"]["lost_steps"] <= every
    assert_same_training(slurm, "lost", plain)
