from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.build import build_spec, complete_train_args, read_secrets, runs_folder
from launcher.slurm import Partition, Site
from launcher.spec import JobSpec
from minimind.errors import ConfigError

SITE = Site(
    {
        "low": Partition("low", True, 600, nodes=4, gpus=8, cpus=32),
        "cpu": Partition("cpu", False, None, nodes=2, gpus=0, cpus=64),
    }
)


def build(
    tmp_path: Path,
    train: list[str] | None = None,
    profile: dict[str, Any] | None = None,
    **given: Any,
) -> JobSpec:
    options = {"name": "demo", "runs_dir": str(tmp_path), **given}
    return build_spec(options, train or [], profile or {}, cluster="slurm", site=SITE)


def test_flag_wins_over_profile(tmp_path: Path) -> None:
    profile = {"nodes": 4, "gpus": 2, "time": "1:00:00", "env": {"A": "p", "B": "p"}}
    spec = build(tmp_path, profile=profile, nodes=1, env=["A=f"])
    assert (spec.nodes, spec.gpus, spec.time_minutes) == (1, 2, 60)
    assert spec.env == {"A": "f", "B": "p"}


def test_network_interface_becomes_hints_for_nccl_and_gloo(tmp_path: Path) -> None:
    spec = build(tmp_path, profile={"network_interface": "ib0"})
    assert spec.env == {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}


@pytest.mark.parametrize(
    "given, said",
    [
        ({"partition": "fast"}, "choose cpu, low"),
        ({"gpus": 9}, "at most 8"),
        ({"partition": "cpu"}, "no GPUs"),
        ({"nodes": 5}, "has 4"),
        ({"time": "11:00:00"}, "allows 600"),
        ({"time": "soon"}, "--time"),
        ({"gpus": 8, "cpus_per_gpu": 5}, "40 CPUs"),
        ({"image": "./missing.sif"}, "no such file"),
        ({"name": "../up"}, "--name"),
        ({"env": ["A"]}, "NAME=VALUE"),
        ({"mount": ["a:b"]}, "--mount"),
    ],
)
def test_what_the_site_would_refuse(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(tmp_path, **given)


def test_cpu_ranks_need_no_gpu_partition(tmp_path: Path) -> None:
    spec = build(tmp_path, ["--device", "cpu"], partition="cpu", gpus=2)
    assert not spec.request_gpus


def test_train_flags_are_checked_by_the_trainings_own_parser(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_siz"):
        build(tmp_path, ["--batch_siz", "3"])
    with pytest.raises(ConfigError, match="epochs"):
        build(tmp_path, ["--epochs", "many"])


def test_outputs_go_into_the_run_folder_unless_named(tmp_path: Path) -> None:
    spec = build(tmp_path, ["--epochs", "2"])
    run = tmp_path / "demo"
    assert spec.save_dir == str(run / "out")
    expected = ("--save_dir", str(run / "out"), "--checkpoint_dir", str(run / "checkpoints"))
    assert spec.train_args == (*expected, "--from_resume", "auto", "--epochs", "2")
    spec = build(tmp_path, ["--save-dir", "mine", "--from_resume", "1"])
    assert spec.save_dir == str(Path.cwd() / "mine")
    assert "--from_resume" not in spec.train_args[:-2]


def test_other_module_gets_the_folders_too(tmp_path: Path) -> None:
    arguments, save_dir, on_cpu = complete_train_args(["--x"], tmp_path, "other.module")
    assert arguments[-1] == "--x"
    assert save_dir == str(tmp_path / "out")
    assert not on_cpu


def test_secret_must_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    spec = build(tmp_path, secret_env=["TOKEN"])
    assert read_secrets(spec) == {"TOKEN": "s3cret"}
    assert "s3cret" not in spec.to_json()
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigError, match="--secret-env TOKEN"):
        read_secrets(spec)


def test_where_runs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIMIND_RUNS", raising=False)
    assert runs_folder(None, {}) == Path.cwd() / "runs"
    monkeypatch.setenv("MINIMIND_RUNS", "/from/env")
    assert runs_folder(None, {}) == Path("/from/env")
    assert runs_folder(None, {"runs_dir": "/from/profile"}) == Path("/from/profile")
    assert runs_folder("/given", {"runs_dir": "/from/profile"}) == Path("/given")
