from __future__ import annotations

import os
from pathlib import Path

import pytest

from minimind.system import process as cores


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
    monkeypatch.setattr(cores, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.available_cores() == expected


def test_without_cgroup_the_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "CGROUP_QUOTA", Path("/nonexistent/cpu.max"))
    assert cores.available_cores() == len(os.sched_getaffinity(0))
