"""Jobs that outlive the loss of a node, on a real Slurm of three nodes.

The training is the test double, but for one test: what is tested is the launcher.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.slurm.parse import parse_fields
from launcher.slurm.states import is_held
from minimind.system.process import start_ticks
from tests.e2e.conftest import CLUSTER, base_port, slurm_or_skip
from tests.e2e.lab import FAKE, Lab, make_lab, poll, words
from tests.e2e.test_survival import assert_whole
from tests.e2e.test_training import assert_same_training, held
from tests.runs import Run

HELD = ("--max_steps", "30", "--step_seconds", "0.05", "--wait_at", "12")
"""Flags of a run whose first attempt waits at step 12, saved at 10, until somebody interferes."""


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    slurm_or_skip()
    folder = tmp_path_factory.mktemp("three")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    size = ("--nodes", "3", "--kill-wait", "5", "--base-port", str(int(base_port()) + 8))
    lab = make_lab(folder, *CLUSTER, *size)
    yield lab
    lab.devcluster("down")
    shutil.rmtree(folder, ignore_errors=True)


def set_down(lab: Lab, node: str) -> None:
    lab.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def set_free(lab: Lab, node: str) -> None:
    """Where the node has not come back by itself."""
    shown = lab.command("scontrol", "show", "node", node).stdout
    if "DOWN" in shown:
        lab.command("scontrol", "update", f"nodename={node}", "state=resume")
    poll(
        lambda: "State=IDLE " in lab.command("scontrol", "show", "node", node).stdout,
        f"{node} to be idle",
    )


def nodes_of_attempts(lab: Lab, name: str) -> list[list[str]]:
    return [event["nodes"] for event in lab.events(name, "attempt_started")]


def test_a_run_goes_on_with_the_nodes_that_are_left(three_nodes: Lab) -> None:
    lab = three_nodes
    job = lab.submit("fewer", *FAKE, "--nodes", "3", "--min-nodes", "2", train=HELD)
    lab.wait_for_step("fewer", 12)
    set_down(lab, "n2")
    assert_whole(lab, "fewer", 30)
    set_free(lab, "n2")
    assert nodes_of_attempts(lab, "fewer") == [["n1", "n2", "n3"], ["n1", "n3"]]
    assert [e["world_size"] for e in lab.events("fewer", "started")] == [3, 2]
    assert [e["job_id"] for e in lab.events("fewer", "attempt_started")] == [job, job]
    assert lab.events("fewer", "node_failed")[0]["nodes"] == ["n2"]
    assert not lab.events("fewer", "requeued")
    assert "(n2); restarted in the same job on n1,n3" in lab.why("fewer")


def test_a_spare_node_takes_the_place_of_a_lost_one(three_nodes: Lab) -> None:
    lab = three_nodes
    job = lab.submit("spare", *FAKE, "--nodes", "2", "--spare-nodes", "1", train=HELD)
    lab.wait_for_step("spare", 12)
    set_down(lab, "n2")
    assert_whole(lab, "spare", 30)
    set_free(lab, "n2")
    assert nodes_of_attempts(lab, "spare") == [["n1", "n2"], ["n1", "n3"]]
    assert [e["world_size"] for e in lab.events("spare", "started")] == [2, 2]
    assert [e["job_id"] for e in lab.events("spare", "attempt_started")] == [job, job]
    assert not lab.events("spare", "requeued")


def test_a_spare_node_trains_on_bit_for_bit(
    three_nodes: Lab, tiny_flags: dict[str, Any], tmp_path: Path
) -> None:
    """The real training, against the same one that nobody disturbed."""
    lab, go = three_nodes, three_nodes.folder / "go"
    changes = {"record_rows": False, "accumulation_steps": 1, "epochs": 1000}
    flags = {**tiny_flags, **changes, "save_interval": 10, "max_steps": 60}
    plain = Run(tmp_path / "plain", flags, {"OMP_NUM_THREADS": "1"}).complete(2)
    options = ("--nodes", "2", "--gpus", "1", "--spare-nodes", "1", *held(23, go))
    job = lab.submit("trained", *options, train=words(flags))
    lab.wait_for_step("trained", 23)
    set_down(lab, "n2")
    poll(lambda: lab.causes("trained"), "the loss to be seen")
    go.touch()
    lab.wait("trained")
    set_free(lab, "n2")
    assert lab.causes("trained") == ["node_failure", "done"]
    assert nodes_of_attempts(lab, "trained") == [["n1", "n2"], ["n1", "n3"]]
    assert [e["job_id"] for e in lab.events("trained", "attempt_started")] == [job, job]
    (resumed,) = lab.events("trained", "resumed")
    saves = lab.events("trained", "checkpointed")
    assert resumed["step"] == max(e["step"] for e in saves if e["time"] < resumed["time"])
    assert_same_training(lab, "trained", plain)


NVIDIA_SMI = """#!/bin/sh
echo "GPU 0: pretended"
[ "$SLURMD_NODENAME" = n2 ] || echo "GPU 1: pretended"
"""


def test_an_unfit_node_leaves_its_place_to_a_spare_one_before_the_ranks_start(
    three_nodes: Lab,
) -> None:
    lab = three_nodes
    programs = lab.folder / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(0o755)
    path = {"PATH": f"{programs}:{lab.environment['PATH']}"}
    sees_gpus = replace(lab, environment={**lab.environment, **path})
    options = (*FAKE, "--nodes", "2", "--spare-nodes", "1", "--gpus", "2", "--max-restarts", "0")
    job = sees_gpus.submit("unfit", *options, train=("--max_steps", "3"))
    lab.wait("unfit")
    assert lab.causes("unfit") == ["unfit_node", "done"]
    assert nodes_of_attempts(lab, "unfit") == [["n1", "n2"], ["n1", "n3"]]
    assert [e["job_id"] for e in lab.events("unfit", "attempt_started")] == [job, job]
    assert not lab.events("unfit", "requeued")
    assert "n2: it shows 1 of the 2 GPUs that Slurm has given" in lab.why("unfit")


def test_a_lost_batch_host_gives_the_job_back_to_slurm(three_nodes: Lab) -> None:
    """Slurm itself would not run it again: it ends as failed, or keeps its nodes for nothing.

    Whose slurmd lives on, as here, keeps rank 0 until it is told: there the job could not begin.
    """
    lab = three_nodes
    job = lab.submit("headless", *FAKE, "--nodes", "3", "--min-nodes", "2", train=HELD)
    lab.wait_for_step("headless", 12)
    wait_for_guards(lab, job)
    set_down(lab, "n1")
    wait_for_requeue(lab, job)
    lab.command("scancel", job)
    set_free(lab, "n1")


def test_the_death_of_the_batch_host_and_of_a_guards_node_leaves_a_guard(three_nodes: Lab) -> None:
    """Nothing of the two nodes is left: no slurmd, no step, no supervisor and none of its srun."""
    lab = three_nodes
    job = lab.submit("beheaded", *FAKE, "--nodes", "3", "--min-nodes", "2", train=HELD)
    lab.wait_for_step("beheaded", 12)
    wait_for_guards(lab, job)
    for node in ("n1", "n2"):
        kill_node(lab, node)
    wait_for_requeue(lab, job)


def wait_for_guards(lab: Lab, job: str) -> None:
    """Until their programs run: Slurm lists a step whose program it has not started yet."""
    steps = ("scontrol", "show", "step", job)
    poll(lambda: lab.command(*steps).stdout.count("Name=launcher-guard") == 2, "the guards' steps")
    poll(lambda: guards_on(lab, "n2") and guards_on(lab, "n3"), "the guards")


def guards_on(lab: Lab, node: str) -> list[int]:
    found = []
    for pid in filter(lambda pid: runs_on(lab, node, pid), processes()):
        with contextlib.suppress(OSError):
            if b"launcher.supervise.guard" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def wait_for_requeue(lab: Lab, job: str) -> None:
    """Until it waits, for its time to begin or for nodes, and for no person."""

    def waits() -> bool:
        shown = parse_fields(lab.command("scontrol", "-o", "show", "job", job).stdout)
        state, reason = shown.get("JobState", ""), shown.get("Reason", "")
        again = state == "PENDING" and shown["Restarts"] == "1"
        return again and not is_held(state, reason)

    try:
        poll(waits, "the requeue")
    except AssertionError as error:
        log = (lab.folder / "slurm" / "logs" / "slurmctld.log").read_text()
        asked = [lab.command("scontrol", "show", what, job).stdout for what in ("job", "step")]
        raise AssertionError("\n".join([str(error), *asked, log[-4000:]])) from None


def kill_node(lab: Lab, node: str) -> None:
    """Kills a node's slurmd, what it runs for this cluster, and what keeps that, all at once."""
    slurmd = int((lab.folder / "slurm" / "pids" / f"slurmd-{node}.pid").read_text())
    tasks = [pid for pid in processes() if runs_on(lab, node, pid)]
    keepers = set(filter(is_stepd, map(parent, tasks)))
    # No node dies piece by piece: a child that sees the end of its srun has Slurm cancel the step.
    # Those that are stopped would be continued at the end of their parents, so the youngest first.
    doomed = sorted(
        {slurmd, *keepers, *tasks}, key=lambda pid: (start_ticks(pid) or 0, pid), reverse=True
    )
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def processes() -> list[int]:
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if pid > 1]


def runs_on(lab: Lab, node: str, pid: int) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    ours = any(bytes(lab.folder) in variable for variable in variables)
    return ours and f"SLURMD_NODENAME={node}".encode() in variables


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def is_stepd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
