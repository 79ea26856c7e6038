"""Runs on this machine: in the foreground, for ``run``, or behind submitit's local executor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time

from launcher.slurm.environment import submission_environment
from launcher.spec.job_spec import JobSpec
from launcher.spec.rank_log import RankLog
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import runs_dir_flag
from launcher.supervise import attempt_log as attempt
from launcher.supervise.local import LocalMachine, LocalRun, rank_command
from minimind.errors import SubmissionError
from minimind.system.terminal import show

POLL_SECONDS = 0.2


def run_here(run: RunFolder, spec: JobSpec, *, quiet: bool) -> int:
    """Supervises a prepared run in this very process, with rank 0's log on the terminal.

    It goes to its end, or until Ctrl-C, SIGTERM or a closed terminal, which save and stop.
    Returns the run's exit status; 75 when it was stopped and can be resumed.
    """
    attempt.record_submission(run, spec, str(os.getpid()))
    for name in spec.secret_env:
        # The ranks read secrets from their file; nobody else needs them.
        os.environ.pop(name, None)
    printer = _Printer(run)
    if not quiet:
        _note(f"Run {spec.name} in {spec.run_dir}; Ctrl-C saves a checkpoint and stops")
        if spec.container != "none":
            _note(f"Each rank: {shlex.join(rank_command(spec))}")
        printer.start()
    try:
        code = LocalMachine(run).main()
    finally:
        printer.stop()
    if code:
        _note(f"launcher why {spec.name}{runs_dir_flag(run)} says more; go on with --resume")
    return code


def _note(text: str) -> None:
    show(sys.stderr, f"{text}\n")


class _Printer(threading.Thread):
    """Copies rank 0's log of every attempt to standard output as it grows."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(name="log-printer", daemon=True)
        # Logs of earlier attempts, when a run is resumed, were shown then.
        self._log = RankLog(run, 0, first=max(run.attempt_numbers(), default=0) + 1)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self._print_new()
            time.sleep(POLL_SECONDS)
        self._print_new()

    def stop(self) -> None:
        """Prints what is left and ends."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _print_new(self) -> None:
        show(sys.stdout, self._log.read())


def start_local(run: RunFolder, spec: JobSpec, points: list[str] | None = None) -> str:
    """Starts submitit's local executor in a session of its own: it outlives this terminal."""
    targets = points or [str(run.root)]
    with run.batch_log.open("ab") as log, submission_environment(hidden=spec.secret_env):
        done = subprocess.run(
            [sys.executable, "-m", "launcher.submission", str(run.submitit), *targets],
            cwd=run.code,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    if done.returncode != 0:
        raise SubmissionError(f"the local executor did not start; see {run.batch_log}")
    return str(json.loads(done.stdout)["job_id"])


def local_main(folder: str, run_dirs: list[str]) -> None:
    """Submits through submitit's local executor and prints the job id as JSON."""
    from submitit import AutoExecutor

    answer = os.dup(1)
    # The job inherits what this process has open: it must not hold on to the caller's pipe.
    os.dup2(2, 1)
    os.set_inheritable(answer, False)
    executor = AutoExecutor(folder, cluster="local")
    # The supervisor keeps the time limit itself, attempt by attempt.
    executor.update_parameters(timeout_min=60 * 24 * 365 * 10, tasks_per_node=1)
    job = executor.submit(LocalRun(tuple(run_dirs)))
    os.write(answer, json.dumps({"job_id": job.job_id}).encode())
