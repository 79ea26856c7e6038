"""A file system that behaves to each of its mounts as NFS does to a client.

Many mounts of one folder see each other's changes late: names and attributes are remembered for a
while, what is written reaches the server when a file is synced or closed, and what another client
has removed is stale. Made of ``/dev/fuse`` alone (:mod:`tests.nfs.protocol`); needs root.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


@dataclass(frozen=True)
class Behaviour:
    """What a mount does from now on."""

    seconds: float = 3.0
    """How long names and attributes are remembered (``acregmax``, ``acdirmax``)."""
    links: bool = True
    """Whether the server has hard links."""
    write_error: int = 0
    """What ``write`` answers."""
    sync_error: int = 0
    """What ``fsync`` and ``close`` answer of what was written; it is lost."""
    close_error: int = 0
    """What only ``close`` answers."""
    sync_seconds: float = 0.0
    """What each ``fsync`` takes longer."""
    loses: bool = False
    """What was written and has not reached the server never does, and nobody hears of it."""
    silent: bool = False
    """The server does not answer: whoever asks waits."""
    epoch: int = 0
    """Another number: the server knows none of the handles any more that it has given out."""


class Mount:
    """One client's mount of ``server`` at ``place``."""

    def __init__(self, server: Path, place: Path, behaviour: Behaviour) -> None:
        self.place = place
        self._control = place.with_name(f"{place.name}.json")
        self.behaviour = behaviour
        self.behave()
        place.mkdir()
        words = ["-m", "tests.nfs.client", str(server), str(place), str(self._control)]
        self.process = subprocess.Popen([sys.executable, *words], cwd=REPOSITORY)
        end = time.monotonic() + START_SECONDS
        while not os.path.ismount(place):
            if self.process.poll() is not None or time.monotonic() > end:
                raise OSError(errno.ENODEV, "the file system did not come", str(place))
            time.sleep(0.01)

    def behave(self, **changes: float) -> None:
        """Change how the mount behaves, from the next call on."""
        self.behaviour = replace(self.behaviour, **changes)  # type: ignore[arg-type]
        fresh = self._control.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self.behaviour)))
        os.replace(fresh, self._control)

    @contextlib.contextmanager
    def behaving(self, **changes: float) -> Iterator[None]:
        """The same for as long as the context lasts."""
        before = self.behaviour
        self.behave(**changes)
        try:
            yield
        finally:
            self.behave(**asdict(before))

    def close(self) -> None:
        """Take it away, whoever uses it."""
        subprocess.run(["umount", "--lazy", str(self.place)], check=False)
        self.process.terminate()
        self.process.wait()


def available() -> bool:
    """Whether this process may mount such a thing."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)
