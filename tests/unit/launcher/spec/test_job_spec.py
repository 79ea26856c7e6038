from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.spec.job_spec import JobSpec
from launcher.spec.mount import Mount
from minimind.errors import ConfigError


def test_json_round_trip_keeps_everything(make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(
        mounts=(Mount("/data", "/data", read_only=True),),
        env={"A": "x 'y' $(z)\n"},
        secret_env=("TOKEN",),
        image="img",
        container="docker",
        sbatch={"exclusive": True},
        setup=("module load cuda",),
    )
    assert JobSpec.from_json(spec.to_json()) == spec


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text()))
def test_env_values_survive_json(env: dict[str, str]) -> None:
    env = {k: v for k, v in env.items() if "\0" not in v and not k.startswith(("SLURM", "SRUN_"))}
    try:
        spec = JobSpec(name="n", run_dir="/r", workdir="/w", env=env)
    except ConfigError:
        return
    assert JobSpec.from_json(spec.to_json()).env == env


def test_json_of_another_version_is_read(make_spec: Callable[..., JobSpec]) -> None:
    stored = json.loads(make_spec().to_json()) | {"of_the_future": 1}
    assert JobSpec.from_json(json.dumps(stored)) == make_spec()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"name": "-x"}, "--name"),
        ({"name": "a b"}, "--name"),
        ({"name": "$(touch x)"}, "--name"),
        ({"name": "a" * 64}, "--name"),
        ({"run_dir": "/a\nb"}, "control"),
        ({"run_dir": "/a%j"}, "pattern"),
        ({"run_dir": "/a\\b"}, "pattern"),
        ({"nodes": 0}, "--nodes"),
        ({"nodes": 2**31}, "--nodes"),
        ({"hang_timeout": 10**50}, "--hang-timeout"),
        ({"gpus": -1}, "--gpus"),
        ({"time_minutes": 0}, "--time"),
        ({"partition": "--wrap=x"}, "--partition"),
        ({"account": "a b"}, "--account"),
        ({"image": "x"}, "--container none"),
        ({"container": "docker"}, "--image"),
        ({"container": "lxc", "image": "x"}, "--container lxc"),
        ({"container": "docker", "image": "-x"}, "--image"),
        ({"container": "docker", "image": "x", "workdir": "/a:b"}, "colon"),
        ({"env": {"1A": "x"}}, "--env"),
        ({"env": {"SLURM_NTASKS": "4"}}, "--env SLURM_NTASKS"),
        ({"env": {"A": "\0"}}, "zero byte"),
        ({"secret_env": ("a-b",)}, "--secret-env"),
        ({"train_args": ("a\0",)}, "zero byte"),
        ({"module": "os; x"}, "--module"),
        ({"max_restarts": -1}, "--max-restarts"),
    ],
)
def test_what_cannot_work_is_refused(
    make_spec: Callable[..., JobSpec], changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match="(?s)" + said.replace("(", r"\(")):
        make_spec(**changes)


def test_world_size(make_spec: Callable[..., JobSpec]) -> None:
    assert make_spec().world_size == 16
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_spec().nodes = 3  # type: ignore[misc]
