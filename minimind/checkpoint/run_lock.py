"""One run at a time per checkpoint in its folder, and per folder of records.

``flock`` is not to be had on every network file system, and a lost node cannot release
it. So the lock is a file with its owner's name in it, which the owner touches now and
then. It may be taken over from an owner that is gone, and from an earlier attempt of the
same job or of the same run of the launcher: after a node failure Slurm starts the job elsewhere
while a rank of the lost node may still run, and nobody sees into a container that was killed.
The earlier owner finds out before its next save, and stops.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minimind.errors import ConfigError, MiniMindError
from minimind.rundir import env
from minimind.rundir.events import BEAT_SECONDS, SILENT_SECONDS
from minimind.system.process import boot_id, is_alive, pid_namespace, start_ticks
from minimind.system.validators import is_whole

log = logging.getLogger(__name__)


class LockLostError(MiniMindError):
    """Another run has taken over the folder; this one must not write any more."""


def this_owner() -> dict[str, Any]:
    """Who this process is: host and process, and which attempt of which job or run it may be."""
    return {
        "token": uuid.uuid4().hex,
        "host": os.uname().nodename,
        "boot": boot_id(),
        "pid_namespace": pid_namespace(),
        "pid": os.getpid(),
        "started": start_ticks(os.getpid()),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        # A run may go through several jobs, and on one machine through none.
        "run": os.environ.get(env.EVENTS, ""),
        "attempt": env.attempt() or int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


class FolderLock:
    """Holds ``path`` from :meth:`acquire` to :meth:`release`.

    Args:
        path: the lock file; its folder must exist.
        flag: what names the folder, for who is refused.
        stale_seconds: how long an owner on another machine may be silent.
    """

    def __init__(
        self,
        path: Path,
        *,
        flag: str = "checkpoint_dir",
        stale_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.path = path
        self.flag = flag
        self.owner = this_owner()
        self.stale_seconds = stale_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, check: Callable[[], None] = lambda: None) -> None:
        """Take the lock, waiting only as long as it takes to know whether its owner lives.

        Args:
            check: called while waiting; may raise to give up.

        Raises:
            ConfigError: a living run holds it; the message names it.
            OSError: the folder cannot be written.
        """
        first_beat: int | None = None
        while not self._create():
            found = self._read()
            beat = self._beat()
            if found is None or beat is None:
                continue
            if first_beat is None:
                first_beat = beat
            if self._may_take_over(found):
                log.warning("taking over %s from %s", self.path.parent, _describe(found))
                self._replace()
                continue
            if beat != first_beat or _same_machine(found, self.owner):
                raise ConfigError(
                    f"{self.path.parent} is in use by {_describe(found)}; "
                    f"wait for it, stop it, or use another --{self.flag}"
                )
            check()
            time.sleep(BEAT_SECONDS / 5)
        self._remove_leftovers()
        self._thread = threading.Thread(target=self._keep_alive, name="lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self.is_mine():
            with contextlib.suppress(OSError):
                self.path.unlink()

    def is_mine(self) -> bool:
        found = self._read()
        return found is not None and found.get("token") == self.owner["token"]

    def ensure_mine(self) -> None:
        """Raise LockLostError unless this process may still write to the folder."""
        if not self.is_mine():
            other = self._read()
            raise LockLostError(
                f"{self.path.parent} was taken over by {_describe(other) if other else 'nobody'}; "
                "this run stops without saving"
            )

    def _create(self) -> bool:
        if self.is_mine():
            return True
        if self.path.exists():
            return False
        with self._written_beside() as fresh:
            try:
                # Whole or not at all: a lock without a name in it keeps everybody waiting.
                os.link(fresh, self.path)
            except (FileExistsError, FileNotFoundError):
                return False
            except OSError:
                return self._create_without_links()
        return True

    def _create_without_links(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            json.dump(self.owner, file)
        return True

    def _replace(self) -> None:
        with self._written_beside() as fresh, contextlib.suppress(FileNotFoundError):
            os.replace(fresh, self.path)
        # Of two that take over at once the later rename wins; let both see which it was.
        time.sleep(BEAT_SECONDS / 5)

    @contextlib.contextmanager
    def _written_beside(self) -> Iterator[Path]:
        """A file of our own with our name in it, gone afterwards if it is still there."""
        fresh = self.path.with_name(f".{self.path.name}.{self.owner['token']}")
        try:
            fresh.write_text(json.dumps(self.owner))
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Delete what owners left that were killed here; one that lives sees who has the lock."""
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            return {}
        # A file that is no lock of ours tells nothing about an owner but its age.
        return found if isinstance(found, dict) and _is_owner(found) else {}

    def _beat(self) -> int | None:
        try:
            return self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _may_take_over(self, found: dict[str, Any]) -> bool:
        mine = self.owner
        if any(mine[key] and found.get(key) == mine[key] for key in ("run", "job")):
            return int(found.get("attempt", 0)) < mine["attempt"] or self._is_gone(found)
        return self._is_gone(found)

    def _is_gone(self, found: dict[str, Any]) -> bool:
        if _same_machine(found, self.owner):
            return not is_alive(int(found.get("pid", 0)), found.get("started"))
        return self._age() > self.stale_seconds

    def _age(self) -> float:
        """Seconds since the last heartbeat, by the file server's clock, not by ours."""
        probe = self.path.with_name(f".{self.path.name}.{self.owner['token']}")
        try:
            probe.write_text("")
            now = probe.stat().st_mtime
            return now - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def _keep_alive(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                if self.is_mine():
                    os.utime(self.path)


def _is_owner(found: dict[str, Any]) -> bool:
    numbers = (found.get("pid"), found.get("attempt", 0), found.get("started") or 0)
    if not all(map(is_whole, numbers)):
        return False
    return all(isinstance(found.get(name, ""), str) for name in ("token", "host", "job", "run"))


def _same_machine(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a.get(key) == b[key] for key in ("host", "boot", "pid_namespace"))


def _describe(owner: dict[str, Any]) -> str:
    job = f", Slurm job {owner['job']}" if owner.get("job") else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}{job}"
