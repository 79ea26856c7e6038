from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from minimind.system import memory
from minimind.system.memory import cgroup_memory, host_memory
from tests.unit.system.groups import cgroup


def test_cgroup_v2_takes_the_tightest_ancestor(tmp_path: Path) -> None:
    place = cgroup(
        tmp_path,
        "0::/slurm/job_7/step_0\n",
        {
            "slurm/memory.max": "max",
            "slurm/memory.current": "1",
            "slurm/job_7/memory.max": "2000",
            "slurm/job_7/memory.current": "1500",
            "slurm/job_7/step_0/memory.max": "9000",
            "slurm/job_7/step_0/memory.current": "700",
        },
    )
    assert cgroup_memory(*place) == (2000, 1500)


def test_cgroup_v1_and_a_path_of_the_host(tmp_path: Path) -> None:
    place = cgroup(
        tmp_path,
        "9:cpu,cpuacct:/x\n4:memory:/docker/0123\n0::/\n",
        {"memory/memory.limit_in_bytes": "4000", "memory/memory.usage_in_bytes": "10"},
    )
    assert cgroup_memory(*place) == (4000, 10)


def test_no_cgroup_limit(tmp_path: Path) -> None:
    assert cgroup_memory(tmp_path / "absent", tmp_path) == (None, 0)
    place = cgroup(tmp_path, "0::/a\n", {"a/memory.max": "max", "a/memory.current": "5"})
    assert cgroup_memory(*place) == (None, 0)


def test_the_machine_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cgroup_memory", lambda: (None, 0))
    found = host_memory()
    assert found is not None
    assert found.total == psutil.virtual_memory().total
    assert found.swap == psutil.swap_memory().total
    assert found.free is not None
    assert 0 < found.free <= found.total


def test_a_limit_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cgroup_memory", lambda: (1_000_000, 400_000))
    found = host_memory()
    assert found is not None
    assert (found.total, found.free) == (1_000_000, 600_000)
