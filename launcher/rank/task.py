"""What runs on each rank: the job's environment becomes the training's, then the training runs.

submitit calls ``RankTask``; the local supervisor runs ``python -m launcher.task RUN_DIR``. The
training runs in this very process, as ``__main__``, so that signals reach it directly. Standard
library only: torch comes with the training.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import runpy
import sys
from dataclasses import dataclass

from launcher.rank.early_signals import hold_early_signals
from launcher.rank.environment import rank_variables
from launcher.rank.fencing import stand_back
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_unshared
from minimind.errors import MiniMindError
from minimind.rundir import env
from minimind.system import redact
from minimind.system.signals import STACKS_SIGNAL
from minimind.system.terminal import complain


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
    faulthandler.register(STACKS_SIGNAL, all_threads=True, chain=False)
    report_step(run)
    os.environ.update(rank_variables(os.environ, spec))
    secrets = run.secrets()
    os.environ.update(secrets)
    os.environ[env.SECRETS] = ",".join(secrets)
    redact.install()
    hold_early_signals()
    stand_back(run, local=spec.cluster == "local")
    os.chdir(spec.workdir)
    sys.argv = [spec.module, *spec.train_args]
    try:
        runpy.run_module(spec.module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    return 0


def report_step(run: RunFolder) -> None:
    """Tells the supervisor by which number Slurm knows the step of these ranks.

    It has no other sure way to signal them: Slurm may list no step of a job.
    """
    step, attempt = (os.environ.get(name, "") for name in ("SLURM_STEP_ID", env.ATTEMPT))
    if os.environ.get("SLURM_PROCID") != "0" or not (step.isdecimal() and attempt.isdecimal()):
        return
    with contextlib.suppress(OSError):
        run.report_step(int(attempt), step)


def main(argv: list[str]) -> int:
    """``RUN_DIR``: what the local supervisor starts."""
    try:
        return run_rank(RunFolder(argv[0]))
    except MiniMindError as error:
        return complain("launcher", error)
