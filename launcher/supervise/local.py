"""The same run on this machine: all ranks as processes here, and the supervisor's whole loop.

submitit's local executor starts ``LocalRun`` in a process of its own. That process keeps on
starting attempts until the run is over. SIGTERM, SIGINT, SIGHUP: checkpoint and stop, resumable.
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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from launcher.containers import runtimes as container
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.spec.trust import check_trusted
from launcher.supervise import attempt_log as attempt
from launcher.supervise import classify as causes
from launcher.supervise.watchdog import Progress, watch
from minimind.distributed.local_ranks import LocalRanks, place_variables
from minimind.errors import EXIT_CRASHED, MiniMindError
from minimind.rundir.events import BEAT_SECONDS, of_attempt
from minimind.system.process import free_port, process_identity
from minimind.system.signals import STACKS_SIGNAL
from minimind.system.terminal import one_line

RESTART_SECONDS = 1.0
EXIT_TERMINATED = 128 + signal.SIGTERM


class AttemptRanks(LocalRanks):
    """All ranks of an attempt as child processes.

    Raises:
        OSError: one cannot be started; rank 0's log says why, and none is left running.
    """

    def __init__(self, run: RunFolder, spec: JobSpec, number: int, port: int) -> None:
        ranks = range(spec.world_size)
        logs = [run.rank_log(number, rank) for rank in ranks]
        try:
            super().__init__(
                rank_command(spec),
                [rank_environment(run, spec, number, rank, port) for rank in ranks],
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

    def dump_stacks(self) -> None:
        self.send(STACKS_SIGNAL)


def rank_command(spec: JobSpec) -> list[str]:
    """The command of one local rank, inside its container where there is one."""
    prefix = container.command_prefix(spec)
    return [*prefix, spec.python, "-u", "-m", "launcher.task", spec.run_dir]


def rank_environment(
    run: RunFolder, spec: JobSpec, number: int, rank: int, port: int
) -> dict[str, str]:
    """The variables of one local rank."""
    environment = dict(os.environ)
    environment.pop("PYTHONSAFEPATH", None)
    environment.update(spec.env)
    environment.update(
        **place_variables(rank, spec.world_size, port),
        MINIMIND_EVENTS=str(run.events_file),
        LAUNCHER_ATTEMPT=str(number),
    )
    return environment


@dataclass
class LocalSupervisor:
    """Runs attempt after attempt of ``run`` until it is over or this process is told to stop."""

    run: RunFolder
    stop_signal: int | None = None
    _beat_at: float = 0.0

    def main(self) -> int:
        """Returns the run's exit status; 75 when it was stopped and can be resumed.

        Raises:
            ConfigError: others can write to the run folder, or its spec is damaged.
        """
        check_trusted(self.run)
        spec = self.run.spec()
        # Two people may tell a run to go on at the same moment. The lock ends with this process.
        with self.run.supervisor_lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"launcher: {self.run.name} has a supervisor already; this one stands back")
                return causes.EXIT_RUN_ME_AGAIN
            return self._supervise(spec)

    def _supervise(self, spec: JobSpec) -> int:
        identity = {"host": socket.gethostname(), "began": process_identity(os.getpid())}
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        # A terminal that closes sends SIGHUP. Who used nohup wants the run to outlive it.
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_stop)
        # submitit's handler would end this process; here the signal means nothing.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        # Only now: whoever reads this may send a signal.
        self.run.append("supervisor_started", pid=os.getpid(), **identity)
        self._close_lost_attempt(spec)
        while (final := self.run.final()) is None:
            if self._told_to_stop():
                return self._stopped(causes.EXIT_RUN_ME_AGAIN)
            code, final = self._attempt(spec)
            if final is not None:
                # Not looked up again: a person may reopen the run for another supervisor now.
                return final.exit_code
            if self._told_to_stop():
                return self._stopped(code)
            time.sleep(RESTART_SECONDS)
        return final.exit_code

    def _told_to_stop(self) -> bool:
        return self.stop_signal is not None

    def _stopped(self, code: int) -> int:
        """The exit status of a stop; where it was a cancel that no attempt took up, of that."""
        events = self.run.events()
        mine = max(i for i, e in enumerate(events) if e["event"] == "supervisor_started")
        if any(event["event"] == "cancel_requested" for event in events[mine:]):
            return attempt.cancel(self.run).exit_code
        return code

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop_signal = signum

    def _close_lost_attempt(self, spec: JobSpec) -> None:
        number = attempt.unfinished(self.run.events())
        if number is not None:
            attempt.end(self.run, spec, number, causes.LOST, None)

    def _attempt(self, spec: JobSpec) -> tuple[int, Final | None]:
        number = attempt.begin(self.run, job_id=str(os.getpid()), nodes=[socket.gethostname()])
        self._sweep(spec)
        try:
            ranks = AttemptRanks(self.run, spec, number, free_port())
        except (FileNotFoundError, PermissionError):
            # --python or the container's program: another try would find as little.
            code = causes.EXIT_CONFIG
            return code, attempt.end(self.run, spec, number, causes.CONFIG, code).final
        started, told = time.monotonic(), False

        def tick() -> None:
            nonlocal told
            self._beat()
            expired = (
                spec.time_minutes is not None
                and time.monotonic() - started > spec.time_minutes * 60
            )
            if not told and (self.stop_signal is not None or expired):
                told = True
                ranks.send(signal.SIGTERM)

        progress = Progress([self.run.events_file, Path(spec.save_dir) / "metrics.jsonl"])
        outcome = watch(ranks, progress, hang_timeout=spec.hang_timeout, each_tick=tick)
        self._sweep(spec)
        if self.run.superseded(number):
            # Another host gave this one up for dead, and has gone on.
            reason = "a newer attempt has begun elsewhere; this one stands back"
            print(f"launcher: {reason}", flush=True)
            return 0, Final(causes.STOP_REQUESTED, causes.EXIT_RUN_ME_AGAIN, reason)
        code = outcome.exit_code
        if told and code == EXIT_TERMINATED:
            # A rank was not far enough to handle the signal, so it had nothing to lose.
            code = causes.EXIT_RUN_ME_AGAIN
        cause = causes.classify(
            causes.Evidence(
                exit_code=code,
                events=tuple(of_attempt(self.run.events(), number)),
                killed_for_hang=outcome.hung,
            )
        )
        if told and self.stop_signal is None and cause == causes.STOP_REQUESTED:
            cause = causes.TIME_LIMIT
        decision = attempt.end(self.run, spec, number, cause, code)
        if decision.final is None and self.stop_signal is None:
            self.run.append("requeued", attempt=number, by="launcher", cause=cause)
        return code, decision.final

    def _beat(self) -> None:
        """Shows the hosts that share the run folder that this supervisor lives."""
        now = time.monotonic()
        if now - self._beat_at >= BEAT_SECONDS:
            self._beat_at = now
            with contextlib.suppress(OSError):
                os.utime(self.run.supervisor_lock)

    def _sweep(self, spec: JobSpec) -> None:
        command = container.sweep_command(spec)
        if command:
            subprocess.run(command, check=False, capture_output=True)


@dataclass(frozen=True)
class LocalRun:
    """The callable for submitit's local executor: one run after the other."""

    run_dirs: tuple[str, ...]

    def __call__(self) -> int:
        worst = 0
        for run_dir in self.run_dirs:
            supervisor = LocalSupervisor(RunFolder(run_dir))
            try:
                code = supervisor.main()
            except (MiniMindError, OSError) as error:
                print(f"launcher: error: {one_line(error)}", file=sys.stderr, flush=True)
                code = error.exit_code if isinstance(error, MiniMindError) else EXIT_CRASHED
            worst = max(worst, code)
            if supervisor.stop_signal is not None and len(self.run_dirs) > 1:
                cancelled = supervisor.run.final()
                if cancelled is None:
                    break
        if worst:
            sys.exit(worst)
        return worst
