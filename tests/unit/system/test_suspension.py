from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimind.system.suspension import FROZEN, STOPPED, suspension
from tests.e2e.lab import poll
from tests.needs import lacks


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started.pid
        started.kill()


def test_a_process_that_runs_or_has_ended_is_not_suspended(process: int) -> None:
    assert suspension(process) == suspension(os.getpid()) == suspension(2**22 + 1) == ""


def test_a_process_is_seen_to_be_stopped_and_to_go_on(process: int) -> None:
    os.kill(process, signal.SIGSTOP)
    poll(lambda: suspension(process) == STOPPED, "the stop")
    os.kill(process, signal.SIGCONT)
    poll(lambda: suspension(process) == "", "the continuation")


@pytest.mark.parametrize(
    ("kind", "line", "file", "frozen", "thawed"),
    [
        ("cgroup2", "0::/job", "cgroup.events", "populated 1\nfrozen 1", "populated 1\nfrozen 0"),
        ("cgroup", "4:freezer:/job", "freezer.state", "FROZEN", "THAWED"),
        ("cgroup", "4:cpu,freezer:/job", "freezer.state", "FREEZING", "THAWED"),
    ],
)
def test_what_the_files_of_a_control_group_say(
    tmp_path: Path, kind: str, line: str, file: str, frozen: str, thawed: str
) -> None:
    proc, group = tmp_path / "proc", tmp_path / "groups" / "job"
    (proc / "7").mkdir(parents=True)
    (proc / "7" / "stat").write_text("7 (a program) S 1")
    (proc / "7" / "cgroup").write_text(f"{line}\n1:name=systemd:/job\n")
    (proc / "mounts").write_text(f"{kind} {group.parent} {kind} rw,freezer 0 0\n")
    assert suspension(7, proc) == ""
    group.mkdir(parents=True)
    for said, expected in ((frozen, FROZEN), (thawed, "")):
        (group / file).write_text(f"{said}\n")
        assert suspension(7, proc) == expected


CGROUPS = [
    ("cgroup2", "", "cgroup.freeze", "1", "0"),
    ("cgroup", "freezer", "freezer.state", "FROZEN", "THAWED"),
]


def test_a_process_in_a_frozen_control_group_is_seen(process: int) -> None:
    """By the kernel's own word, in each hierarchy that this machine has."""
    seen = [frozen_and_seen(process, *cgroup) for cgroup in CGROUPS]
    if not any(seen):
        lacks("a control group that this user may freeze")


def frozen_and_seen(process: int, kind: str, option: str, switch: str, on: str, off: str) -> bool:
    """Freeze a group with ``process`` and see it; False where such groups cannot be made."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    root = next((Path(m[1]) for m in mounts if m[2] == kind and option in m[3]), None)
    if root is None or not os.access(root, os.W_OK):
        return False
    parent = root / f"minimind-test-{os.getpid()}"
    inner = parent / "inner"
    with contextlib.ExitStack() as cleanup:
        try:
            inner.mkdir(parents=True)
            cleanup.callback(parent.rmdir)
            cleanup.callback(inner.rmdir)
            (inner / "cgroup.procs").write_text(str(process))
        except OSError:
            return False
        # Whatever happens, it leaves the group, and with it the freezer.
        cleanup.callback((root / "cgroup.procs").write_text, str(process))
        (parent / switch).write_text(on)
        poll(lambda: suspension(process) == FROZEN, "the freeze")
        (parent / switch).write_text(off)
        poll(lambda: suspension(process) == "", "the thaw")
    return True
