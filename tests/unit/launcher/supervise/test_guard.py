"""The guard of a job whose batch host may be lost, with stand-ins for Slurm's commands."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import guard

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
    monkeypatch.setattr(guard.time, "sleep", lambda seconds: None)
    return tmp_path / "asked"


def told_to_end() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class FewLooks(threading.Event):
    """Is told to end after nine looks."""

    looks = 9

    def wait(self, timeout: float | None = None) -> bool:
        self.looks -= 1
        return self.looks <= 0


def requeues(asked: Path) -> list[str]:
    lines = asked.read_text().splitlines()
    return [line for line in lines if line.startswith(("requeue", "release"))]


def test_a_job_without_its_batch_host_goes_back_to_slurm(asked: Path, submitted: RunFolder) -> None:
    guard.watch(submitted, "7", "n1", told_to_end())
    assert requeues(asked) == ["requeue 7", "release 7"]


def test_a_job_whose_batch_host_lives_is_left_alone(asked: Path, submitted: RunFolder) -> None:
    guard.watch(submitted, "7", "n2", told_to_end())
    assert requeues(asked) == []


def test_a_run_that_is_over_or_cancelled_is_left_alone(asked: Path, submitted: RunFolder) -> None:
    submitted.append("cancel_requested")
    guard.watch(submitted, "7", "n1", told_to_end())
    submitted.append("cancel_withdrawn")
    submitted.finish(Final("crash", 1, "too many"))
    guard.watch(submitted, "7", "n1", told_to_end())
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
    lines = "\n".join(f"JobId=7 NodeList=n2,n3 {record}" for record in records)
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
    guard.watch(submitted, "7", "n1", told_to_end())
    assert requeues(asked) == ["requeue 7"]


def test_a_hold_that_comes_with_the_requeue_is_slurms(asked: Path, submitted: RunFolder) -> None:
    held = "Reason=launch_failed_requeued_held"
    completing = f"JobState=COMPLETING Restarts=0 {held}"
    answers(asked, LOST, LOST, completing, f"JobState=PENDING Restarts=1 {held}", AGAIN)
    guard.watch(submitted, "7", "n1", told_to_end())
    assert requeues(asked) == ["requeue 7", "requeue 7", "release 7"]


def test_a_job_that_a_person_holds_is_requeued_and_stays_held(
    asked: Path, submitted: RunFolder
) -> None:
    held = "JobState=PENDING Reason=JobHeldUser Restarts=1"
    answers(asked, LOST, f"{LOST} Reason=JobHeldUser", held)
    guard.watch(submitted, "7", "n1", told_to_end())
    assert requeues(asked) == ["requeue 7"]


def test_a_job_is_looked_at_again_where_slurm_was_silent(
    asked: Path, submitted: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "TRIES", 1)
    answers(asked, LOST, "JobState=", LOST, LOST, LOST, AGAIN)
    guard.watch(submitted, "7", "n1", FewLooks())
    assert requeues(asked) == ["requeue 7"]
