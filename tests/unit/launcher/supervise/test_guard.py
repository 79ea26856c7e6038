"""The guard of a job whose batch host may be lost, with stand-ins for Slurm's commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import guard
from launcher.supervise.held_nodes import HeldNodes
from tests.e2e.lab import poll
from tests.own_time import sleeps_by

HELD_ONCE = """
echo "$*" >> "$HERE/asked"
case "$*" in
  "show hostnames "*) echo "$3" | tr , '\\n' ;;
  "show job "*)
    state="JobState=FAILED Reason=JobLaunchFailure NodeList=n2,n3"
    if grep -q "^requeue" "$HERE/asked"; then
      state="JobState=PENDING Reason=launch_failed_requeued_held NodeList="
    fi
    if grep -q "^release" "$HERE/asked"; then state="JobState=PENDING Reason=None NodeList="; fi
    echo "JobId=7 Restarts=0 BatchHost=n1 $state" ;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller whose job 7 has failed with its batch host; returns what it is asked."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{HELD_ONCE}")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HERE", str(tmp_path))
    sleeps_by(monkeypatch, guard, lambda seconds: None)
    return tmp_path / "asked"


def told_at_once(seconds: float) -> bool:
    return True


def few_looks() -> Callable[[float], bool]:
    """Is told to end after nine looks."""
    looks = iter([False] * 8)
    return lambda seconds: next(looks, True)


def requeues(asked: Path) -> list[str]:
    lines = asked.read_text().splitlines()
    return [line for line in lines if line.startswith(("requeue", "release"))]


def test_a_job_without_its_batch_host_goes_back_to_slurm(asked: Path, submitted: RunFolder) -> None:
    guard.watch(submitted, "7", "n1", 0, told_at_once)
    assert requeues(asked) == ["requeue 7", "release 7"]


def test_a_job_whose_batch_host_lives_is_left_alone(asked: Path, submitted: RunFolder) -> None:
    guard.watch(submitted, "7", "n2", 0, told_at_once)
    assert requeues(asked) == []


def test_a_run_that_is_over_or_cancelled_is_left_alone(asked: Path, submitted: RunFolder) -> None:
    submitted.append("cancel_requested")
    guard.watch(submitted, "7", "n1", 0, told_at_once)
    submitted.append("cancel_withdrawn")
    submitted.finish(Final("crash", 1, "too many"))
    guard.watch(submitted, "7", "n1", 0, told_at_once)
    assert requeues(asked) == []


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"JobState": "RUNNING"}, True),
        ({"JobState": "COMPLETING"}, True),
        ({"JobState": "CANCELLED"}, False),
        ({"JobState": "TIMEOUT"}, False),
        ({"JobState": "TELEPORTING"}, False),
        ({"JobState": "RUNNING", "Restarts": "1"}, False),
        ({"JobState": "PENDING", "NodeList": ""}, False),
        ({"JobState": "RUNNING", "NodeList": "n1,n2"}, False),
    ],
)
def test_what_counts_as_lost(fields: dict[str, str], lost: bool) -> None:
    job = {"Restarts": "0", "NodeList": "n2,n3", **fields}
    assert guard.has_lost(job, "n1", 0) is lost
    assert guard.has_lost(None, "n1", 0) is False


def answers(asked: Path, *records: str) -> None:
    """Slurm says one after the other when it is asked for the job, and stays with the last."""
    lines = "\n".join(f"JobId=7 {record} NodeList=n2,n3" for record in records)
    (asked.parent / "records").write_text(f"{lines}\n")
    (asked.parent / "scontrol").write_text(
        """#!/bin/sh
echo "$*" >> "$HERE/asked"
case "$*" in
  "show hostnames "*) echo "$3" | tr , '\\n' ;;
  "show job "*)
    head -n 1 "$HERE/records"
    [ "$(wc -l < "$HERE/records")" -eq 1 ] || sed -i 1d "$HERE/records" ;;
esac
"""
    )


LOST, AGAIN = "JobState=RUNNING Restarts=0", "JobState=PENDING Reason=BeginTime Restarts=1"


def test_a_start_that_slurm_was_faster_with_is_left_alone(
    asked: Path, submitted: RunFolder
) -> None:
    answers(asked, LOST, LOST, "JobState=COMPLETING Restarts=1", "JobState=RUNNING Restarts=1")
    guard.watch(submitted, "7", "n1", 0, told_at_once)
    assert requeues(asked) == ["requeue 7"]


def test_a_hold_that_comes_with_the_requeue_is_slurms(asked: Path, submitted: RunFolder) -> None:
    held = "Reason=launch_failed_requeued_held"
    completing = f"JobState=COMPLETING Restarts=0 {held}"
    answers(asked, LOST, LOST, completing, f"JobState=PENDING Restarts=1 {held}", AGAIN)
    guard.watch(submitted, "7", "n1", 0, told_at_once)
    assert requeues(asked) == ["requeue 7", "requeue 7", "release 7"]


def test_a_job_that_a_person_holds_is_requeued_and_stays_held(
    asked: Path, submitted: RunFolder
) -> None:
    held = "JobState=PENDING Reason=JobHeldUser Restarts=1"
    answers(asked, LOST, f"{LOST} Reason=JobHeldUser", held)
    guard.watch(submitted, "7", "n1", 0, told_at_once)
    assert requeues(asked) == ["requeue 7"]


def test_a_job_is_looked_at_again_where_slurm_was_silent(
    asked: Path, submitted: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "TRIES", 1)
    answers(asked, LOST, "JobState=", LOST, LOST, LOST, AGAIN)
    guard.watch(submitted, "7", "n1", 0, few_looks())
    assert requeues(asked) == ["requeue 7"]


def test_a_guard_leaves_the_job_to_those_before_it(
    asked: Path, submitted: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleeps_by(monkeypatch, guard, slept.append)
    answers(asked, LOST, AGAIN)
    guard.watch(submitted, "7", "n1", 2, told_at_once)
    assert requeues(asked) == []
    assert slept == [2 * guard.TURN_SECONDS]


def test_a_guard_acts_where_those_before_it_do_not(asked: Path, submitted: RunFolder) -> None:
    answers(asked, LOST, LOST, LOST, AGAIN)
    guard.watch(submitted, "7", "n1", 2, told_at_once)
    assert requeues(asked) == ["requeue 7"]


# Says that it is about to wait. A signal that comes from then on is blocked, and so not lost.
WAITING = """
import signal, sys
from launcher.supervise import guard

wait = signal.sigtimedwait

def say_and_wait(*arguments):
    print(flush=True)
    return wait(*arguments)

signal.sigtimedwait = say_and_wait
guard.LOOK_SECONDS = 600
guard.main(sys.argv[1:])
"""


def test_a_guard_that_is_told_to_end_looks_once_more(asked: Path, submitted: RunFolder) -> None:
    """As a process of its own: the signal comes while it waits for its next look."""
    command = (sys.executable, "-c", WAITING, str(submitted.root), "7", "n1", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert requeues(asked) == ["requeue 7", "release 7"]


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        ("", ""),
        ("n2", "n2"),
        ("n2 n3 n4 n5", "n2 n3 n4 n5"),
        ("n2 n3 n4 n5 n6 n7 n8 n9", "n2 n4 n6 n8"),
        ("n2 n3 n4 n5 n6", "n2 n4 n6"),
    ],
)
def test_guards_are_few_and_far_from_each_other(nodes: str, chosen: str) -> None:
    assert guard.spread(nodes.split()) == chosen.split()


RUNS_UNTIL_TOLD = """#!/bin/sh
echo "$*" >> "$HERE/steps"
case "$*" in *--nodelist="$GONE"*) exit 1 ;; esac
exec sleep 600
"""


def test_each_other_node_has_a_guard_and_one_that_ends_has_a_successor(
    asked: Path,
    submitted: RunFolder,
    make_spec: Callable[..., JobSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """n3 is lost with its guard, and the job is n1, n2 and n4 from then on."""
    (asked.parent / "srun").write_text(RUNS_UNTIL_TOLD)
    (asked.parent / "srun").chmod(0o755)
    (asked.parent / "steps").touch()
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("GONE", "n3")
    answers(asked, "JobState=COMPLETING", "JobState=RUNNING NodeList=n1,n2,n4")
    held = HeldNodes(make_spec(nodes=3, spare_nodes=1), "7", ["n1", "n2", "n3"])
    guards = guard.Guards(submitted, "7", held)

    def steps() -> list[str]:
        lines = (asked.parent / "steps").read_text().splitlines()
        return [line.split("--nodelist=")[1].split()[0] + line[-2:] for line in lines]

    try:
        guards.begin()
        poll(lambda: sorted(steps()) == ["n2 0", "n3 1"], "two guards", 20)
        poll(lambda: guards._living() == {0: "n2"}, "the end of one", 20)
        guards.keep()
        monkeypatch.setattr(guard, "AGAIN_SECONDS", 0.0)
        guards.keep()
        poll(lambda: len(steps()) == 3, "another guard", 20)
        assert guards._living() == {0: "n2", 1: "n4"}
        assert steps()[2] == "n4 1"
    finally:
        guards.end()
    assert guards._living() == {}
