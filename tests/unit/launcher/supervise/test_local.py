"""One supervisor a run, and what is known of a run between two of them."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.inspect import run_state as state
from launcher.inspect.control import cancel_run
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise import local
from launcher.supervise.local import AttemptRanks, LocalMachine, LocalRun
from tests.e2e.lab import poll

NOBODY = 2**22 + 1
"""No process has this number."""
SUPERVISED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


@pytest.fixture
def run(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.submitit.mkdir()
    folder.write_spec(make_spec())
    return folder


def test_a_second_supervisor_stands_back(run: RunFolder) -> None:
    with (run.root / "supervisor.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        assert LocalMachine(run).main() == 75
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


def test_what_the_machine_refuses_a_supervisor_is_one_line(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.supervisor_lock.mkdir()
    with pytest.raises(SystemExit) as stop:
        LocalRun((str(run.root),))()
    assert stop.value.code == 1
    expected = f"launcher: error: {run.supervisor_lock}: Is a directory\n"
    assert capsys.readouterr().err == expected


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
    ranks = AttemptRanks(run, replace(run.spec(), nodes=1, gpus=2), 1, port=1)
    poll(lambda: ranks.codes()[1] is not None, "the end of rank 1")
    assert ranks.poll() is None
    assert ranks.broken() is broken
    ranks.kill()
    poll(lambda: ranks.poll() is not None, "the end of rank 0")


ENGINE = """
echo "$@" >> "$0.asked"
case "$*" in *status=paused*) cat "$0.paused" ;; esac
case "$1" in unpause) : > "$0.paused" ;; run) exec sleep 600 ;; esac
"""


def test_a_paused_container_is_known_and_goes_on_to_be_stopped(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is a stand-in: what runs in a container is out of sight from here."""
    docker = run.root / "docker"
    docker.write_text(f"#!/bin/sh{ENGINE}")
    docker.chmod(0o755)
    paused = run.root / "docker.paused"
    paused.write_text("")
    monkeypatch.setenv("PATH", f"{run.root}:{os.environ['PATH']}")
    run.attempt_dir(1).mkdir(parents=True)
    machine = LocalMachine(run)
    machine.spec = replace(run.spec(), nodes=1, gpus=1, container="docker", image="minimind")
    machine.ranks = AttemptRanks(run, machine.spec, 1, port=1)
    try:
        assert machine.ranks.suspended(on_all_nodes=False) == ""
        paused.write_text("c0ffee\n")
        assert machine.ranks.suspended(on_all_nodes=False).startswith(
            "container c0ffee is paused (docker unpause"
        )
        machine.stop_signal = signal.SIGTERM
        machine.tick()
        assert machine.ranks.suspended(on_all_nodes=False) == ""
        poll(lambda: machine.ranks.poll() is not None, "the rank's client to get the signal")
    finally:
        machine.ranks.kill()
    asked = (run.root / "docker.asked").read_text().splitlines()
    assert "unpause c0ffee" in asked


@pytest.fixture
def supervised(
    run: RunFolder, make_spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LocalMachine]]:
    """Makes supervisors in this process whose single rank is a shell script."""
    before = {number: signal.getsignal(number) for number in SUPERVISED_SIGNALS}

    def make(script: str, **changes: Any) -> LocalMachine:
        save_dir = str(run.root / "out")
        spec = make_spec(cluster="local", nodes=1, gpus=1, save_dir=save_dir, **changes)
        run.write_spec(spec)
        run.code.mkdir()
        run.append("submitted", job_id=str(os.getpid()), cluster="local")
        monkeypatch.setattr(local, "rank_command", lambda spec: ["sh", "-c", script])
        return LocalMachine(run)

    yield make
    for number, handler in before.items():
        signal.signal(number, handler)


def once(run: RunFolder, event: str, act: Callable[[], object]) -> threading.Thread:
    """Acts as soon as ``event`` is on record."""

    def wait() -> None:
        poll(lambda: any(e["event"] == event for e in run.events()), event, 30)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def between_attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Acts while the supervisor rests between two attempts."""

    def set_act(act: Callable[[], object]) -> None:
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: act())
        monkeypatch.setattr(local, "time", clock)

    return set_act


def stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def causes_of(run: RunFolder) -> list[str]:
    return [event["cause"] for event in run.events() if event["event"] == "attempt_ended"]


def test_stop_that_meets_a_rank_without_a_handler_is_a_stop(
    run: RunFolder, supervised: Callable[..., LocalMachine]
) -> None:
    """Python takes a moment to start; until then SIGTERM ends it by default."""
    supervisor = supervised("exec sleep 60", max_restarts=0)
    thread = once(run, "attempt_started", stop_this_process)
    assert supervisor.main() == 75
    thread.join()
    assert causes_of(run) == ["stop_requested"]
    assert run.final() is None


def test_rank_that_somebody_else_ends_has_crashed(
    run: RunFolder, supervised: Callable[..., LocalMachine]
) -> None:
    assert supervised("kill -TERM $$", max_restarts=0).main() == 143
    assert causes_of(run) == ["crash"]


def test_stop_between_two_attempts_begins_no_other(
    run: RunFolder,
    supervised: Callable[..., LocalMachine],
    between_attempts: Callable[[Callable[[], object]], None],
) -> None:
    between_attempts(stop_this_process)
    assert supervised("exit 1", max_restarts=9).main() == 75
    assert causes_of(run) == ["crash"]
    assert run.final() is None


def test_cancel_between_two_attempts_ends_the_run(
    run: RunFolder,
    supervised: Callable[..., LocalMachine],
    between_attempts: Callable[[Callable[[], object]], None],
) -> None:
    between_attempts(lambda: cancel_run(run))
    assert supervised("exit 1", max_restarts=9).main() == 130
    assert causes_of(run) == ["crash"]
    assert state.job_state(run, None)[0] == state.CANCELLED


def test_ranks_that_always_leave_before_they_train_are_not_started_for_ever(
    run: RunFolder, supervised: Callable[..., LocalMachine]
) -> None:
    assert supervised("exit 75", max_false_starts=2).main() == 1
    assert causes_of(run) == ["stop_requested"] * 2
    assert state.job_state(run, None)[0] == state.FAILED


def test_a_stop_ends_the_pause_before_the_next_attempt(
    run: RunFolder, supervised: Callable[..., LocalMachine]
) -> None:
    machine = supervised("exit 75")
    pauses = []

    def act(seconds: float) -> None:
        pauses.append(seconds)
        stop_this_process()

    machine.stop_signal = None
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=act)
        patch.setattr(local, "time", clock)
        machine._take_signals()
        machine._rest(300)
    assert pauses == [local.RESTART_SECONDS]
