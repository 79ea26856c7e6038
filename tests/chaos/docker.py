"""Runs under submitit's local executor whose ranks have a Docker container each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.local import LaunchedRun, places, profile
from tests.chaos.target import command_line, training_flags
from tests.e2e.docker.engine import Engine, docker_engine
from tests.e2e.lab import Lab, lab_environment

IMAGE_VARIABLE = "MINIMIND_TEST_IMAGE"
"""Names the image; ``make build-image`` makes one."""


class DockerRun(LaunchedRun):
    """See :class:`tests.chaos.target.Target`."""

    suspension_seconds = 5.0

    def __init__(
        self,
        lab: Lab,
        engine: Engine,
        name: str,
        flags: dict[str, Any],
        world_size: int,
        options: tuple[str, ...],
    ) -> None:
        super().__init__(lab, name, flags, world_size, options)
        self.engine = engine

    def containers(self) -> list[str]:
        """The run's containers, running or not."""
        return self.engine.containers(f"minimind.run={self.folder}")

    def clients(self) -> list[int]:
        """The docker clients that wait for a rank."""
        mark = f"LAUNCHER_ATTEMPT={self.launched.current_attempt()}"
        return [pid for pid in self.marked(mark) if command_line(pid).startswith("docker run")]

    def leftovers(self) -> list[str]:
        return super().leftovers() + [f"container {name}" for name in self.containers()]

    def kill(self) -> None:
        super().kill()
        if found := self.containers():
            self.engine.run("rm", "--force", *found)


@dataclass
class DockerLayer:
    """An engine, an image and a folder for runs."""

    lab: Lab
    engine: Engine
    image: str
    flags: dict[str, Any]
    name: str = "docker"
    world_sizes: tuple[int, ...] = (1, 2)
    faults: tuple[int, int] = (4, 7)

    @contextlib.contextmanager
    def make(self, name: str, flags: dict[str, Any], world_size: int) -> Iterator[DockerRun]:
        """A run that has not been submitted."""
        data, cache = self.lab.folder, self.lab.folder / f"{name}.cache"
        cache.mkdir()
        options = (
            *("--cluster", "local", "--gpus", str(world_size)),
            *profile(self.lab),
            *places(self.lab, name),
            *("--image", self.image, "--container", "docker", "--env", "OMP_NUM_THREADS=1"),
            *("--mount", f"{data}:{data}"),
        )
        if "tracker" in flags:
            # The image has no TensorBoard.
            flags = flags | {"tracker": ""}
        run = DockerRun(self.lab, self.engine, name, flags, world_size, options)
        try:
            yield run
        finally:
            run.kill()


@contextlib.contextmanager
def layer(folder: Path) -> Iterator[DockerLayer]:
    """Runs in containers of the engine that answers here, or of one that is started for them.

    Raises:
        SystemExit: no image is named.
    """
    image = os.environ.get(IMAGE_VARIABLE)
    if not image:
        raise SystemExit(f"set {IMAGE_VARIABLE} to an image; make build-image makes one")
    flags = training_flags(folder, epochs=8)
    with docker_engine(folder) as engine, layer_of(folder, engine, image, flags) as made:
        yield made


@contextlib.contextmanager
def layer_of(
    folder: Path, engine: Engine, image: str, flags: dict[str, Any]
) -> Iterator[DockerLayer]:
    """The same where engine and image are there."""
    path = f"{Path(engine.client).parent}{os.pathsep}{os.environ['PATH']}"
    extra = {"PATH": path, "XDG_CONFIG_HOME": str(folder / "config")}
    if "DOCKER_HOST" in engine.environment:
        extra["DOCKER_HOST"] = engine.environment["DOCKER_HOST"]
    yield DockerLayer(Lab(folder, lab_environment() | extra), engine, image, flags)
