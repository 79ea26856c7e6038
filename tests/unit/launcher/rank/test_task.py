"""What a rank makes of the environment it finds."""

from __future__ import annotations

from collections.abc import Callable

from launcher.rank.task import rank_variables
from launcher.spec.job_spec import JobSpec

STEP = {"SLURM_PROCID": "5", "SLURM_NTASKS": "16", "SLURM_LOCALID": "5"}
PLACE = {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8"}


def test_on_slurm_a_rank_takes_its_place_from_slurm(make_spec: Callable[..., JobSpec]) -> None:
    assert rank_variables(STEP, make_spec()) == PLACE


def test_on_slurm_a_place_of_the_submitters_shell_or_an_image_does_not_count(
    make_spec: Callable[..., JobSpec],
) -> None:
    assert rank_variables({**STEP, "RANK": "0", "WORLD_SIZE": "1"}, make_spec()) == PLACE


def test_on_one_machine_the_supervisor_has_given_the_place(
    make_spec: Callable[..., JobSpec],
) -> None:
    """Also inside an allocation, whose own variables mean something else."""
    here = {**STEP, "RANK": "1", "WORLD_SIZE": "2"}
    assert rank_variables(here, make_spec(cluster="local")) == {}
