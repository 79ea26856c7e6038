from __future__ import annotations

import pytest

from minimind.distributed.rendezvous import Rendezvous, find_rendezvous, first_host, left_alone
from minimind.errors import ConfigError

SLURM_STEP = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
}


def test_alone_without_variables() -> None:
    assert find_rendezvous({}) is None


def test_torchrun() -> None:
    environ = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "1234",
    }
    assert find_rendezvous(environ) == Rendezvous(3, 4, 1, 2, "10.0.0.1", 1234)


def test_slurm_step() -> None:
    assert find_rendezvous(SLURM_STEP) == Rendezvous(5, 16, 1, 8, "gpu03", 21234)


@pytest.mark.parametrize(
    ("tasks", "node", "expected"),
    [("8(x2)", "1", 8), ("2(x3),1", "2", 2), ("2(x3),1", "3", 1), ("4", "0", 4), ("", "0", 1)],
)
def test_the_ranks_of_this_node(tasks: str, node: str, expected: int) -> None:
    environ = {**SLURM_STEP, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": node}
    found = find_rendezvous(environ)
    assert found is not None
    assert found.local_world_size == expected


def test_torchruns_variables_win_over_slurms() -> None:
    environ = {**SLURM_STEP, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    found = find_rendezvous(environ)
    assert found is not None
    assert found.world_size == 2


def test_a_process_in_a_batch_script_is_alone() -> None:
    """Outside of srun there is a SLURM_PROCID too, but no step and nobody else."""
    environ = {k: v for k, v in SLURM_STEP.items() if k != "SLURM_STEP_ID"}
    assert find_rendezvous(environ) is None


def test_submitit_local() -> None:
    environ = {
        "SUBMITIT_LOCAL_JOB_ID": "77",
        "SUBMITIT_LOCAL_GLOBALID": "1",
        "SUBMITIT_LOCAL_LOCALID": "1",
        "SUBMITIT_LOCAL_NTASKS": "2",
    }
    assert find_rendezvous(environ) == Rendezvous(1, 2, 1, 2, "127.0.0.1", 20077)


@pytest.mark.parametrize(
    "environ",
    [
        {"RANK": "4", "WORLD_SIZE": "4"},
        {"RANK": "x", "WORLD_SIZE": "4"},
        {"RANK": "-1", "WORLD_SIZE": "4"},
    ],
)
def test_contradictions_are_config_errors(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        find_rendezvous(environ)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[03-04,7],x1", "gpu03"),
        ("gpu[7,9-12]", "gpu7"),
        ("rack1-node[001-128]", "rack1-node001"),
        ("a[1-2]-ib,b3", "a1-ib"),
    ],
)
def test_first_host(nodelist: str, host: str) -> None:
    assert first_host(nodelist) == host


@pytest.mark.parametrize(
    ("host", "address"), [("gpu03", "tcp://gpu03:29500"), ("fe80::1", "tcp://[fe80::1]:29500")]
)
def test_the_address_as_torch_takes_it(host: str, address: str) -> None:
    assert Rendezvous(0, 2, 0, 1, host, 29500).init_method == address


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({}, True),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_ID": "0"}, False),
        ({"RANK": "0", "WORLD_SIZE": "1"}, False),
    ],
)
def test_a_bare_process_in_a_job_of_several_tasks_is_warned_of(
    changes: dict[str, str], warns: bool
) -> None:
    batch = {k: v for k, v in SLURM_STEP.items() if k not in ("SLURM_STEP_ID", "SLURM_NTASKS")}
    said = left_alone({**batch, "SLURM_NTASKS": "4", **changes})
    assert ("the job has 4 tasks" in said and "srun" in said) == warns
    assert left_alone({}) == ""
