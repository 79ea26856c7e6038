"""Two nodes of two ranks under real Slurm, each rank in a container, interrupted in both ways."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from launcher.containers.image import import_image, read_origin
from tests.e2e.docker.engine import Engine
from tests.e2e.lab import Lab, poll
from tests.needs import lacks
from tests.runs import STATE_KEYS, Run, differences

SIZE = ("--nodes", "2", "--gpus", "2")
PYTHON = "/opt/minimind/bin/python3"
ONE_THREAD = ("--env", "OMP_NUM_THREADS=1")
STEPS = 600


@pytest.fixture(scope="module")
def flags(tiny_flags: dict[str, Any]) -> dict[str, Any]:
    """A run that lasts long enough to be interrupted twice."""
    changes = {"epochs": 10000, "max_steps": STEPS, "accumulation_steps": 1}
    return {**tiny_flags, **changes, "save_interval": 100, "record_rows": False}


@pytest.fixture(scope="module")
def plain(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same training without containers, Slurm or interruption."""
    folder = tmp_path_factory.mktemp("plain")
    return Run(folder, flags, {"OMP_NUM_THREADS": "1"}).complete(4)


@pytest.fixture
def lab(slurm: Lab, engine: Engine) -> Lab:
    """The cluster, whose nodes have this engine's client first on their path."""
    path = f"{Path(engine.client).parent}{os.pathsep}{engine.environment['PATH']}"
    extra = {"PATH": path, "USER": "root"}
    if "DOCKER_HOST" in engine.environment:
        extra["DOCKER_HOST"] = engine.environment["DOCKER_HOST"]
    return dataclasses.replace(slurm, environment=slurm.environment | extra)


@pytest.fixture(scope="session")
def unpacked(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image as a folder for charliecloud, made by the launcher from the same image."""
    if not shutil.which("ch-run"):
        from tests.e2e.docker.engine import NoDocker, install

        try:
            install("charliecloud")
        except NoDocker as error:
            lacks(f"no charliecloud: {error}")
    folder = tmp_path_factory.mktemp("unpacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(engine.client).parent}{os.pathsep}{os.environ['PATH']}")
        if "DOCKER_HOST" in engine.environment:
            patch.setenv("DOCKER_HOST", engine.environment["DOCKER_HOST"])
        target, origin = import_image(image, "charliecloud", folder / "minimind")
    expected = engine.ok("image", "inspect", "--format", "{{.Id}}", image).strip()
    assert origin.digest == expected
    assert read_origin(target) == origin
    yield str(target)
    shutil.rmtree(folder, ignore_errors=True)


def interrupt_twice(
    lab: Lab, name: str, flags: dict[str, Any], options: tuple[str, ...], data: Path
) -> None:
    """Runs to the end, through a preemption by SIGTERM alone and a SIGKILL of every rank."""
    lab.devcluster("up", "--grace-time", "0", "--kill-wait", "30")
    words = []
    for flag, value in flags.items():
        if flag != "from_resume" and value is not False:
            words += [f"--{flag}", str(value)]
    job = lab.submit(name, *SIZE, "--mount", f"{data}:{data}", *options, train=tuple(words))
    lab.wait_for_step(name, 20)
    lab.preempt(name, 1)
    lab.wait_for_step(name, max(lab.steps(name)) + 110, attempt=2)
    kill_ranks(lab, job)
    poll(lambda: len(lab.causes(name)) >= 2, "the killed attempt to end", 120)
    lab.wait(name, seconds=300)


def kill_ranks(lab: Lab, job: str) -> None:
    """SIGKILL to every process of the job's steps; to the job itself it would be the end."""
    listed = lab.command("squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i")
    steps = [step for step in listed.stdout.split() if step.rpartition(".")[2].isdigit()]
    assert steps, listed.stderr
    lab.command("scancel", "--signal=KILL", *steps)


def assert_bit_identical(lab: Lab, name: str, plain: Run) -> None:
    assert lab.causes(name)[0] == "preempted"
    assert lab.causes(name)[-1] == "done"
    assert lab.causes(name)[1] not in ("preempted", "done"), "the SIGKILL came too late"
    folder = lab.runs / name
    (checkpoint,) = (p for p in (folder / "checkpoints").glob("*.pt") if p.name.count(".") == 1)
    mine, theirs = torch.load(checkpoint, weights_only=True), plain.state()
    for key in STATE_KEYS:
        assert differences(mine[key], theirs[key], key) == []
    (weights,), (expected,) = (folder / "out").glob("*.pth"), plain.save_dir.glob("*.pth")
    ours = torch.load(weights, weights_only=True)
    assert differences(ours, torch.load(expected, weights_only=True)) == []


def test_inside_docker(
    lab: Lab,
    engine: Engine,
    image: str,
    flags: dict[str, Any],
    plain: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    look = ("run", "--rm", "--network=none", "--entrypoint=", image, "sh", "-c")
    assert engine.run(*look, "command -v scontrol || command -v srun").stdout == ""
    options = ("--image", image, "--container", "docker", *ONE_THREAD)
    interrupt_twice(lab, "in-docker", flags, options, tmp_path_factory.getbasetemp())
    assert_bit_identical(lab, "in-docker", plain)
    assert engine.containers(f"minimind.run={lab.runs / 'in-docker'}") == []


def test_inside_charliecloud(
    lab: Lab,
    unpacked: str,
    flags: dict[str, Any],
    plain: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    options = ("--image", unpacked, "--container", "charliecloud", "--python", PYTHON, *ONE_THREAD)
    interrupt_twice(lab, "in-charliecloud", flags, options, tmp_path_factory.getbasetemp())
    assert_bit_identical(lab, "in-charliecloud", plain)
