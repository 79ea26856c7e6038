"""Runs under a real Slurm of two nodes on this machine, made anew for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.slurm import client as slurm
from launcher.slurm.parse import JobInfo
from tests.chaos.local import LaunchedRun, places, profile, shim
from tests.chaos.target import command_line, processes, training_flags, wait_for
from tests.e2e.lab import Lab, lab_environment

CLUSTER = ("--nodes", "2", "--gpus", "8", "--slurmd-timeout", "10", "--requeue-delay", "5")


class SlurmRun(LaunchedRun):
    """See :class:`tests.chaos.target.Target`."""

    start_seconds = 10.0
    suspension_seconds = 5.0
    gives_up_seconds = 400.0
    supervisor_words = "launcher.supervise"

    def __init__(
        self, layer: SlurmLayer, name: str, flags: dict[str, Any], options: tuple[str, ...]
    ) -> None:
        super().__init__(layer.lab, name, flags, 2, options)
        self.layer = layer

    def jobs(self) -> dict[str, JobInfo] | None:
        return slurm.job_states()

    def leftovers(self) -> list[str]:
        """Without what the next attempt would remove.

        Its node does not know whether a command on this host lives, and waits for a minute.
        """
        self.launched.remove_leftovers()
        return super().leftovers()

    def rest(self) -> None:
        """A job that is stopped is started again by Slurm: only a cancelled one is not."""
        self.lab.launcher("cancel", self.name)
        # A supervisor that is struck just now puts no end on record.
        ended = ("CANCELLED", "DONE", "FAILED", "INTERRUPTED")
        wait_for(lambda: self.state() in ended, "the cancelled end", self.gives_up_seconds)
        wait_for(lambda: not self.ranks(), "the ranks' end", self.gives_up_seconds)

    def supervisor(self) -> int | None:
        """The process of the batch script that watches the ranks."""
        mark = f"launcher.supervise {self.folder}"
        return next((pid for pid in processes() if mark in command_line(pid)), None)


@dataclass
class SlurmLayer:
    """Two nodes; with namespaces each has an address of its own, and a link that can break."""

    lab: Lab
    flags: dict[str, Any]
    has_namespaces: bool
    name: str = "slurm"
    world_sizes: tuple[int, ...] = (2,)
    faults: tuple[int, int] = (4, 7)
    nodes: tuple[str, ...] = ("n1", "n2")

    def daemon(self, name: str) -> int:
        """The process of a daemon of the cluster."""
        return int((self.lab.folder / "slurm" / "pids" / f"{name}.pid").read_text())

    @contextlib.contextmanager
    def make(self, name: str, flags: dict[str, Any], world_size: int) -> Iterator[SlurmRun]:
        """A run of one rank a node that has not been submitted."""
        options = ("--nodes", "2", "--gpus", "1", *profile(self.lab), *shim(self.lab, name))
        options += tuple(places(self.lab, name))
        if self.has_namespaces:
            options += ("--env", "GLOO_SOCKET_IFNAME=eth0")
        run = SlurmRun(self, name, flags, options)
        try:
            yield run
        finally:
            self.lab.devcluster("up")
            self.lab.command("scancel", f"--user={os.getuid()}")
            run.kill()


@contextlib.contextmanager
def layer(folder: Path) -> Iterator[SlurmLayer]:
    """A cluster for as long as the context lasts."""
    flags = training_flags(folder, epochs=8)
    namespaces = os.geteuid() == 0
    options = (*CLUSTER, "--base-port", str(17000 + os.getpid() % 500 * 20))
    if namespaces:
        options += ("--netns",)
    environment = lab_environment() | {"SLURM_CONF": str(folder / "slurm" / "slurm.conf")}
    lab = Lab(folder, environment, options)
    lab.devcluster("up")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
    try:
        yield SlurmLayer(lab, flags, namespaces)
    finally:
        lab.devcluster("down")
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
