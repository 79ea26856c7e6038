from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimind.system import process


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("9900000 100000", 8),
        ("rubbish", 8),
    ],
)
def test_container_quota_lowers_the_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(process, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert process.available_cores() == expected


def test_without_cgroup_the_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CGROUP_QUOTA", Path("/nonexistent/cpu.max"))
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
