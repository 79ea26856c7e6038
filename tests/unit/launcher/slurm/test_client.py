from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.slurm import client as slurm

FAKE = """#!/bin/sh
case "$*" in
  *"requeue 1"*) exit 0 ;;
  *"requeue 2"*) echo "Job is pending execution for job 2" >&2; exit 1 ;;
  *"requeue 3"*) echo "Requested operation is presently disabled for job 3" >&2; exit 1 ;;
  *"show job --oneliner --all 3") echo "JobId=3 JobState=RUNNING Reason=None" ;;
  *"show job --oneliner --all")
    echo "JobId=7 ArrayJobId=5 ArrayTaskId=2 JobState=RUNNING"
    echo "JobId=8 JobName=a=b JobState=PENDING Reason=Priority" ;;
  *"show node"*) echo "NodeName=n1 NodeAddr=10.0.0.1 State=IDLE"
    echo "NodeName=n2 NodeAddr=n2 State=DOWN*+DRAIN"; echo "NodeName=n3 State=MIXED*" ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller with known answers: the real one is asked in tests/e2e."""
    (tmp_path / "scontrol").write_text(FAKE)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("scontrol")
def test_requeue_is_idempotent() -> None:
    assert slurm.requeue("1") is None
    assert slurm.requeue("2") is None, "already pending is what was wanted"
    assert slurm.requeue("3") == "Requested operation is presently disabled for job 3"


def down_nodes(nodelist: str) -> list[str]:
    return [node.name for node in slurm.show_nodes(nodelist).values() if node.is_down]


@pytest.mark.usefixtures("scontrol")
def test_jobs_and_nodes() -> None:
    jobs = slurm.job_states()
    assert jobs is not None
    assert jobs["5_2"]["JobState"] == "RUNNING"
    assert jobs["8"]["Reason"] == "Priority"
    assert down_nodes("n[1-3]") == ["n2", "n3"]
    assert slurm.show_nodes("") == {}


ONE_JOB = """#!/bin/sh
case "$*" in
  *" 5_2") echo "JobId=7 ArrayJobId=5 ArrayTaskId=2 JobState=RUNNING" ;;
  *" 5_4") echo "JobId=5 ArrayJobId=5 ArrayTaskId=3-9 JobState=PENDING" ;;
  *" 6") echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;;
  *" 6_1") echo "Job 6_1 not found"; exit 1 ;;
  *" 8") echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1 ;;
  *) echo "JobId=1 JobState=RUNNING"; echo "JobId=2 JobState=RUNNING" ;;
esac
"""


def test_one_job_is_asked_for_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "scontrol", ONE_JOB, monkeypatch)
    found = slurm.job_states("5_2")
    assert found is not None
    assert found["5_2"]["JobState"] == "RUNNING"
    waiting = slurm.job_states("5_4")
    assert waiting is not None
    assert waiting["5_4"]["JobState"] == "PENDING"
    assert slurm.job_states("6") == {}, "forgotten is an answer"
    assert slurm.job_states("6_1") == {}
    assert slurm.job_states("8") is None


ARRAY = """#!/bin/sh
# As 22.05 answers: the array's id is that of its last task, and means all of them.
case "$*" in *"show job --oneliner --all 1")
  echo "JobId=2 ArrayJobId=1 ArrayTaskId=0 JobState=FAILED"
  echo "JobId=1 ArrayJobId=1 ArrayTaskId=2 JobState=RUNNING" ;;
*"show step --oneliner 1_2")
  echo "StepId=1_2.batch UserId=0 State=RUNNING"
  echo "StepId=1_2.extern UserId=0 State=RUNNING"
  echo "StepId=1_2.0 UserId=0 State=RUNNING Name=python Network=(null)"
  echo "StepId=1_2.1 UserId=0 State=RUNNING Name=launcher-guard Network=(null)" ;;
*) exit 1 ;;
esac
"""


def test_the_records_of_an_array_are_not_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "scontrol", ARRAY, monkeypatch)
    job = slurm.show_job("1")
    assert job is not None
    assert job["JobState"] == "RUNNING"
    assert slurm.numbered_steps("1_2") == ["1_2.0"]


def test_a_question_outlives_the_signal_that_a_requeue_sends_to_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "scontrol", '#!/bin/sh\nkill $$\necho "JobId=5 JobState=PENDING"\n', monkeypatch)
    assert slurm.requeue("5") is None
    assert slurm.show_job("5") == {"JobId": "5", "JobState": "PENDING"}


def test_no_slurm_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.available()
    assert slurm.show_job("1") is None
    assert slurm.job_states() is None
    assert slurm.read_site() is None
    assert slurm.show_config() == {}


SINFO = """#!/bin/sh
# As sinfo(1) has it: without --exact nodes that differ are one line, with the smallest number of
# CPUs; without --all a partition with Hidden=YES is not there.
case "$*" in
  *--exact*) echo "gpu*|infinite|4|gpu:8|64"; echo "gpu*|infinite|8|gpu:8|128" ;;
  *) echo "gpu*|infinite|12|gpu:8|64+" ;;
esac
case "$*" in *--all*) echo "secret|1:00:00|2|gpu:4|32" ;; esac
"""
SCONTROL_PARTITIONS = """#!/bin/sh
echo "PartitionName=gpu GraceTime=0 PreemptMode=OFF"
case "$*" in *--all*) echo "PartitionName=secret GraceTime=60 PreemptMode=REQUEUE" ;; esac
"""


def put(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
    if not os.environ["PATH"].startswith(f"{folder}:"):
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_partition_of_different_nodes_has_its_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "sinfo", SINFO, monkeypatch)
    put(tmp_path, "scontrol", SCONTROL_PARTITIONS, monkeypatch)
    site = slurm.read_site()
    assert site is not None
    both = ("gpu:8", "gpu:8")
    assert site.partitions["gpu"] == slurm.Partition("gpu", True, None, 12, 128, both, "OFF", 0)
    assert site.partitions["secret"] == slurm.Partition(
        "secret", False, 60, 2, 32, ("gpu:4",), "REQUEUE", 60
    )


def test_a_partitions_devices_are_those_of_its_largest_node() -> None:
    kinds = ("gpu:a100:4(S:0-1)", "gpu:h100:2,npu:16", "(null)")
    partition = slurm.Partition("mixed", True, None, 3, None, kinds)
    asked = ("gpu", "gpu:h100", "npu", "npu:910b", "mps")
    assert [partition.devices(gres) for gres in asked] == [4, 2, 16, 0, 0]


def test_a_merged_line_tells_no_largest_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = "#!/bin/sh\necho 'gpu*|infinite|12|gpu:8|64+'; echo 'gpu*|infinite|2|gpu:8|32'\n"
    put(tmp_path, "sinfo", merged, monkeypatch)
    put(tmp_path, "scontrol", SCONTROL_PARTITIONS, monkeypatch)
    site = slurm.read_site()
    assert site is not None
    assert site.partitions["gpu"].cpus is None
