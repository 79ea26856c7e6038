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


CGROUPS = [("cgroup2", "", "cgroup.freeze", "1", "0")]
CGROUPS += [("cgroup", "freezer", "freezer.state", "FROZEN", "THAWED")]


@pytest.mark.parametrize(("kind", "option", "switch", "on", "off"), CGROUPS)
def test_a_process_in_a_frozen_control_group_is_seen(
    process: int, kind: str, option: str, switch: str, on: str, off: str
) -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = [Path(m[1]) for m in mounts if m[2] == kind and option in m[3]]
    if not found or not os.access(found[0], os.W_OK):
        pytest.skip(f"no {kind} {option} here that this user may change")
    parent = found[0] / f"minimind-test-{os.getpid()}"
    inner = parent / "inner"
    with contextlib.ExitStack() as cleanup:
        try:
            inner.mkdir(parents=True)
            cleanup.callback(parent.rmdir)
            cleanup.callback(inner.rmdir)
            (inner / "cgroup.procs").write_text(str(process))
        except OSError as error:
            pytest.skip(f"{inner} takes no process: {error}")
        # Whatever happens, it leaves the group, and with it the freezer.
        cleanup.callback((found[0] / "cgroup.procs").write_text, str(process))
        (parent / switch).write_text(on)
        poll(lambda: suspension(process) == FROZEN, "the freeze")
        (parent / switch).write_text(off)
        poll(lambda: suspension(process) == "", "the thaw")
