"""The supervisor of a run that a batch script of the user's own submits, without the launcher.

``python -m launcher.supervise.plain RUN_DIR -- TRAIN FLAGS``, as ``slurm/pretrain.sbatch`` calls
it. What ``launcher submit`` would have left in the run folder, this leaves there at each start of
the job: the spec, from Slurm's variables and the script's, and the submission's event. From then
on the run is like any other. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.containers import runtimes as container
from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.slurm.environment import own_job
from launcher.slurm.parse import leading_number
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.spec.trust import check_trusted, make_private
from launcher.supervise import attempt_log as attempt
from launcher.supervise.local import rank_command
from launcher.supervise.slurm import SlurmJob, supervise_job
from launcher.supervise.supervisor import exit_status
from minimind.errors import ConfigError
from minimind.rundir import causes

OUTPUT = Path("/proc/self/fd/2")
"""What Slurm says about the job it writes to the batch script's standard error."""


def main(argv: list[str]) -> int:
    """``RUN_DIR -- TRAIN FLAGS``; returns the batch script's exit status."""
    if len(argv) < 2 or argv[1] != "--":
        raise SystemExit("usage: python -m launcher.supervise.plain RUN_DIR -- TRAIN FLAGS")
    run = RunFolder(os.path.abspath(argv[0]))
    return exit_status(run, lambda: supervise(run, argv[2:]))


def supervise(run: RunFolder, train_args: list[str]) -> int:
    """The attempts of the run in the job that this process belongs to.

    Raises:
        ConfigError: there is no such job, or the folder is not one that it may use.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise ConfigError("no job of Slurm's: sbatch the script, or train by `minimind pretrain`")
    read_old_marker(run)
    spec = spec_of_job(run, train_args, os.environ)
    if run.final() is None:
        prepare(run, spec)
    elif run.stopped_marker.exists():
        attempt.say(f"launcher: remove {run.stopped_marker} to let the run go on")
    command = [*container.srun_words(spec), *rank_command(spec)]
    return supervise_job(run, spec, SlurmJob(run, spec, command, OUTPUT))


def spec_of_job(run: RunFolder, train_args: list[str], environment: Mapping[str, str]) -> JobSpec:
    """What the job asks for, by its environment.

    Raises:
        ConfigError: a value that cannot work; the message names it.
    """
    ours = ["--save_dir", str(run.output), "--checkpoint_dir", str(run.checkpoints)]
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--save_dir", "--save-dir")
    # The user's flags come later and win.
    arguments = [*ours, "--from_resume", "auto", *train_args]
    return JobSpec(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", run.root.name).lstrip("._-")[:63] or "pretrain",
        run_dir=str(run.root),
        workdir=os.getcwd(),
        train_args=tuple(arguments),
        nodes=leading_number(environment.get("SLURM_JOB_NUM_NODES", ""), 1),
        gpus=leading_number(environment.get("SLURM_NTASKS_PER_NODE", ""), 1),
        save_dir=os.path.abspath(flags.parse_known_args(arguments)[0].save_dir),
        python=sys.executable,
        host_python=sys.executable,
        max_restarts=_whole(environment, "MAX_CRASHES", JobSpec.max_restarts),
        exclude_hours=_whole(environment, "EXCLUDE_HOURS", JobSpec.exclude_hours),
        preflight=_whole(environment, "PREFLIGHT", 1) > 0,
        hang_timeout=_whole(environment, "HANG_TIMEOUT", JobSpec.hang_timeout),
    )


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"{name} {text!r}: must be a whole number")
    return int(text)


def prepare(run: RunFolder, spec: JobSpec) -> None:
    """Makes the run folder, or takes it over from an earlier job of the script.

    Raises:
        ConfigError: others can write to it, or the run is the launcher's or another job's.
        OSError: it cannot be made.
    """
    if not run.root.exists():
        run.root.parent.mkdir(parents=True, exist_ok=True)
        make_private(run.root)
    check_trusted(run)
    if run.code.exists():
        raise ConfigError(f"{run.root} is a run of the launcher's: launcher requeue {run.name}")
    mine, before = own_job(os.environ), run.job_id()
    # Its bare id is what an earlier version put down for a task of an array.
    if before not in (None, mine, os.environ["SLURM_JOB_ID"]):
        job = slurm.show_job(str(before))
        state = job.get("JobState", "") if job is not None else None
        if state is not None and not states.has_ended(state):
            raise ConfigError(f"{run.root} is the run of job {before}, which is {state}")
    run.write_spec(spec)
    if before != mine:
        attempt.record_submission(run, spec, mine)


def read_old_marker(run: RunFolder) -> None:
    """Rewrites an end that the script has marked before there was a supervisor in it.

    ``DONE`` was empty, and ``STOPPED`` one line of text.
    """
    with contextlib.suppress(FileNotFoundError):
        if not run.done_marker.stat().st_size:
            run.finish(Final(causes.DONE, 0, "finished"))
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        text = run.stopped_marker.read_text().strip()
        if not text.startswith("{"):
            cause = causes.CANCELLED if text.startswith("cancelled") else causes.CRASH
            run.finish(Final(cause, 1, text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
