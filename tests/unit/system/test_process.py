from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimind.system import process
from minimind.system.process import cpu_quotas
from tests.unit.system.groups import cgroup


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("9900000 100000", 8),
        ("0 0", 8),
        ("rubbish", 8),
    ],
)
def test_container_quota_lowers_the_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    place = cgroup(tmp_path, "0::/\n", {"cpu.max": quota})
    monkeypatch.setattr(process, "bound_cores", lambda: 8)
    monkeypatch.setattr(process, "cpu_quotas", lambda: cpu_quotas(*place))
    assert process.available_cores() == expected


def test_the_quota_of_a_group_binds_those_inside(tmp_path: Path) -> None:
    files = {"user.slice/cpu.max": "300000 100000", "user.slice/me/cpu.max": "max 100000"}
    assert list(cpu_quotas(*cgroup(tmp_path, "0::/user.slice/me\n", files))) == [3.0]


def test_the_quota_of_cgroup_version_1(tmp_path: Path) -> None:
    files = {
        "cpu/cpu.cfs_quota_us": "150000",
        "cpu/cpu.cfs_period_us": "100000",
        "cpu/unbound/cpu.cfs_quota_us": "-1",
        "cpu/unbound/cpu.cfs_period_us": "100000",
    }
    place = cgroup(tmp_path, "3:cpu,cpuacct:/unbound\n0::/\n", files)
    assert list(cpu_quotas(*place)) == [1.5]


def test_without_a_limit_the_affinity_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (tmp_path / "absent", tmp_path)
    monkeypatch.setattr(process, "cpu_quotas", lambda: cpu_quotas(*place))
    assert process.available_cores() == len(os.sched_getaffinity(0))


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running


def test_a_process_lives_until_it_ends_even_where_nobody_has_looked(
    child: subprocess.Popen[bytes],
) -> None:
    started = process.start_ticks(child.pid)
    assert process.is_alive(child.pid)
    assert process.is_alive(child.pid, started)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    # A zombie: its number is still taken.
    os.kill(child.pid, 0)
    assert not process.is_alive(child.pid)
    assert process.start_ticks(child.pid) is None
    assert process.process_identity(child.pid) is None


def test_another_process_of_the_same_number_is_another_one(
    child: subprocess.Popen[bytes],
) -> None:
    started = process.start_ticks(child.pid)
    assert started is not None
    assert not process.is_alive(child.pid, started - 1)


@pytest.mark.parametrize("pid", [0, -1, 1 << 40, 1 << 80])
def test_what_is_no_number_of_a_process_is_not_alive(pid: int) -> None:
    assert not process.is_alive(pid)


def test_an_identity_names_the_boot_and_the_start() -> None:
    boot, ticks = str(process.process_identity(os.getpid())).split()
    assert boot == process.boot_id()
    assert int(ticks) == process.start_ticks(os.getpid())


def test_this_process_started_before_now() -> None:
    started = process.started_at()
    assert started is not None
    # A test process is a second old at least, the machine no year.
    assert 0 < time.time() - started < 365 * 86400
