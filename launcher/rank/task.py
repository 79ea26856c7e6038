"""What runs on each rank: the job's environment becomes the training's, then the training runs.

submitit calls ``RankTask``; the local supervisor runs ``python -m launcher.task RUN_DIR``. The
training runs in this very process, as ``__main__``, so that signals reach it directly. Standard
library only: torch comes with the training.
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_unshared
from minimind.errors import MiniMindError
from minimind.system import redact
from minimind.system.terminal import one_line

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
FENCE_POLL_SECONDS = 2.0
SIGNAL_POLL_SECONDS = 0.1
LAST_SAVE_SECONDS = 60.0
"""How long a rank whose run is over gets to save and leave."""
RUN_IS_OVER = "launcher: the run is over; this rank saves and stops\n"
EXIT_SUPERSEDED = 143


@dataclass(frozen=True)
class RankTask:
    """The callable that submitit pickles: by name and folder, so the pickle holds no secret."""

    run_dir: str

    def __call__(self) -> int:
        return run_rank(RunFolder(self.run_dir))


# Pickles name it so: those of earlier versions, and those for the older code of a run or an image.
RankTask.__module__ = "launcher.task"


def run_rank(run: RunFolder) -> int:
    """Runs the training as this rank.

    Returns 0 when it is done; any other ending leaves as SystemExit with the training's code
    or as the training's own exception.

    Raises:
        ConfigError: others can write to the run folder, or its spec is damaged.
    """
    check_unshared(run)
    spec = run.spec()
    faulthandler.enable()
    # The supervisor asks a hanging rank for its stacks; the handler needs no interpreter lock.
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=False)
    os.environ.update(rank_variables(os.environ, spec))
    secrets = run.secrets()
    os.environ.update(secrets)
    os.environ[redact.VARIABLE] = ",".join(secrets)
    redact.install()
    _hold_early_signals()
    _stand_back(run, local=spec.cluster == "local")
    os.chdir(spec.workdir)
    sys.argv = [spec.module, *spec.train_args]
    try:
        runpy.run_module(spec.module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    return 0


def rank_variables(environment: os._Environ[str] | dict[str, str], spec: JobSpec) -> dict[str, str]:
    """torchrun's variables for this rank, from Slurm's; on one machine its supervisor has set them.

    On Slurm those that are set already are an image's or somebody's shell's: not this rank's.
    """
    if spec.cluster != "slurm" or "SLURM_PROCID" not in environment:
        return {}
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(spec.gpus),
    }


def _hold_early_signals() -> None:
    """Keeps a stop signal that comes before the training listens, and hands it on when it does.

    Imports take seconds. submitit's own handlers would requeue the job from in here, and the
    default action would kill this rank while others already wait for it.
    """
    pending: list[signal.Signals] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        pending.append(signal.Signals(signum))

    def hand_on() -> None:
        while any(signal.getsignal(number) is hold for number in STOP_SIGNALS):
            for number in [n for n in pending if signal.getsignal(n) is not hold]:
                pending.remove(number)
                os.kill(os.getpid(), number)
            time.sleep(SIGNAL_POLL_SECONDS)
        for number in pending:
            os.kill(os.getpid(), number)

    for number in STOP_SIGNALS:
        signal.signal(number, hold)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    threading.Thread(target=hand_on, name="early-signals", daemon=True).start()


def _stand_back(run: RunFolder, *, local: bool) -> None:
    """Ends this process once a newer attempt has begun, and stops it once the run is over.

    A rank on a node that Slurm lost lives on, and must not write where its successor does. So
    does one whose local supervisor was killed: no signal is sure to reach it in a container or
    on another machine, but it sees the run folder. Slurm itself ends the ranks of its jobs.
    """
    attempt = int(os.environ.get("LAUNCHER_ATTEMPT", "0"))

    def fence() -> None:
        over_at: float | None = None
        while True:
            if local and over_at is None and os.path.exists(run.stopped_marker):
                over_at = time.monotonic()
                os.write(2, RUN_IS_OVER.encode())
                os.kill(os.getpid(), signal.SIGTERM)
            if over_at is not None and time.monotonic() - over_at > LAST_SAVE_SECONDS:
                os._exit(EXIT_SUPERSEDED)
            current = run.current_attempt()
            if current is not None and attempt and current > attempt:
                message = f"launcher: attempt {current} has begun; this rank is of {attempt}\n"
                os.write(2, message.encode())
                os._exit(EXIT_SUPERSEDED)
            time.sleep(FENCE_POLL_SECONDS)

    threading.Thread(target=fence, name="fence", daemon=True).start()


def main(argv: list[str]) -> int:
    """``RUN_DIR``: what the local supervisor starts."""
    try:
        return run_rank(RunFolder(argv[0]))
    except MiniMindError as error:
        print(f"launcher: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
