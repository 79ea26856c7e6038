"""What a rank makes of the environment it finds."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable

import pytest

from launcher.rank.environment import attempt_environment, rank_variables
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder

STEP = {"SLURM_PROCID": "5", "SLURM_NTASKS": "16", "SLURM_LOCALID": "5"}
PLACE = {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8"}


def test_on_slurm_a_rank_takes_its_place_from_slurm(make_spec: Callable[..., JobSpec]) -> None:
    assert rank_variables(STEP, make_spec()) == PLACE


def test_on_slurm_a_place_of_the_submitters_shell_or_an_image_does_not_count(
    make_spec: Callable[..., JobSpec],
) -> None:
    assert rank_variables({**STEP, "RANK": "0", "WORLD_SIZE": "1"}, make_spec()) == PLACE


def test_on_one_machine_the_supervisor_has_given_the_place(
    make_spec: Callable[..., JobSpec],
) -> None:
    """Also inside an allocation, whose own variables mean something else."""
    here = {**STEP, "RANK": "1", "WORLD_SIZE": "2"}
    assert rank_variables(here, make_spec(cluster="local")) == {}


def test_ranks_learn_of_their_attempt_whatever_the_submitters_shell_says(
    make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "9")
    monkeypatch.setenv("COLOUR", "red")
    run = RunFolder("/shared/runs/demo")
    found = attempt_environment(run, make_spec(env={"COLOUR": "blue"}), 2)
    assert found["LAUNCHER_ATTEMPT"] == "2"
    assert found["MINIMIND_EVENTS"] == "/shared/runs/demo/events.jsonl"
    assert found["COLOUR"] == "blue"
    assert "PYTHONSAFEPATH" not in found


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME"])
def test_the_hosts_modules_stay_out_of_a_container(
    name: str, make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/opt/host")
    run = RunFolder("/shared/runs/demo")
    inside = {"container": "apptainer", "image": "/shared/mm.sif"}
    assert name not in attempt_environment(run, make_spec(**inside), 1)
    asked_for = make_spec(**inside, env={name: "/shared/mine"})
    assert attempt_environment(run, asked_for, 1)[name] == "/shared/mine"
    assert attempt_environment(run, make_spec(), 1)[name] == "/opt/host"


def test_a_container_runtime_finds_the_users_name(
    make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("USER", raising=False)
    run = RunFolder("/shared/runs/demo")
    spec = make_spec(container="charliecloud", image="/shared/mm")
    assert attempt_environment(run, spec, 1)["USER"] == pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setenv("USER", "mia")
    assert attempt_environment(run, spec, 1)["USER"] == "mia"


def test_a_user_whom_this_machine_does_not_know_has_a_number(
    make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    spec = make_spec(container="charliecloud", image="/shared/mm")
    assert attempt_environment(RunFolder("/shared/runs/demo"), spec, 1)["USER"] == "54321"
