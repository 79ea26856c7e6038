"""The same facts from every version of Slurm, 22.05 and newer.

The answers hold the fields that each version's scontrol(1) and sinfo(1) list, and what a hostile
or careless user can put into them: spaces and ``=`` in a folder's name or a comment.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher.inspect import run_state as state
from launcher.slurm import client as slurm
from launcher.slurm.parse import leading_number, parse_stamp
from launcher.supervise.classify import slurm_causes

ANSWERS = Path(__file__).parent / "answers"
VERSIONS = sorted(folder.name for folder in ANSWERS.iterdir())


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = ANSWERS / request.param

    def answer(*command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        names = {"sinfo": "sinfo", "squeue": "squeue"}
        name = names.get(command[0]) or f"show-{command[2]}"
        return subprocess.CompletedProcess(command, 0, (folder / f"{name}.txt").read_text(), "")

    monkeypatch.setattr(slurm, "run", answer)
    return str(request.param)


def test_there_are_old_and_new_versions() -> None:
    assert VERSIONS[0] == "22.05"
    assert len(VERSIONS) >= 4


@pytest.mark.usefixtures("version")
def test_jobs() -> None:
    jobs = slurm.job_states()
    assert jobs is not None
    assert state.slurm_state(jobs["5"], True)[0] == state.RUNNING, "another's comment was believed"
    assert parse_stamp(jobs["5"]["PreemptTime"]) is not None
    assert jobs["5"]["TimeLimit"] == "1-00:00:00"
    assert jobs["5"]["Restarts"] == "2"
    assert jobs["9"]["JobState"] == "COMPLETED", "a folder's name was taken for a state"
    assert jobs["6_2"]["JobState"] == "RUNNING"
    for index in (3, 400, 402, 404):
        assert state.slurm_state(jobs[f"6_{index}"], False)[:2] == (state.PENDING, "Priority")
    assert "6_401" not in jobs


@pytest.mark.usefixtures("version")
def test_nodes_and_partitions() -> None:
    nodes = slurm.show_nodes("n[1-7]")
    down = [node.name for node in nodes.values() if node.is_down]
    assert down == ["n2", "n3", "n6"], "a node that is off is not lost"
    assert slurm.node_address("n1") == "10.0.0.1"
    site = slurm.read_site()
    assert site is not None
    gres = ("gpu:a100:8(S:0-1)",)
    assert site.default() == slurm.Partition("low", True, None, 2, 16, gres, "REQUEUE", 60)
    assert site.partitions["high"].max_minutes == 1440
    assert site.partitions["cpu"].devices("gpu") == 0
    assert leading_number(slurm.show_config()["KillWait"], 5) == 30


def test_causes(version: str) -> None:
    log = (ANSWERS / version / "log.txt").read_text()
    assert [reason for _, reason in slurm_causes(log)] == [
        "PREEMPTION",
        "TIME LIMIT",
        "NODE FAILURE",
    ]


def test_the_questions_do_not_depend_on_the_users_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "scontrol"
    fake.write_text("#!/bin/sh\nenv\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("SQUEUE_STATES", "SINFO_PARTITION", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "relative")
    said = slurm.run("scontrol").stdout.splitlines()
    assert "SLURM_BITSTR_LEN=0" in said, "a sweep's task ids would be cut off"
    assert "SLURM_TIME_FORMAT=standard" in said
    assert not [line for line in said if line.startswith(("SQUEUE_", "SINFO_"))]
