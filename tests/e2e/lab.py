"""A cluster under test and the launcher as a user runs it: processes, files, polling."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[2]
FAKE = ("--module", "fake_trainer", "--env", f"PYTHONPATH={REPOSITORY / 'tests' / 'e2e'}")
"""Options of ``submit`` that run the test double instead of the training."""

SITE = tuple(os.environ.get("MINIMIND_E2E_SITE", "").split())
"""Options of the cluster besides those of the tests, such as ``--release sid --stepmgr``."""

USER = os.environ.get("MINIMIND_E2E_USER", "")
"""Who uses the launcher, where the cluster is another's: root's. Needs a Python, and a checkout,
that this user can read."""

INSTALLING = FileLock(Path(tempfile.gettempdir()) / f"minimind-tests-{os.getuid()}.install.lock")
"""One process of the tests at a time installs packages: apt waits for nobody."""


ASK_SECONDS = 2.0
"""How long ``Lab.wait`` goes by a run's files alone: to ask the launcher costs half a second of a
processor, which the run needs too."""


def poll(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Waits until ``condition`` is truthy and returns it; fails the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.2)
    return value


@dataclass
class Lab:
    """Where runs live, and the environment that commands see."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    cluster_options: tuple[str, ...] = ()

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def command(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs any command in the lab."""
        return subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def launcher(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the launcher as a user does."""
        return self.command(*as_user(), sys.executable, "-m", "launcher", *words, cwd=cwd)

    def ok(self, *words: str) -> str:
        """Runs the launcher, expects status 0, returns standard output."""
        done = self.launcher(*words)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def submit(self, name: str, *words: str, train: tuple[str, ...] = ()) -> str:
        """Submits a run and returns its job id."""
        answer = self.ok("submit", "--name", name, "--json", *words, "--", *train)
        return str(json.loads(answer)["job_id"])

    def devcluster(self, *words: str) -> str:
        """Changes the cluster; ``words`` are the options that differ from the lab's own."""
        done = self.command(
            sys.executable,
            str(REPOSITORY / "slurm" / "devcluster"),
            *words,
            "--folder",
            str(self.folder / "slurm"),
            *(self.cluster_options if words[0] == "up" else ()),
        )
        assert done.returncode == 0, f"devcluster {words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def events(self, name: str, event: str | None = None) -> list[dict[str, Any]]:
        """The run's events, all or those of one kind."""
        path = self.runs / name / "events.jsonl"
        if not path.exists():
            return []
        found = []
        for line in path.read_text().splitlines():
            if line.strip():
                found.append(json.loads(line))
        return [entry for entry in found if event is None or entry["event"] == event]

    def causes(self, name: str) -> list[str]:
        """The causes of all ended attempts, in order."""
        return [entry["cause"] for entry in self.events(name, "attempt_ended")]

    def steps(self, name: str) -> list[int]:
        """The optimiser steps that were logged, in the order they were logged."""
        path = self.runs / name / "out" / "metrics.jsonl"
        if not path.exists():
            return []
        points = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return [point["global_step"] for point in points if "loss" in point]

    def wait_for_step(self, name: str, step: int, attempt: int = 1, seconds: float = 300) -> None:
        """Waits until ``attempt`` has begun to train and has logged ``step``."""

        def there() -> bool:
            events = self.events(name)
            begun = [i for i, e in enumerate(events) if e.get("attempt") == attempt]
            if not begun:
                return False
            trains = any(e["event"] in ("started", "resumed") for e in events[begun[0] :])
            return trains and max(self.steps(name), default=0) >= step

        poll(there, f"step {step} of attempt {attempt} of {name}", seconds)

    def state(self, name: str) -> dict[str, Any]:
        """What ``status --json`` says."""
        return dict(json.loads(self.ok("status", name, "--json")))

    def wait(self, name: str, *states: str, seconds: float = 240) -> dict[str, Any]:
        """Waits until the run is in one of ``states``."""
        wanted = states or ("DONE",)
        result: dict[str, Any] = {}
        seen, asked = None, -ASK_SECONDS

        def there() -> bool:
            nonlocal result, seen, asked
            now = self._markers(name)
            if now == seen and time.monotonic() < asked + ASK_SECONDS:
                return False
            seen, asked = now, time.monotonic()
            result = self.state(name)
            if result["state"] == "FAILED" and "FAILED" not in wanted:
                raise AssertionError(f"{name} failed: {self.ok('why', name)}")
            return result["state"] in wanted

        poll(there, f"{name} to be {' or '.join(wanted)}", seconds)
        return result

    def _markers(self, name: str) -> dict[str, int]:
        """The run folder's own files, but not its log, each with the time of its last change."""
        found: dict[str, int] = {}
        for path in (self.runs / name).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # a temporary one, just renamed
                if path.suffix != ".log" and path.is_file():
                    found[path.name] = path.stat().st_mtime_ns
        return found

    def why(self, name: str) -> str:
        """What ``why`` prints."""
        return self.ok("why", name)

    def preempt(self, name: str, attempt: int) -> None:
        """A job of the partition ``high`` takes all nodes; returns once ``attempt`` has ended."""
        job = self.command(
            *("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive"),
            *("--output=/dev/null", "--wrap=sleep 2"),
        )
        assert job.returncode == 0, job.stderr
        poll(lambda: len(self.causes(name)) >= attempt, f"attempt {attempt} to end", 120)


def make_lab(folder: Path, *options: str) -> Lab:
    """A cluster in ``folder``, and the launcher on it."""
    environment = lab_environment() | {"SLURM_CONF": str(folder / "slurm" / "slurm.conf")}
    # Where Slurm is of another release, its commands.
    environment["PATH"] = f"{folder / 'slurm' / 'bin'}:{environment['PATH']}"
    lab = Lab(folder, environment, options)
    if USER:
        lab.runs.mkdir()
        shutil.chown(lab.runs, USER)
    lab.devcluster("up")
    return lab


def as_user() -> tuple[str, ...]:
    """The words before a command that run it as :data:`USER`, in a home of their own."""
    if not USER:
        return ()
    account = pwd.getpwnam(USER)
    ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups")
    return ("setpriv", *ids, "env", f"HOME={account.pw_dir}", f"USER={USER}", f"LOGNAME={USER}")


def lab_environment() -> dict[str, str]:
    """This process's environment without any outer job's or the tests' own; one thread a rank.

    Where the tests keep compiled code (``tests/conftest.py``) a container has no such folder.
    """
    others = ("SLURM", "SBATCH", "SRUN", "TORCHINDUCTOR")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    return clean | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}


def words(flags: dict[str, Any]) -> tuple[str, ...]:
    """Flags as the command line has them; folders and resume are the launcher's part."""
    found: list[str] = []
    for name, value in flags.items():
        if name != "from_resume" and value is not False:
            found += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return tuple(found)
