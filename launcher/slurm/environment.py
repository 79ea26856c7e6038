"""What Slurm's commands may see of the environment, and what a submission must not inherit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from minimind.rundir import env

SCRUBBED = ("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SUBMITIT_")
"""What a surrounding job, or submitit, has set."""


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
    torchrun's variables win over Slurm's.
    ``SLURM_CONF`` says which cluster is meant, so it stays.
    """
    return {
        key: value
        for key, value in environment.items()
        if key == "SLURM_CONF" or not (key.startswith(SCRUBBED) or key in env.PLACE)
    }


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
