"""What sbatch and Slurm's other commands may see of a user's environment."""

from __future__ import annotations

import os

import pytest

from launcher.slurm.environment import (
    describe_defaults,
    outer_environment,
    own_job,
    submission_environment,
)


def test_a_job_is_called_by_its_id_and_a_task_by_its_arrays() -> None:
    assert own_job({"SLURM_JOB_ID": "7"}) == "7"
    task = {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    assert own_job(task) == "5_2"


def test_outer_job_is_scrubbed_but_the_cluster_stays() -> None:
    outer = {
        "SLURM_CONF": "/c",
        "SLURM_CPU_BIND": "mask",
        "SLURM_NTASKS": "4",
        "SLURMD_NODENAME": "n1",
        "SBATCH_PARTITION": "x",
        "SBATCH_CPU_BIND_TYPE": "mask",
        "SBATCH_REQUEUE": "expedite",
        "SBATCH_WCKEY": "kept",
        "SLURM_CLUSTERS": "kept",
        "SRUN_CPUS_PER_TASK": "1",
        "SUBMITIT_EXECUTOR": "slurm",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "RANKING": "kept",
        "HOME": "/h",
    }
    kept = {"SBATCH_WCKEY": "kept", "SLURM_CLUSTERS": "kept"}
    kept |= {"SLURM_CONF": "/c", "RANKING": "kept", "HOME": "/h"}
    assert outer_environment(outer) == kept


def test_what_becomes_of_a_users_defaults_is_said() -> None:
    own = {"SBATCH_ACCOUNT": "lab", "SLURM_CLUSTERS": "big", "SBATCH_EXPORT": "NONE"}
    jobs = {"SLURM_JOB_ID": "7", "SBATCH_CPU_BIND": "mask", "SLURM_CLUSTER_NAME": "big"}
    count, ignored = describe_defaults({**own, **jobs})
    assert count.endswith("otherwise: SBATCH_ACCOUNT=lab, SLURM_CLUSTERS=big")
    assert ignored.endswith("itself: SBATCH_EXPORT")
    assert describe_defaults(jobs) == []


def test_submission_environment_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with submission_environment(hidden=("TOKEN",)):
        assert "TOKEN" not in os.environ
        assert "SLURM_JOB_ID" not in os.environ
    assert os.environ["TOKEN"] == "s"
    assert os.environ["SLURM_JOB_ID"] == "1"
