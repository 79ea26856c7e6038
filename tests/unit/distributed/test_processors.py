from __future__ import annotations

import os

import pytest

from minimind.distributed import processors
from minimind.distributed.processors import (
    THREADS,
    bounded_workers,
    processors_of_rank,
    share_processors,
)
from tests.unit.distributed.test_rendezvous import SLURM_STEP

LOCAL = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
STEP = {**SLURM_STEP, "SLURM_CPUS_ON_NODE": "32"}
"""A step of eight ranks on a node."""


def machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, bound: int = 0, available: int = 0
) -> None:
    """A machine of ``cores``; the process is bound to some and may use some, by default all."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(processors, "bound_cores", lambda: bound or cores)
    monkeypatch.setattr(processors, "available_cores", lambda: available or bound or cores)


@pytest.mark.parametrize(
    ("environ", "bound", "expected"),
    [
        pytest.param({}, 64, 64, id="alone"),
        pytest.param(LOCAL, 64, 16, id="ranks that share the machine"),
        pytest.param(LOCAL, 12, 3, id="ranks that share what their parent is bound to"),
        pytest.param(LOCAL, 3, 1, id="more ranks than processors"),
        pytest.param(STEP, 64, 4, id="a job that is bound to nothing"),
        pytest.param(STEP, 32, 4, id="a job that shares its own"),
        pytest.param(STEP, 4, 4, id="each rank bound to its own"),
        pytest.param(STEP, 1, 1, id="each rank bound to one of them"),
        pytest.param(STEP, 16, 4, id="ranks bound to a socket together"),
        pytest.param({**STEP, "SLURM_CPUS_ON_NODE": "512"}, 64, 8, id="more than there are"),
        pytest.param({**STEP, "SLURM_CPUS_ON_NODE": "many"}, 64, 8, id="no number"),
        pytest.param(SLURM_STEP, 64, 8, id="not said"),
        pytest.param({**STEP, **LOCAL}, 32, 8, id="four ranks of one task"),
    ],
)
def test_the_share_of_a_rank(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], bound: int, expected: int
) -> None:
    machine(monkeypatch, 64, bound)
    assert processors_of_rank(environ) == expected


def test_torch_learns_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 64)
    environ = dict(LOCAL)
    share_processors(environ)
    assert {environ[name] for name in THREADS} == {"16"}


def test_what_the_user_sets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 64)
    environ = {**LOCAL, "OMP_NUM_THREADS": "3"}
    share_processors(environ)
    assert environ["OMP_NUM_THREADS"] == "3"


def test_torch_counts_by_itself_where_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 64, bound=8)
    environ: dict[str, str] = {}
    share_processors(environ)
    assert environ == {}


def test_a_quota_holds_for_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 64, available=4)
    environ: dict[str, str] = {}
    share_processors(environ)
    assert {environ[name] for name in THREADS} == {"4"}


def test_workers_are_bounded_by_the_cores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, 4)
    for name in LOCAL:
        monkeypatch.delenv(name, raising=False)
    assert [bounded_workers(n) for n in (0, 1, 4)] == [0, 1, 4]
    assert not caplog.records
    assert bounded_workers(128) == 4
    assert "--num_workers 128 lowered to 4" in caplog.text
    for name, value in LOCAL.items():
        monkeypatch.setenv(name, value)
    assert bounded_workers(2) == 1
