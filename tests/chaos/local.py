"""Runs under the launcher: submitted as a user does, and on this machine without Slurm."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.inspect import run_state as state
from launcher.slurm.parse import JobInfo
from launcher.spec.run_folder import RunFolder
from launcher.supervise import host
from minimind.errors import EXIT_USER_ERROR
from minimind.rundir.events import of_attempt
from minimind.system.process import is_alive
from tests.chaos.places import sitecustomize
from tests.chaos.target import (
    PACE,
    Ending,
    GrowingFile,
    Lost,
    Settings,
    command_line,
    environment_of,
    parent,
    processes,
    processes_at,
    training_flags,
    wait_for,
    wait_for_end,
)
from tests.e2e.lab import Lab, lab_environment, words
from tests.shim import preload

PROFILE = "max_restarts = 1000\nmax_node_failures = 1000\n"
"""The adversary is no reason to give up."""

HANG_SECONDS = 60
"""The imports of a start take less on a busy machine, a suspension may take longer."""

AGAIN = (state.INTERRUPTED, state.FAILED, state.HELD, state.CANCELLED)
"""States from which a person has to say "go on"."""


def profile(lab: Lab) -> list[str]:
    """The option that lets a run fail as often as it is made to."""
    file = lab.folder / "chaos.toml"
    file.write_text(PROFILE)
    return ["--profile", str(file)]


def shim(lab: Lab, run_name: str) -> list[str]:
    """The options that load the shim into the ranks, with this run's settings."""
    found = []
    for name, value in {**preload(), "SHIM_CONFIG": str(lab.folder / f"{run_name}.faults")}.items():
        found += ["--env", f"{name}={value}"]
    return found


def places(lab: Lab, run_name: str) -> list[str]:
    """The options that let ranks follow this run's orders: see ``tests/chaos/places``."""
    # In the lab's folder, which containers see, too.
    folder = lab.folder / "places"
    shutil.copytree(Path(sitecustomize.__file__).parent, folder, dirs_exist_ok=True)
    order = f"{sitecustomize.ORDER}={lab.folder / f'{run_name}.order'}"
    return ["--env", f"PYTHONPATH={folder}", "--env", order]


class LaunchedRun:
    """See :class:`tests.chaos.target.Target`."""

    supervisor_words = "submitit.core._submit"
    """What the command line of its supervisor has, and no other's of the launcher."""

    start_seconds = 8.0
    suspension_seconds = 1.5 * HANG_SECONDS
    gives_up_seconds = 240.0
    endings_are_final = False

    def __init__(
        self, lab: Lab, name: str, flags: dict[str, Any], world_size: int, options: tuple[str, ...]
    ) -> None:
        self.lab, self.name, self.world_size = lab, name, world_size
        self.folder = lab.runs / name
        self.save_dir, self.checkpoint_dir = self.folder / "out", self.folder / "checkpoints"
        self.cache_dir = lab.folder / f"{name}.cache"
        self.has_workers = flags["num_workers"] > 0
        self.compiles = flags.get("compile") == "on"
        self.scores = flags.get("eval_interval") == 1
        self.order = lab.folder / f"{name}.order"
        self.launched = RunFolder(self.folder)
        self.settings = Settings(lab.folder / f"{name}.faults", self.folder)
        self.launching = Settings(lab.folder / f"{name}.launcher.faults", self.folder)
        self.options = options
        self.flags = {**flags, "cache_dir": self.cache_dir}
        self._rows = GrowingFile(self.save_dir / "rows.rank0.jsonl")
        self._metrics = GrowingFile(self.save_dir / "metrics.jsonl")
        self._attempt = 0
        sitecustomize.set_pace(self.order, PACE)

    @property
    def endings(self) -> list[Ending]:
        return [Ending(cause=cause) for cause in self.lab.causes(self.name)]

    def ensure_running(self, faults: dict[str, str] | None = None) -> None:
        if faults:
            if self.is_running():
                self.rest()
            self.settings.write(faults)
        if not self.launched.exists():
            self.lab.submit(self.name, *self.options, train=words(self.flags))
        wait_for(self._going_on, "an attempt", self.gives_up_seconds)
        self._attempt = self.launched.current_attempt() or 0

    def _going_on(self) -> bool:
        """Whether an attempt is under way; where nobody starts one, a person says so."""
        if self.is_running() or self.is_over():
            return True
        if self.state() in AGAIN:
            # Refused while the last supervisor is about to end: then once more. A submission that
            # was interrupted may have left no code, and then the message says what to do.
            if self.launched.code.exists():
                self.lab.launcher("requeue", self.name)
            else:
                self.start_another()
        return False

    def is_scoring(self) -> bool:
        return "loss" in (self._metrics.lines() or [{}])[-1]

    def be_refused(self) -> None:
        self.lab.launcher("requeue", self.name)
        wait_for(self.launched.final, "the refusal", self.gives_up_seconds)
        final = self.launched.final()
        if final is None or final.exit_code != EXIT_USER_ERROR:
            raise Lost(f"not refused: {final}\n{self.lab.why(self.name)}")

    def struck(self, faults: dict[str, str], command: str) -> int:
        """The exit status of a launcher's command that has ``faults``, as all that it starts."""
        self.launching.write(faults)
        shimmed = preload() | {"SHIM_CONFIG": str(self.launching.path)}
        lab = replace(self.lab, environment=self.lab.environment | shimmed)
        line = {
            "submit": ("submit", "--name", self.name, *self.options, "--", *words(self.flags)),
            "resume": (*self._resume(), "--", *words(self.flags)),
        }
        return lab.launcher(*line.get(command, (command, self.name))).returncode

    def _resume(self) -> tuple[str, ...]:
        return ("submit", "--name", self.name, "--resume", *self.options)

    def insist_consistent(self) -> None:
        """What a killed launcher leaves can be read, and no attempt has another's number."""
        began = [e["attempt"] for e in self.lab.events(self.name, "attempt_started")]
        if len(began) != len(set(began)):
            raise Lost(f"an attempt's number came twice: {began}")
        for word in ("status", "why") if self.launched.exists() else ():
            answer = self.lab.launcher(word, self.name)
            if answer.returncode or "Traceback" in answer.stderr:
                raise Lost(f"launcher {word}: {answer.returncode}, {answer.stdout}{answer.stderr}")

    def start_another(self) -> list[int]:
        """Submit the same run once more while it runs: the exit status."""
        return [self.lab.launcher(*self._resume(), "--", *words(self.flags)).returncode]

    def requeue_twice(self) -> None:
        """Two people tell the launcher at the same moment to go on; one of them may be refused."""
        command = [sys.executable, "-m", "launcher", "requeue", self.name]
        both = [
            subprocess.Popen(
                command,
                cwd=self.lab.folder,
                env=self.lab.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        codes = sorted(process.wait(120) for process in both)
        if codes not in ([0, 0], [0, 2]):
            raise Lost(f"two requeues at once ended with {codes}")

    def state(self) -> str:
        """The run's state as ``launcher status`` has it."""
        return state.job_state(self.launched, self.jobs())[0]

    def jobs(self) -> dict[str, JobInfo] | None:
        """What Slurm knows; nothing where there is none."""
        return {}

    def is_over(self) -> bool:
        return self.launched.done_marker.exists()

    def is_running(self) -> bool:
        return bool(self.ranks())

    def steps(self) -> int:
        mine = of_attempt(self.launched.events(), self.launched.current_attempt() or 0)
        began = [event for event in mine if event["event"] in ("started", "resumed")]
        if not began:
            return 0
        first = began[-1].get("step", 0)
        return sum(record["global_step"] >= first for record in self._rows.lines())

    def ranks(self) -> list[int]:
        mark = f"LAUNCHER_ATTEMPT={self.launched.current_attempt()}"
        found = {pid for pid in self.marked(mark) if _runs_rank(pid)}
        # What a rank has forked, its loader workers, looks like it.
        return [pid for pid in found if parent(pid) not in found]

    def marked(self, *marks: str) -> list[int]:
        """The processes that have the run's event log, and these, in their environment."""
        wanted = {f"MINIMIND_EVENTS={self.launched.events_file}".encode(), *map(str.encode, marks)}
        return [pid for pid in processes() if wanted <= environment_of(pid)]

    def supervisor(self) -> int | None:
        """The process that starts and watches attempts."""
        return host.supervisor_pid(self.launched.events())

    def settle(self) -> None:
        # Not the newest: what was done to this one may have ended it, and the next be under way.
        number = self._attempt

        def ended() -> bool:
            events = of_attempt(self.launched.events(), number)
            if any(event["event"] == "attempt_ended" for event in events):
                return True
            return self.state() in (*AGAIN, state.DONE) and not self.is_running()

        wait_for(ended, f"the end of attempt {number}", self.gives_up_seconds)

    def rest(self) -> None:
        """Only a run whose supervisor has been stopped does not start again by itself."""
        pid = self.supervisor()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not is_alive(pid), "the supervisor's end", self.gives_up_seconds)
        wait_for(lambda: not self.ranks(), "the ranks' end", self.gives_up_seconds)

    def complete(self) -> None:
        self.settings.write({})
        sitecustomize.set_pace(self.order, 0)
        try:
            wait_for_end(
                lambda: self.is_over() or (self._going_on() and self.is_over()),
                lambda: (len(self._rows.lines()), len(self.launched.events())),
                "the run's end",
                self.gives_up_seconds,
            )
        except Lost as error:
            raise Lost(f"{error}\n{self.lab.why(self.name)}") from None
        self._judge_events()

    def _judge_events(self) -> None:
        """Every attempt that began has an end with a cause, and the run has one, too."""
        began = [e["attempt"] for e in self.lab.events(self.name, "attempt_started")]
        ended = [e["attempt"] for e in self.lab.events(self.name, "attempt_ended")]
        self.insist_consistent()
        if sorted(began) != sorted(ended) or self.endings[-1].cause != "done":
            told = ", ".join(map(str, self.endings))
            raise Lost(f"attempts {began} began, {ended} ended: {told}")

    def leftovers(self) -> list[str]:
        living = {*processes_at(self.folder), *self.marked()}
        left = [f"process {pid}: {command_line(pid)}" for pid in living]
        return left + [str(path) for path in self.folder.rglob("*.tmp")]

    def stacks(self) -> str:
        """What the launcher knows of the run: its ranks' stacks come with a hang."""
        return self.lab.why(self.name) if self.launched.exists() else ""

    def kill(self) -> None:
        """End whatever lives, at once."""
        pid = self.supervisor()
        for process in ([pid] if pid else []) + processes_at(self.folder) + self.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


RANK_MODULES = ("launcher.task", "submitit.core._submit")


def _runs_rank(pid: int) -> bool:
    """False for srun, for the client of a container and for its first process."""
    program, _, rest = command_line(pid).partition(" ")
    return "python" in Path(program).name and any(module in rest for module in RANK_MODULES)


@dataclass
class LocalLayer:
    """Where runs of submitit's local executor live."""

    lab: Lab
    flags: dict[str, Any]
    name: str = "local"
    world_sizes: tuple[int, ...] = (1, 1, 2)
    faults: tuple[int, int] = (5, 9)

    def options(self, run_name: str, world_size: int) -> tuple[str, ...]:
        """The options of ``submit``."""
        size = ("--cluster", "local", "--gpus", str(world_size))
        hang = ("--hang-timeout", str(HANG_SECONDS))
        return (
            *size,
            *hang,
            *profile(self.lab),
            *shim(self.lab, run_name),
            *places(self.lab, run_name),
        )

    @contextlib.contextmanager
    def make(self, name: str, flags: dict[str, Any], world_size: int) -> Iterator[LaunchedRun]:
        """A run that has not been submitted."""
        run = LaunchedRun(self.lab, name, flags, world_size, self.options(name, world_size))
        try:
            yield run
        finally:
            run.kill()


@contextlib.contextmanager
def layer(folder: Path) -> Iterator[LocalLayer]:
    """Runs under submitit's local executor."""
    flags = training_flags(folder, epochs=8)
    environment = lab_environment() | {"XDG_CONFIG_HOME": str(folder / "config")}
    yield LocalLayer(Lab(folder, environment), flags)
