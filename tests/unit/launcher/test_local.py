"""One supervisor a run, and what is known of a run between two of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import local, state
from launcher.local import LocalRanks, LocalRun, LocalSupervisor
from launcher.runs import RunFolder
from launcher.spec import JobSpec
from tests.e2e.lab import poll

NOBODY = 2**22 + 1
"""No process has this number."""


@pytest.fixture
def run(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.submitit.mkdir()
    folder.write_spec(make_spec())
    return folder


def test_a_second_supervisor_stands_back(run: RunFolder) -> None:
    with (run.root / "supervisor.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        assert LocalSupervisor(run).main() == 75
    assert run.events() == []


def test_a_folder_that_others_can_write_is_refused_in_one_line(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.root.chmod(0o770)
    with pytest.raises(SystemExit) as stop:
        LocalRun((str(run.root),))()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"launcher: error: {run.root} can be written by")
    assert run.events() == []


def test_a_run_told_to_go_on_is_not_interrupted_before_its_supervisor_begins(
    run: RunFolder,
) -> None:
    run.append("submitted", job_id=str(NOBODY), cluster="local")
    run.append("supervisor_started", pid=NOBODY)
    run.append("attempt_started", attempt=1)
    assert state.job_state(run, None)[0] == state.INTERRUPTED
    run.append("submitted", job_id=str(os.getpid()), cluster="local")
    assert state.job_state(run, None)[0] == state.REQUEUED
    run.append("supervisor_started", pid=NOBODY)
    assert state.job_state(run, None)[0] == state.INTERRUPTED


@pytest.mark.parametrize(("code", "broken"), [(0, False), (75, True), (1, True)])
def test_a_rank_that_leaves_the_others_is_seen(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, code: int, broken: bool
) -> None:
    """One that was stopped before it met the others ends with 75, and they wait for it."""
    script = f"if [ $RANK = 1 ]; then exit {code}; fi; exec sleep 60"
    monkeypatch.setattr(local, "rank_command", lambda spec: ["sh", "-c", script])
    run.attempt_dir(1).mkdir(parents=True)
    run.code.mkdir()
    ranks = LocalRanks(run, replace(run.spec(), nodes=1, gpus=2), 1, port=1)
    poll(lambda: ranks.codes()[1] is not None, "the end of rank 1")
    assert ranks.poll() is None
    assert ranks.broken() is broken
    ranks.kill()
    poll(lambda: ranks.poll() is not None, "the end of rank 0")
