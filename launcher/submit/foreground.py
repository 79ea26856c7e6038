"""``run``: the local supervisor in this very process, with rank 0's log on the terminal."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import runs_dir_flag
from launcher.submit.submission import prepare
from launcher.supervise.local import LocalSupervisor, rank_command
from minimind.system.terminal import show

POLL_SECONDS = 0.2


def run_here(spec: JobSpec, secrets: dict[str, str], *, quiet: bool) -> int:
    """Runs to the end, or until Ctrl-C, SIGTERM or a closed terminal, which save and stop.

    Returns the run's exit status; 75 when it was stopped and can be resumed.
    """
    run = prepare(spec, secrets)
    run.append(
        "submitted", job_id=str(os.getpid()), cluster="local", nodes=spec.nodes, gpus=spec.gpus
    )
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
        code = LocalSupervisor(run).main()
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
        self._run = run
        self._over = threading.Event()
        # Logs of earlier attempts, when a run is resumed, were shown then.
        old = (run.rank_log(number, 0) for number in run.attempt_numbers())
        self._shown = {path: path.stat().st_size for path in old if path.exists()}

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
        for number in self._run.attempt_numbers():
            path = self._run.rank_log(number, 0)
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._shown.get(path, 0))
                data = file.read()
            self._shown[path] = self._shown.get(path, 0) + len(data)
            show(sys.stdout, data.decode(errors="replace"))
