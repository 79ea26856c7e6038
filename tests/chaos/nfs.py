"""Ranks on nodes of their own: each sees the run's folder through a mount of its own (tests/nfs).

From attempt to attempt the ranks move on to other nodes, whose mounts remember what was there
when a rank was last on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from minimind.rundir import env
from minimind.rundir.events import Kind, append_event
from tests.chaos.plain import (
    NODES,
    PlainLayer,
    PlainRun,
    forked_with_shim,
)
from tests.chaos.target import processes_at, training_flags
from tests.nfs import Behaviour, Mount, available

REMEMBERED_SECONDS = (0.5, 3.0, 3.0, 10.0, 30.0)
"""As Linux has it: 3 to 60 for files, 30 to 60 for folders."""


class NfsRun(PlainRun):
    """See :class:`tests.chaos.target.Target`."""

    gives_up_seconds = 150.0

    def __init__(self, folder: Path, flags: dict[str, Any], world_size: int) -> None:
        super().__init__(folder, flags, world_size)
        self.mounts: Sequence[Mount] = ()
        self.attempt = 0
        self._is_new = False
        self.refuses_in = 0
        """The attempt in which the server refused writes: it may end without a word."""

    def mounts_in_use(self) -> list[Mount]:
        """Those of the attempt under way, by rank."""
        return [
            self.mounts[(self.attempt + rank) % len(self.mounts)] for rank in range(self.world_size)
        ]

    def start(self) -> list[Any]:
        self.attempt += 1
        self.run.environ[env.ATTEMPT] = str(self.attempt)
        # As the launcher does, which looks at the folder from a host of its own.
        append_event(self.folder / "events.jsonl", Kind.ATTEMPT_STARTED, attempt=self.attempt)
        places = [str(mount.place) for mount in self.mounts_in_use()]
        self.run.environ[NODES] = "\n".join([str(self.folder), *places])
        return super().start()

    def be_refused(self) -> None:
        """On nodes that have seen nothing, and so have those that come after them."""
        self._forget()
        super().be_refused()
        self._is_new = True

    def ensure_running(self, faults: dict[str, str] | None = None) -> None:
        if self._is_new:
            self._forget()
        super().ensure_running(faults)

    def _forget(self) -> None:
        """Let no node know anything of earlier attempts."""
        for mount in self.mounts:
            mount.behave(epoch=mount.behaviour.epoch + 1)
        self._is_new = False

    def _insist_on_a_cause(self, code: int) -> None:
        if self.refuses_in != self.attempt:
            super()._insist_on_a_cause(code)

    def leftovers(self) -> list[str]:
        ours = {mount.process.pid for mount in self.mounts}
        return [f"process {pid}" for pid in processes_at(self.folder) if pid not in ours]


class NfsLayer(PlainLayer):
    """Runs of one to three ranks, and one node more than they need."""

    name = "nfs"
    world_sizes = (1, 2, 2, 3)
    faults = (6, 10)

    @contextlib.contextmanager
    def make(self, name: str, flags: dict[str, Any], world_size: int) -> Iterator[NfsRun]:
        """A run whose folder is the server's."""
        rng = Random(name)
        behaviour = Behaviour(rng.choice(REMEMBERED_SECONDS), links=rng.random() < 0.7)
        run = NfsRun(self.folder / name, flags, world_size)
        with contextlib.ExitStack() as stack:
            mounts = []
            for node in range(world_size + 1):
                place = self.folder / f"{name}.node{node}"
                mounts.append(Mount(run.folder, place, behaviour))
                stack.callback(mounts[-1].close)
            run.mounts = mounts
            stack.callback(run.kill)
            yield run


@contextlib.contextmanager
def layer(folder: Path) -> Iterator[NfsLayer]:
    """Runs whose ranks are forked from a server that has the shim.

    Raises:
        SystemExit: this process may not mount file systems.
    """
    if not available():
        raise SystemExit("the layer nfs mounts file systems: it needs root and /dev/fuse")
    with forked_with_shim():
        yield NfsLayer(folder, training_flags(folder, epochs=10))
