"""What a runtime is told: the words around a rank's command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.containers.runtimes import RUNTIMES, command_prefix, detect, programs, srun_options
from launcher.spec.devices import MAKERS
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import CONTAINERS


@pytest.mark.parametrize(
    "image, told",
    [
        ("registry.example.org/team/mm:1", "registry.example.org#team/mm:1"),
        ("registry.example.org#team/mm:1", "registry.example.org#team/mm:1"),
        ("host:5000/mm", "host:5000#mm"),
        ("team/mm:1", "team/mm:1"),
        ("mm", "mm"),
        ("docker://ghcr.io/team/mm:1", "docker://ghcr.io#team/mm:1"),
        ("dockerd://mm:1", "dockerd://mm:1"),
        ("/shared/my.images/mm.sqsh", "/shared/my.images/mm.sqsh"),
    ],
)
def test_pyxis_takes_the_registry_apart_by_a_hash(
    image: str, told: str, make_spec: Callable[..., JobSpec]
) -> None:
    options = srun_options(make_spec(image=image, container="pyxis"))
    assert options[0] == f"--container-image={told}"


@pytest.mark.parametrize(
    "image, told",
    [
        ("registry.example.org/team/mm:1", "docker://registry.example.org/team/mm:1"),
        ("mm", "docker://mm"),
        ("docker://mm", "docker://mm"),
        ("oras://host/mm", "oras://host/mm"),
        ("docker-daemon:mm:latest", "docker-daemon:mm:latest"),
        ("/shared/mm.sif", "/shared/mm.sif"),
    ],
)
def test_apptainer_takes_a_reference_by_its_scheme(
    image: str, told: str, make_spec: Callable[..., JobSpec]
) -> None:
    assert command_prefix(make_spec(image=image, container="apptainer"))[-1] == told


def test_under_podman_a_rank_has_the_users_number_on_both_sides(
    make_spec: Callable[..., JobSpec],
) -> None:
    words = command_prefix(make_spec(image="mm:1", container="podman", user="1000:100"))
    assert {"--userns=keep-id", "--user=1000:100", "--env=HOME=/tmp"} <= set(words)


def test_root_needs_no_mapping_of_users(make_spec: Callable[..., JobSpec]) -> None:
    words = command_prefix(make_spec(image="mm:1", container="podman", user="0:0"))
    assert "--user=0:0" in words
    assert "--userns=keep-id" not in words


@pytest.mark.parametrize(
    "targets, there, needed",
    [
        (["/shared/runs/demo", "/home/me/project"], ["/shared/runs/demo"], True),
        (["/shared/runs/demo"], ["/shared/runs/demo"], False),
        (["/tmp/demo"], [], False),
        (["/tmpfs/demo"], [], True),
    ],
)
def test_charliecloud_makes_mount_points_that_its_image_lacks(
    targets: list[str],
    there: list[str],
    needed: bool,
    make_spec: Callable[..., JobSpec],
    tmp_path: Path,
) -> None:
    for target in there:
        (tmp_path / target[1:]).mkdir(parents=True)
    run_dir, workdir = targets[0], targets[-1]
    spec = make_spec(
        image=str(tmp_path), container="charliecloud", run_dir=run_dir, workdir=workdir
    )
    assert ("--write-fake" in command_prefix(spec)) == needed


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_an_engine_gets_the_device_files_that_its_node_has(
    engine: str, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    """The patterns are the node's to expand: nobody else knows how many devices it has."""
    (tmp_path / engine).write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (tmp_path / engine).chmod(0o755)
    # Files that any Linux has; nothing begins as the last one does.
    files = ["/dev/tty[0-2]", "/dev/null", "/dev/no-such-device[0-9]*"]
    options = {"device_files": files, "container_flags": {engine: ["--flag of mine"]}}
    spec = make_spec(container=engine, image="mm:1", device_options=options)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        command_prefix(spec), env=environment, capture_output=True, text=True, check=True
    )
    words = done.stdout.splitlines()
    assert (words[0], words[-1]) == ("run", "mm:1")
    given = [word.partition("=")[2] for word in words if word.startswith("--device=")]
    here = [name for name in ("/dev/tty0", "/dev/tty1", "/dev/tty2") if os.path.exists(name)]
    assert sorted(given) == sorted([*(here or files[:1]), *files[1:]])
    own = {str(group) for group in (os.getegid(), *os.getgroups())}
    groups = {word.partition("=")[2] for word in words if word.startswith("--group-add=")}
    assert groups == ({"keep-groups"} if engine == "podman" else own)
    assert "--flag of mine" in words


def test_cpu_ranks_get_no_device(make_spec: Callable[..., JobSpec]) -> None:
    for maker in MAKERS:
        for name in RUNTIMES:
            spec = make_spec(container=name, image="/mm", device=maker, request_gpus=False)
            text = " ".join([*srun_options(spec), *command_prefix(spec)])
            flags = [word for row in MAKERS.values() for word in row.container_flags.get(name, ())]
            assert not any(word in text for word in ("/dev/", "Ascend", *flags)), (maker, name)


def test_every_name_of_the_option_has_its_row() -> None:
    assert ("none", *RUNTIMES) == CONTAINERS


@pytest.mark.parametrize(
    "image, here, found",
    [
        (None, "docker", "none"),
        ("/shared/mm.sqsh", "docker", "enroot"),
        ("/shared/mm.squashfs", "docker", "enroot"),
        ("/shared/mm.sif", "docker", "apptainer"),
        ("mm:1", "docker enroot", "pyxis"),
        ("mm:1", "docker apptainer", "apptainer"),
        ("mm:1", "podman ch-run", "podman"),
        ("mm:1", "ch-run", "docker"),
        ("mm:1", "", "docker"),
        ("/", "ch-run docker", "charliecloud"),
        ("/", "docker", "docker"),
    ],
)
def test_what_auto_means(image: str | None, here: str, found: str) -> None:
    assert detect(image, lambda program: program if program in here.split() else None) == found


def test_doctor_looks_for_every_program_once() -> None:
    expected = ["enroot", "apptainer", "singularity", "docker", "podman", "ch-run"]
    assert programs() == expected
