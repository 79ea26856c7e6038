from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.spec.job_spec import JobSpec, Mount, check_writable, parse_env, parse_time
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


@pytest.mark.parametrize(
    "text, minutes",
    [
        ("90", 90),
        ("1:30", 2),
        ("2:00:00", 120),
        ("0:00:01", 1),
        ("1-0", 1440),
        ("1-2:30", 1590),
        ("1-00:00:01", 1441),
    ],
)
def test_time_formats(text: str, minutes: int) -> None:
    assert parse_time(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "1:2:3:4", "1h", "0:00:00"])
def test_bad_time(text: str) -> None:
    with pytest.raises(ConfigError, match="--time"):
        parse_time(text)


def test_mounts() -> None:
    assert Mount.parse("/a b:/c:ro") == Mount("/a b", "/c", read_only=True)
    assert str(Mount.parse("/a:/b")) == "/a:/b"
    for bad in ("/a", "/a:b", "a:/b", "/a:/b:rx", "/a,c:/b", "/a:/b\n:ro", ":"):
        with pytest.raises(ConfigError, match="--mount"):
            Mount.parse(bad)


def test_parse_env() -> None:
    assert parse_env(["A=b=c", "B="]) == {"A": "b=c", "B": ""}
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_env(["A"])


def test_unwritable_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        check_writable(tmp_path / "file" / "run")


def test_world_size(make_spec: Callable[..., JobSpec]) -> None:
    assert make_spec().world_size == 16
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_spec().nodes = 3  # type: ignore[misc]
