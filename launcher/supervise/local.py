"""Attempts on this machine: all ranks as processes here, and every attempt from this process.

submitit's local executor starts ``LocalRun`` in a process of its own. SIGTERM, SIGINT, SIGHUP:
checkpoint and stop, resumable.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from launcher.containers import runtimes as container
from launcher.rank.environment import attempt_environment
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted
from launcher.supervise import attempt_log as attempt
from launcher.supervise import host
from launcher.supervise.classify import Evidence
from launcher.supervise.supervisor import CannotStart, Supervisor, exit_status
from minimind.distributed.local_ranks import LocalRanks, place_variables
from minimind.errors import EXIT_RUN_ME_AGAIN, EXIT_TERMINATED
from minimind.rundir.events import BEAT_SECONDS, Kind, of_attempt
from minimind.system.process import free_port, process_identity
from minimind.system.signals import STACKS_SIGNAL, heeded
from minimind.system.terminal import one_line

RESTART_SECONDS = 1.0


class AttemptRanks(LocalRanks):
    """All ranks of an attempt as child processes.

    Raises:
        OSError: one cannot be started; rank 0's log says why, and none is left running.
    """

    def __init__(self, run: RunFolder, spec: JobSpec, number: int, port: int) -> None:
        self._run, self._spec = run, spec
        ranks = range(spec.world_size)
        logs = [run.rank_log(number, rank) for rank in ranks]
        shared = attempt_environment(run, spec, number)
        try:
            super().__init__(
                rank_command(spec),
                [shared | place_variables(rank, spec.world_size, port) for rank in ranks],
                logs=logs,
                cwd=run.code if spec.container == "none" else run.submitit,
            )
        except OSError as error:
            with logs[0].open("a") as log:
                log.write(f"launcher: error: cannot start {one_line(error)}\n")
            raise

    def poll(self) -> int | None:
        codes = self.codes()
        ended = [code for code in codes if code is not None]
        return max(ended) if len(ended) == len(codes) else None

    def broken(self) -> bool:
        return any(self.codes())

    def suspended(self, *, on_all_nodes: bool) -> str:
        return host.suspended(self._run.events_file) or host.paused(self._spec)

    def dump_stacks(self) -> None:
        self.send(STACKS_SIGNAL)


def rank_command(spec: JobSpec) -> list[str]:
    """The command of one rank that reads no pickle, inside its container where there is one."""
    prefix = container.command_prefix(spec)
    return [*prefix, spec.python, "-u", "-m", "launcher.task", spec.run_dir]


class LocalMachine:
    """This machine as a :class:`Backend`: attempt after attempt in this process, until a stop."""

    fence_seconds = 0.0
    restarts_itself = False

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.where = socket.gethostname()
        self.stop_signal: int | None = None
        self.number = 0
        self._started = 0.0
        self._told = False
        self._beat_at = 0.0

    def main(self) -> int:
        """Returns the run's exit status; 75 when it was stopped and can be resumed.

        Raises:
            ConfigError: others can write to the run folder, or its spec is damaged.
        """
        check_trusted(self.run)
        self.spec = self.run.spec()
        # Two people may tell a run to go on at the same moment. The lock ends with this process.
        with self.run.supervisor_lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"launcher: {self.run.name} has a supervisor already; this one stands back")
                return EXIT_RUN_ME_AGAIN
            self._take_signals()
            # Only now: whoever reads this may send a signal.
            identity = {"host": self.where, "began": process_identity(os.getpid())}
            self.run.append(Kind.SUPERVISOR_STARTED, pid=os.getpid(), **identity)
            return Supervisor(self.run, self.spec, self).main()

    def _take_signals(self) -> None:
        for number in heeded((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
            signal.signal(number, self._on_stop)
        # submitit's handler would end this process; here the signal means nothing.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop_signal = signum

    def say(self, text: str) -> None:
        """Nothing: the terminal is rank 0's."""

    def stopped(self, code: int) -> int | None:
        """The exit status of a stop; where it was a cancel that no attempt took up, of that."""
        if self.stop_signal is None:
            return None
        events = self.run.events()
        mine = max(i for i, e in enumerate(events) if e["event"] == Kind.SUPERVISOR_STARTED)
        if any(event["event"] == Kind.CANCEL_REQUESTED for event in events[mine:]):
            return attempt.cancel(self.run).exit_code
        return code

    def place(self) -> dict[str, Any]:
        return {"job_id": str(os.getpid()), "nodes": [self.where]}

    def sweep(self) -> None:
        command = container.sweep_command(self.spec)
        if command:
            subprocess.run(command, check=False, capture_output=True)

    def look(self) -> None:
        """Nobody looks: there is no other machine to go to, and `doctor` has more to say."""

    def unfit(self, number: int, nodes: Mapping[str, str]) -> None:
        """Nothing: there is no other machine to go to."""

    def start(self, number: int) -> AttemptRanks:
        self.number = number
        try:
            self.ranks = AttemptRanks(self.run, self.spec, number, free_port())
        except (FileNotFoundError, PermissionError) as error:
            raise CannotStart from error
        self._started, self._told = time.monotonic(), False
        return self.ranks

    def tick(self) -> None:
        """Shows that it lives, and passes a stop on to the ranks, once."""
        self._beat()
        limit = self.spec.time_minutes
        expired = limit is not None and time.monotonic() - self._started > limit * 60
        if not self._told and (self.stop_signal is not None or expired):
            self._told = True
            host.unpause(self.spec)
            self.ranks.send(signal.SIGTERM)

    def _beat(self) -> None:
        """Shows the hosts that share the run folder that this supervisor lives."""
        now = time.monotonic()
        if now - self._beat_at >= BEAT_SECONDS:
            self._beat_at = now
            with contextlib.suppress(OSError):
                os.utime(self.run.supervisor_lock)

    def ranks_are_gone(self) -> None:
        """There may be no next attempt that would sweep."""
        self.sweep()

    def evidence(self, exit_code: int | None, *, hung: bool = False) -> Evidence:
        if self._told and exit_code == EXIT_TERMINATED:
            # A rank was not far enough to handle the signal, so it had nothing to lose.
            exit_code = EXIT_RUN_ME_AGAIN
        return Evidence(
            exit_code=exit_code,
            events=tuple(of_attempt(self.run.events(), self.number)),
            killed_for_hang=hung,
            time_up=self._told and self.stop_signal is None,
        )

    def evidence_of_lost(self, number: int) -> Evidence:
        return Evidence(None, events=tuple(of_attempt(self.run.events(), number)))

    def again(self, cause: str, exit_code: int, pause: float) -> int | None:
        status = self.stopped(exit_code)
        if status is None:
            attempt.record(self.run, Kind.REQUEUED, attempt=self.number, by="launcher", cause=cause)
            self._rest(max(pause, RESTART_SECONDS))
        return status

    def _rest(self, seconds: float) -> None:
        """Until the next attempt, or a stop."""
        until = time.monotonic() + seconds
        while self.stop_signal is None and (left := until - time.monotonic()) > 0:
            self._beat()
            time.sleep(min(left, RESTART_SECONDS))


@dataclass(frozen=True)
class LocalRun:
    """The callable for submitit's local executor: one run after the other."""

    run_dirs: tuple[str, ...]

    def __call__(self) -> int:
        worst = 0
        for run_dir in self.run_dirs:
            machine = LocalMachine(RunFolder(run_dir))
            worst = max(worst, exit_status(machine.run, machine.main))
            if machine.stop_signal is not None and len(self.run_dirs) > 1:
                cancelled = machine.run.final()
                if cancelled is None:
                    break
        if worst:
            sys.exit(worst)
        return worst
