"""Attempts that end in every way there is, on real Slurm with real processes.

The training is the test double: what is tested is the launcher. ``test_training.py`` has the
real one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import replace

import pytest

from benchmarks.restart import rank_process
from launcher.supervise.exclusion import failed_nodes
from tests.e2e.lab import FAKE, SITE, Lab, poll

SMALL = ("--nodes", "2", "--gpus", "2", *FAKE)


def expected_weights(steps: int) -> str:
    weights = ""
    for step in range(1, steps + 1):
        weights = hashlib.sha256(f"{weights}{step}".encode()).hexdigest()
    return weights


def assert_whole(lab: Lab, name: str, steps: int) -> None:
    """The run is done, trained every step once in order, and its weights say so."""
    assert lab.wait(name)["state"] == "DONE"
    stored = json.loads((lab.runs / name / "out" / "weights.json").read_text())
    assert stored == expected_weights(steps)


def test_node_set_down_is_a_node_failure(slurm: Lab) -> None:
    train = ("--max_steps", "150", "--step_seconds", "0.1", "--save_interval", "10")
    slurm.submit("downed", *SMALL, train=train)
    slurm.wait_for_step("downed", 30)
    node = ("scontrol", "update", "nodename=n2")
    slurm.command(*node, "state=down", "reason=test")
    poll(lambda: slurm.causes("downed"), "the attempt to end")
    slurm.command(*node, "state=resume")
    assert_whole(slurm, "downed", 150)
    assert slurm.causes("downed") == ["node_failure", "done"]
    assert "lost a node" in slurm.why("downed")


def test_node_that_was_lost_is_left_out_of_the_next_attempt(slurm: Lab) -> None:
    """Though it is back before the job starts again: Slurm would have taken it."""
    replace(slurm, cluster_options=(*slurm.cluster_options, "--nodes", "3")).devcluster("up")
    job = slurm.submit("moved", *SMALL, train=("--max_steps", "16", "--wait_at", "12"))
    slurm.wait_for_step("moved", 12)
    node = ("scontrol", "update", "nodename=n2")
    slurm.command(*node, "state=down", "reason=test")
    poll(lambda: slurm.events("moved", "node_excluded"), "the node to be left out")
    slurm.command(*node, "state=resume")
    assert_whole(slurm, "moved", 16)
    nodes = [event["nodes"] for event in slurm.events("moved", "attempt_started")]
    assert nodes == [["n1", "n2"], ["n1", "n3"]]
    assert " ExcNodeList=n2 " in slurm.command("scontrol", "-o", "show", "job", job).stdout
    assert "n2 is left out until " in slurm.why("moved")
    assert slurm.state("moved")["excluded"] == ["n2"]


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_lost_node_whose_ranks_live_on(slurm: Lab, victim: str) -> None:
    """n1 is the batch node: there the supervisor itself is lost, and lives on."""
    name = f"lost-{victim}"
    train = ("--max_steps", "250", "--step_seconds", "0.2", "--save_interval", "10")
    slurm.submit(name, *SMALL, train=train)
    slurm.wait_for_step(name, 15)
    pid = int((slurm.folder / "slurm" / "pids" / f"slurmd-{victim}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    poll(lambda: slurm.events(name, "node_failed") or slurm.causes(name), "the loss to be seen")
    slurm.devcluster("up")
    assert_whole(slurm, name, 250)
    assert slurm.causes(name) == ["node_failure", "done"]
    resumed = slurm.events(name, "resumed")
    before = slurm.steps(name)
    lost = before[before.index(resumed[0]["step"]) + 1 :].count(resumed[0]["step"] + 1) - 1
    assert lost in (0, 1), "steps after the last save may be trained twice, no more than that"


def test_ranks_that_slurm_stops_go_on_and_save_when_they_are_cancelled(slurm: Lab) -> None:
    train = ("--max_steps", "100000", "--save_interval", "100000")
    job = slurm.submit("asleep", *SMALL, "--hang-timeout", "10", train=train)
    slurm.wait_for_step("asleep", 3)
    slurm.command("scancel", "--signal=STOP", job)
    poll(lambda: slurm.events("asleep", "suspended"), "the watchdog to see it")
    assert slurm.state("asleep")["suspended"] == "Slurm says that its job is STOPPED"
    slurm.command("scancel", "--signal=CONT", job)
    poll(lambda: slurm.events("asleep", "continued"), "the watchdog to see them go on")
    slurm.command("scancel", "--signal=STOP", job)
    slurm.ok("cancel", "asleep")
    assert slurm.wait("asleep", "CANCELLED")["attempt"] == 1
    assert slurm.causes("asleep") == ["cancelled"]
    assert slurm.events("asleep", "preempted")[0]["step"] > 3


def test_rank_that_is_killed_is_restarted_in_the_same_job(slurm: Lab) -> None:
    """Long before Slurm would run a requeued job; what it trained is what nobody interrupted."""
    train = ("--max_steps", "30", "--wait_at", "12")
    job = slurm.submit("killed", *SMALL, train=train)
    slurm.wait_for_step("killed", 12)
    killed_at = time.time()
    os.kill(rank_process(slurm.runs / "killed", 1), signal.SIGKILL)
    (slurm.runs / "killed" / "checkpoints" / "dead-1").touch()
    assert_whole(slurm, "killed", 30)
    assert slurm.causes("killed") == ["crash", "done"]
    first, second = slurm.events("killed", "attempt_started")
    assert [first["job_id"], second["job_id"]] == [job, job]
    assert second["restarts"] == first["restarts"] == 0
    assert second["time"] - killed_at < 10
    assert not slurm.events("killed", "requeued")
    assert slurm.state("killed")["restarts"] == {"crash": 1}


def test_crash_loop_stops_with_the_first_traceback(slurm: Lab) -> None:
    train = ("--max_steps", "30", "--crash_at", "7", "--crash_rank", "3", "--crash", "always")
    done = slurm.launcher(
        *("submit", "--name", "crash-loop", *SMALL, "--max-restarts", "1", "--wait", "--", *train)
    )
    assert done.returncode == 1
    assert slurm.causes("crash-loop") == ["crash", "crash"]
    # The same step twice is the program's: it does not count against the node.
    assert failed_nodes(slurm.events("crash-loop"), time.time(), 24) == {}
    assert len(slurm.events("crash-loop", "node_suspected")) == 2
    assert slurm.state("crash-loop")["state"] == "FAILED"
    said = slurm.why("crash-loop")
    assert "RuntimeError: boom at step 7" in said
    assert "rank-3.log" in said
    assert "--max-restarts allows 1" in said
    job = slurm.events("crash-loop", "submitted")[0]["job_id"]
    shown = ("scontrol", "show", "job", job)
    poll(lambda: "JobState=FAILED" in slurm.command(*shown).stdout, "Slurm to let go of the job")


@pytest.mark.skipif("--cgroup" not in SITE, reason="this site keeps no job's memory")
def test_rank_that_takes_too_much_memory_is_named(slurm: Lab) -> None:
    train = ("--max_steps", "20", "--crash_at", "7", "--crash_rank", "3", "--crash_by", "memory")
    slurm.submit("greedy", *SMALL, "--mem", "300M", train=train)
    killed = "srun: error: n2: task 3: Out Of Memory"
    srun = slurm.runs / "greedy" / "attempts" / "1" / "srun.log"
    poll(lambda: srun.exists() and killed in srun.read_text(), "the kill")
    (slurm.runs / "greedy" / "checkpoints" / "dead-1").touch()
    assert_whole(slurm, "greedy", 20)
    assert slurm.causes("greedy") == ["crash", "done"]
    assert "out of memory on n2: raise --mem" in slurm.why("greedy")
    assert killed in slurm.why("greedy")
    assert not slurm.events("greedy", "node_suspected")


def test_hang_dumps_stacks_and_restarts(slurm: Lab) -> None:
    train = ("--max_steps", "20", "--hang_at", "8")
    slurm.submit("hang", *SMALL, "--hang-timeout", "20", train=train)
    assert_whole(slurm, "hang", 20)
    assert slurm.causes("hang") == ["hang", "done"]
    first = slurm.runs / "hang" / "attempts" / "1"
    assert "hang_here" in (first / "rank-0.log").read_text()


def test_cancelled_run_is_saved_and_not_requeued(slurm: Lab) -> None:
    slurm.submit("cancelled", *SMALL, train=("--max_steps", "5000", "--save_interval", "10000"))
    slurm.wait_for_step("cancelled", 5)
    slurm.ok("cancel", "cancelled")
    assert slurm.wait("cancelled", "CANCELLED")["exit_code"] == 130
    job = slurm.events("cancelled", "submitted")[0]["job_id"]
    poll(
        lambda: "JobState=CANCELLED" in slurm.command("scontrol", "show", "job", job).stdout,
        "Slurm to be done with the job",
    )
    assert slurm.events("cancelled", "preempted"), "no checkpoint was saved"
    assert not slurm.events("cancelled", "requeued")


def test_plain_scancel_counts_as_cancelled(slurm: Lab) -> None:
    job = slurm.submit("scancelled", *SMALL, train=("--max_steps", "5000"))
    slurm.wait_for_step("scancelled", 5)
    slurm.command("scancel", job)
    assert slurm.wait("scancelled", "CANCELLED")["state"] == "CANCELLED"
    poll(lambda: slurm.causes("scancelled"), "the end to be recorded")
    assert slurm.causes("scancelled") == ["cancelled"]


def test_finished_run_is_never_run_again(slurm: Lab) -> None:
    job = slurm.submit("again", *SMALL, train=("--max_steps", "5"))
    slurm.wait("again")
    poll(lambda: "COMPLETED" in slurm.command("scontrol", "show", "job", job).stdout, "the end")
    assert slurm.command("scontrol", "requeue", job).returncode == 0
    log = slurm.runs / "again" / "batch.log"
    poll(lambda: "this run is over" in log.read_text(), "the second start to see the marker", 90)
    assert len(slurm.events("again", "attempt_started")) == 1
