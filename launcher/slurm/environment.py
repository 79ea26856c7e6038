"""What Slurm's commands may see of the environment, and what a submission must not inherit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from launcher.spec.options import OPTIONS
from minimind.rundir import env

JOBS_OWN = ("SLURM", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND", "SALLOC_", "SRUN_", "SUBMITIT_")
"""What the variables begin with that a surrounding job, or submitit, has set."""
USERS_OWN = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
"""What no job sets: which cluster is meant, and who asks."""
SET_BY_SCRIPT = tuple(
    f"SBATCH_{name}"
    for name in (
        *("JOB_NAME", "OUTPUT", "ERROR", "INPUT", "OPEN_MODE", "SIGNAL", "REQUEUE", "NO_REQUEUE"),
        *("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "CPUS_PER_GPU", "GRES", "TRES_PER_TASK"),
        *("ARRAY_INX", "EXPORT", "GET_USER_ENV", "WAIT", "TEST_ONLY", "IGNORE_PBS"),
    )
)
"""A user's defaults for what each of our batch scripts says itself, or relies upon: to sbatch they
would win over the script."""


def own_job(environment: Mapping[str, str]) -> str:
    """What Slurm's commands call the job of ``environment``: its id, in an array ``ARRAY_TASK``.

    SLURM_JOB_ID will not do in an array: that of its last task is the array's own id, and means
    all tasks to every command.
    """
    array, task = (environment.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else environment["SLURM_JOB_ID"]


def query_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what changes the form of Slurm's answers, or hides a part of them.

    A user's own SQUEUE_STATES or SINFO_PARTITION is a filter, SLURM_TIME_FORMAT another
    spelling of times. Array task ids are cut off after 64 characters unless told otherwise.
    """
    kept = {k: v for k, v in environment.items() if not k.startswith(("SQUEUE_", "SINFO_"))}
    return {**kept, "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}


def outer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables of a surrounding job or of torchrun.

    A job submitted from inside a job would inherit its task counts, CPU binding and place, and
    torchrun's variables win over Slurm's. A user's own defaults for sbatch stay, but for those
    that the batch script has an option for.
    """
    dropped = {*env.PLACE, *SET_BY_SCRIPT, *(row.variable for row in OPTIONS)}
    return {
        key: value
        for key, value in environment.items()
        if key in USERS_OWN or not (key.startswith(JOBS_OWN) or key in dropped)
    }


def describe_defaults(environment: Mapping[str, str]) -> list[str]:
    """What becomes of a user's own defaults for sbatch: a line for those that count, or do not."""
    own = {
        key: value
        for key, value in environment.items()
        if key == "SLURM_CLUSTERS" or (key.startswith("SBATCH_") and not key.startswith(JOBS_OWN))
    }
    count = [f"{key}={value}" for key, value in own.items() if key not in SET_BY_SCRIPT]
    ignored = [key for key in own if key in SET_BY_SCRIPT]
    found = []
    if count:
        said = "your defaults for sbatch count where no flag or profile says otherwise"
        found.append(f"{said}: {', '.join(count)}")
    if ignored:
        found.append(
            f"not passed on, since the batch script says this itself: {', '.join(ignored)}"
        )
    return found


@contextmanager
def submission_environment(hidden: tuple[str, ...] = ()) -> Iterator[None]:
    """``os.environ`` as sbatch may see it: no outer job, and none of the ``hidden`` secrets."""
    before = dict(os.environ)
    clean = {k: v for k, v in outer_environment(before).items() if k not in hidden}
    os.environ.clear()
    os.environ.update(clean)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
