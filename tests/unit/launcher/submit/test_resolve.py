from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.containers.runtimes import srun_command
from launcher.slurm.client import Partition, Site
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from launcher.submit import resolve
from launcher.submit.resolve import (
    build_spec,
    complete_train_args,
    read_secrets,
    runs_folder,
    unseen_data,
)
from launcher.submit.submission import prepare
from minimind.config import TrainConfig, parse_args, write_config_file
from minimind.errors import ConfigError

SITE = Site(
    {
        "low": Partition("low", True, 600, nodes=4, cpus=32, gres=("gpu:8",)),
        "cpu": Partition("cpu", False, None, nodes=2, cpus=64),
        "npu": Partition("npu", False, None, nodes=2, cpus=192, gres=("npu:910b:16(S:0-7)",)),
        "mixed": Partition("mixed", False, None, nodes=2, cpus=None, gres=("gpu:8",)),
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


def test_hccl_has_a_hint_of_its_own(tmp_path: Path) -> None:
    profile = {"device": "ascend", "network_interface": "ib0", "partition": "npu"}
    spec = build(tmp_path, profile=profile, gpus=8)
    assert spec.env == {"HCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}


@pytest.mark.parametrize(
    "profile, given, said",
    [
        ({}, {"partition": "npu"}, "the nodes of partition npu have no GPUs; choose"),
        ({"device": "ascend"}, {}, "partition low have no NPUs (gres npu); choose"),
        (
            {"device": "ascend", "partition": "npu"},
            {"gpus": 17},
            "a node of partition npu has at most 16",
        ),
        (
            {"device": "ascend", "device_options": {"gres": "gpu:910b"}},
            {},
            "partition low have no NPUs (gres gpu:910b); choose",
        ),
    ],
)
def test_the_profile_says_which_resource_a_device_is(
    tmp_path: Path, profile: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        build(tmp_path, profile=profile, **given)


@pytest.mark.parametrize(
    "device, asked, fits",
    [
        ("ascend", "cuda", False),
        ("ascend", "cuda:1", False),
        ("amd", "npu", False),
        ("ascend", "npu", True),
        ("amd", "cuda", True),
        ("ascend", "cpu", True),
        (None, "npu", True),
    ],
)
def test_the_training_asks_for_a_device_that_the_site_has(
    tmp_path: Path, device: str | None, asked: str, fits: bool
) -> None:
    profile = {"device": device, "partition": "npu" if device == "ascend" else "low"}
    profile = {key: value for key, value in profile.items() if value is not None}
    if fits:
        assert build(tmp_path, ["--device", asked], profile=profile).devices
        return
    with pytest.raises(ConfigError, match=rf"--device {asked}: the profile says that this site"):
        build(tmp_path, ["--device", asked], profile=profile)


@pytest.mark.parametrize(
    "cluster, here, profile, meant",
    [
        ("local", [], {}, "nvidia"),
        ("local", ["amd"], {}, "amd"),
        ("local", ["amd"], {"device": "ascend"}, "ascend"),
        ("slurm", ["amd"], {}, "nvidia"),
    ],
)
def test_a_run_on_this_machine_takes_what_is_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: str,
    here: list[str],
    profile: dict[str, Any],
    meant: str,
) -> None:
    monkeypatch.setattr(resolve, "makers_here", lambda: here)
    options = {"name": "demo", "runs_dir": str(tmp_path)}
    assert build_spec(options, [], profile, cluster=cluster, site=None).device == meant


@pytest.mark.parametrize(
    "given, said",
    [
        ({"partition": "fast"}, "choose cpu, low, mixed, npu"),
        ({"gpus": 9}, "at most 8"),
        ({"nodes": 3, "spare_nodes": 2}, "--nodes 3 and --spare-nodes 2: partition low has 4"),
        ({"nodes": 2, "min_nodes": 3}, "cannot be more than --nodes"),
        ({"nodes": 0, "min_nodes": 0}, "must be 1 or more"),
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


def test_unknown_number_of_cpus_refuses_nothing(tmp_path: Path) -> None:
    assert build(tmp_path, partition="mixed", gpus=8, cpus_per_gpu=12).cpus_per_gpu == 12


def test_cpu_ranks_need_no_gpu_partition(tmp_path: Path) -> None:
    spec = build(tmp_path, ["--device", "cpu"], partition="cpu", gpus=2)
    assert not spec.request_gpus


def test_train_flags_are_checked_by_the_trainings_own_parser(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_siz"):
        build(tmp_path, ["--batch_siz", "3"])
    with pytest.raises(ConfigError, match="epochs"):
        build(tmp_path, ["--epochs", "many"])
    with pytest.raises(ConfigError, match=r"launcher run --procs N, launcher submit --gpus N"):
        build(tmp_path, ["--procs", "2"])


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


@pytest.fixture
def old_config(tmp_path: Path) -> Path:
    """The ``config.toml`` that a run of the launcher, ``old``, has left."""
    spec = build(tmp_path, ["--epochs", "2", "--learning_rate", "0.5"], name="old")
    prepare(spec, {})
    out = Path(spec.save_dir)
    out.mkdir()
    write_config_file(parse_args(spec.train_args), out / "config.toml")
    return out / "config.toml"


def folders(spec: JobSpec) -> dict[str, str]:
    config = parse_args(spec.train_args)
    names = ("save_dir", "checkpoint_dir", "from_resume")
    return {name: getattr(config, name) for name in names}


def own_folders(run: Path) -> dict[str, str]:
    return {
        "save_dir": str(run / "out"),
        "checkpoint_dir": str(run / "checkpoints"),
        "from_resume": "auto",
    }


def test_config_of_another_run_is_repeated_in_a_folder_of_its_own(
    tmp_path: Path, old_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = build(tmp_path, ["--config", str(old_config)], name="new")
    assert folders(spec) == own_folders(tmp_path / "new")
    assert spec.save_dir == str(tmp_path / "new" / "out")
    assert parse_args(spec.train_args).learning_rate == 0.5
    (said,) = capsys.readouterr().err.splitlines()
    assert "run old" in said
    # The runs folder may have another name here than where the old run was submitted.
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path)
    own = build(alias, ["--config", str(old_config)], name="old")
    assert own.save_dir == str(tmp_path / "old" / "out")
    assert capsys.readouterr().err == "", "a run that goes on keeps its folders"


def test_what_such_a_config_says_of_folders_is_the_old_runs_as_a_whole(
    tmp_path: Path, old_config: Path
) -> None:
    """Its run had an --save_dir of its user's own: a new run must not write there either."""
    elsewhere = tmp_path / "elsewhere"
    spec = build(tmp_path, ["--config", str(old_config), "--save_dir", str(elsewhere)], name="old")
    write_config_file(parse_args(spec.train_args), old_config)
    spec = build(tmp_path, ["--config", str(old_config)], name="new")
    assert folders(spec) == own_folders(tmp_path / "new")


def test_folders_that_are_no_runs_are_the_users_choice(tmp_path: Path, old_config: Path) -> None:
    mine = {"save_dir": str(tmp_path / "a"), "checkpoint_dir": str(tmp_path / "b")}
    # Some project's own spec.json beside them makes no run of them.
    (tmp_path / "spec.json").write_text("{}")
    file = tmp_path / "mine.toml"
    write_config_file(TrainConfig(**mine, from_resume="1"), file)
    assert folders(build(tmp_path, ["--config", str(file)])) == mine | {"from_resume": "1"}
    words = [word for name, value in mine.items() for word in (f"--{name}", value)]
    spec = build(tmp_path, ["--config", str(old_config), *words, "--from-resume=0"], name="new")
    assert folders(spec) == mine | {"from_resume": "0"}


def test_new_run_may_be_started_from_inside_an_old_one(
    tmp_path: Path,
    old_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path / "old")
    spec = build(tmp_path, ["--epochs", "1"], name="new")
    assert folders(spec) == own_folders(tmp_path / "new")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flag", ["--save_dir", "--checkpoint-dir"])
def test_another_runs_folder_is_not_taken(tmp_path: Path, old_config: Path, flag: str) -> None:
    for folder in (tmp_path / "old", tmp_path / "old" / "out", tmp_path / "old" / "new" / "er"):
        with pytest.raises(ConfigError, match=r"--\w+_dir .* run old; leave it out"):
            build(tmp_path, [flag, str(folder)], name="new")
    build(tmp_path, [flag, str(tmp_path / "old" / "here")], name="old")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder and the home, with images in both."""
    folder = tmp_path / "here"
    for name in ("here", "home"):
        (tmp_path / name / "sandbox").mkdir(parents=True)
        (tmp_path / name / "venv" / "bin").mkdir(parents=True)
        for file in ("mm.sif", "mm.sqsh", "venv/bin/python"):
            (tmp_path / name / file).touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "image, runtime, found",
    [
        ("mm.sif", "auto", "here/mm.sif"),
        ("./mm.sqsh", "pyxis", "here/mm.sqsh"),
        ("../home/mm.sqsh", "enroot", "home/mm.sqsh"),
        ("~/mm.sif", "auto", "home/mm.sif"),
        ("sandbox", "apptainer", "here/sandbox"),
        ("~/sandbox", "charliecloud", "home/sandbox"),
    ],
)
def test_image_file_is_found_wherever_the_ranks_start(
    image: str, runtime: str, found: str, images: Path, tmp_path: Path
) -> None:
    spec = build(tmp_path, image=image, container=runtime)
    assert spec.image == str(tmp_path / found)
    assert str(tmp_path / found) in " ".join(srun_command(spec))


@pytest.mark.parametrize("runtime", ["docker", "podman", "pyxis"])
@pytest.mark.usefixtures("images")
def test_folder_of_an_images_name_is_not_the_image(tmp_path: Path, runtime: str) -> None:
    assert build(tmp_path, image="sandbox", container=runtime).image == "sandbox"


@pytest.mark.parametrize(
    "image, runtime, said",
    [
        ("registry.example.org/mm:1", "enroot", "launcher image import registry.example.org/mm:1"),
        ("sandbox", "enroot", "launcher image import sandbox"),
        ("~/missing.sif", "apptainer", "no such file"),
        ("missing", "charliecloud", "no such file"),
        ("./sandbox", "pyxis", "pyxis starts a file"),
        ("./mm.sif", "docker", "docker knows images by name"),
    ],
)
@pytest.mark.usefixtures("images")
def test_image_that_the_runtime_cannot_start(
    image: str, runtime: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"--image {image}: .*{said}"):
        build(tmp_path, image=image, container=runtime)


@pytest.mark.parametrize(
    "python, found",
    [
        ("venv/bin/python", "here/venv/bin/python"),
        ("~/venv/bin/python", "home/venv/bin/python"),
        ("../home/venv/bin/python", "home/venv/bin/python"),
    ],
)
def test_python_is_found_wherever_the_ranks_start(
    python: str, found: str, images: Path, tmp_path: Path
) -> None:
    assert build(tmp_path, python=python).python == str(tmp_path / found)
    assert build(tmp_path, profile={"python": python}).python == str(tmp_path / found)


@pytest.mark.usefixtures("images")
def test_python_of_the_path_or_the_image_is_taken_as_it_is(tmp_path: Path) -> None:
    assert build(tmp_path, python="python3.12").python == "python3.12"
    # The nodes, or the image, may have what this machine has not.
    assert build(tmp_path, python="/nowhere/python").python == "/nowhere/python"
    inside = build(tmp_path, python="built/python", image="mm", container="docker").python
    assert inside == str(tmp_path / "here" / "built" / "python")
    with pytest.raises(ConfigError, match="--python venv/bin/pythom: no such file"):
        build(tmp_path, python="venv/bin/pythom")


def test_data_that_this_machine_does_not_have_is_named(
    tmp_path: Path, make_spec: Callable[..., JobSpec]
) -> None:
    here, gone = tmp_path / "here.jsonl", tmp_path / "gone.jsonl"
    here.touch()

    def unseen(*words: object) -> list[str]:
        return unseen_data(make_spec(train_args=("--data_path", *map(str, words))))

    assert unseen(here, f"{tmp_path}/h*.jsonl") == []
    assert unseen(here, gone) == [str(gone)]
    assert unseen(f"{here}:0.7", f"{gone}:0.3") == [str(gone)]
    assert unseen(f"{tmp_path}/*.parquet") == [f"{tmp_path}/*.parquet"]
    docker = {"container": "docker", "image": "mm:1"}
    train = ("--data_path", str(gone))
    assert unseen_data(make_spec(train_args=train, **docker)) == [], "the image may have it"


def test_train_flags_are_refused_at_submission_as_at_the_start(tmp_path: Path) -> None:
    for words, hint in (
        (["--use_wandb", "--wandb_project", "My Project"], "SwanLab takes 1 to 100"),
        (["--use_compile", "1"], "--use_compile is --compile on"),
    ):
        with pytest.raises(ConfigError, match=hint):
            complete_train_args(words, tmp_path, TRAIN_MODULE)
