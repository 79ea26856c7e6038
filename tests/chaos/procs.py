"""Ranks that ``minimind pretrain --procs`` starts, as the image does: a parent and its children.

Nobody but the parent sees how a rank ends, so its exit code is the one that is judged; a rank
that signal N ended gives 128 + N, which counts here as -N, as in the other layers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind.errors import EXIT_USER_ERROR
from minimind.rundir import env
from tests.chaos.places import sitecustomize as places
from tests.chaos.plain import PlainLayer, PlainRun
from tests.chaos.target import (
    PACE,
    Ending,
    Lost,
    Settings,
    environment_of,
    happens,
    parent,
    processes,
    training_flags,
    wait_for_end,
)
from tests.e2e.lab import lab_environment
from tests.shim import preload

ORPHAN_SECONDS = 60.0
"""How long ranks may live on without their parent, the machine being busy."""


def as_popen_code(code: int) -> int:
    """-N for 128 + N, which is how a parent passes on that signal N ended a rank."""
    return 128 - code if code > 128 else code


class ProcsRun(PlainRun):
    """See :class:`tests.chaos.target.Target`."""

    start_seconds = 8.0
    gives_up_seconds = 240.0

    def __init__(self, folder: Path, flags: dict[str, Any], world_size: int) -> None:
        super().__init__(folder, flags, world_size)
        self.settings = Settings(folder.with_suffix(".faults"), folder)
        places.set_pace(self.order, PACE)
        self.run.environ["PYTHONPATH"] = str(Path(places.__file__).parent)
        self.process: subprocess.Popen[bytes] | None = None
        self._earlier: set[int] = set()

    def ensure_running(self, faults: dict[str, str] | None = None) -> None:
        if faults:
            self.rest()
        if self.process is not None and self.process.poll() is None:
            return
        self.settle()
        self.settings.write(faults or {})
        self._events_before = len(self._events.lines())
        self._earlier = {record["pid"] for record in self._rows.lines()}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """The parent, as a shell or tini starts it."""
        command = [sys.executable, "-m", "minimind", "pretrain", *self.run.argv()]
        with (self.folder / "output.0").open("ab") as output:
            return subprocess.Popen(
                [*command, "--procs", str(self.world_size)],
                cwd=self.folder,
                env=lab_environment() | preload() | self.run.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def be_refused(self) -> None:
        self.ensure_running()
        self.settle()
        if self.endings[-1].codes != (EXIT_USER_ERROR,):
            raise Lost(f"not refused: {self.endings[-1]}\n{self.output()}")

    def start_another(self) -> list[int]:
        return [self._start().wait(self.gives_up_seconds)]

    def is_running(self) -> bool:
        return bool(self.parents() or self.ranks())

    def steps(self) -> int:
        return sum(record["pid"] not in self._earlier for record in self._rows.lines())

    def parents(self) -> list[int]:
        """The process that starts and watches the ranks, while it lives."""
        if self.process is None or self.process.poll() is not None:
            return []
        return [self.process.pid]

    def ranks(self) -> list[int]:
        mine = f"{env.EVENTS}={self.folder / 'events.jsonl'}".encode()
        rank = f"{env.RANK}=".encode()
        found = set()
        for pid in processes():
            variables = environment_of(pid)
            if mine in variables and any(name.startswith(rank) for name in variables):
                found.add(pid)
        # What a rank has forked, its loader workers, looks like it.
        return [pid for pid in found if parent(pid) not in found]

    def settle(self) -> None:
        if self.process is None:
            return
        try:
            wait_for_end(
                lambda: not self.parents(),
                lambda: len(self._rows.lines()),
                "the parent's end",
                self.gives_up_seconds,
            )
        except Lost:
            raise Lost(self._where_it_hangs()) from None
        if not happens(lambda: not self.ranks(), ORPHAN_SECONDS):
            raise Lost(f"ranks outlive their parent\n{self._where_it_hangs()}")
        code = as_popen_code(self.process.wait())
        self.endings.append(Ending(codes=(code,)))
        if code in (0, 75):
            self._insist_on_a_cause(code)
        self.process = None

    def complete(self) -> None:
        places.set_pace(self.order, 0)
        super().complete()

    def kill(self) -> None:
        """End whatever lives, at once."""
        for pid in (*self.parents(), *self.ranks()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


class ProcsLayer(PlainLayer):
    """Process trees on this machine, each with its checkpoints on a small disk of its own."""

    name = "procs"
    world_sizes = (2,)
    faults = (6, 10)
    kind = ProcsRun


@contextlib.contextmanager
def layer(folder: Path) -> Iterator[ProcsLayer]:
    """Runs of a parent that starts two ranks."""
    yield ProcsLayer(folder, training_flags(folder, epochs=8))
