"""What a runtime is told: the words around a rank's command."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from launcher.containers.runtimes import command_prefix, srun_options
from launcher.spec.job_spec import JobSpec


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
