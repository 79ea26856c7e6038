"""The environment variables of a rank: what its supervisor gives it, and its place among all."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from minimind.rundir import env

HOST_PYTHON = ("PYTHONHOME", "PYTHONPATH")
"""Where this machine's Python finds its modules. Apptainer, charliecloud and pyxis would pass it
into the image, whose Python then imports what another one installed."""


def attempt_environment(run: RunFolder, spec: JobSpec, number: int) -> dict[str, str]:
    """What all ranks of attempt ``number`` have in common."""
    environment = dict(os.environ)
    # Python must find the run's code in the folder that it starts in.
    environment.pop("PYTHONSAFEPATH", None)
    if spec.container != "none":
        for name in HOST_PYTHON:
            environment.pop(name, None)
        # Without it ch-run does not start, and not every batch job or service has it.
        environment.setdefault("USER", _user_name())
    return environment | spec.env | {env.EVENTS: str(run.events_file), env.ATTEMPT: str(number)}


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def rank_variables(environment: Mapping[str, str], spec: JobSpec) -> dict[str, str]:
    """torchrun's variables for this rank, from Slurm's; on one machine its supervisor has set them.

    On Slurm those that are set already are an image's or somebody's shell's: not this rank's.
    """
    if spec.cluster != "slurm" or "SLURM_PROCID" not in environment:
        return {}
    return {
        env.RANK: environment["SLURM_PROCID"],
        env.WORLD_SIZE: environment["SLURM_NTASKS"],
        env.LOCAL_RANK: environment["SLURM_LOCALID"],
        env.LOCAL_WORLD_SIZE: str(spec.gpus),
    }
