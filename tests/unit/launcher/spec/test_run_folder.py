from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import attempt_log as attempt
from minimind.rundir.events import stands_at


@pytest.fixture
def run(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.submitit.mkdir()
    folder.write_spec(make_spec())
    return folder


def test_torn_and_blank_lines_are_left_out(run: RunFolder) -> None:
    run.append("submitted", job_id="1")
    with run.events_file.open("ab") as file:
        file.write(b'\n{"time": 1, "ev\n\xff\xfe\n[1]\n')
    run.append("released")
    assert [event["event"] for event in run.events()] == ["submitted", "released"]
    assert RunFolder(run.root / "nothing").events() == []


def test_an_event_after_a_torn_line_is_not_lost_with_it(run: RunFolder) -> None:
    run.append("submitted", job_id="1")
    with run.events_file.open("ab") as file:
        file.write(b'{"time": 1, "event": "check')
    run.append("attempt_ended", attempt=1, cause="preempted")
    assert [event["event"] for event in run.events()] == ["submitted", "attempt_ended"]


def test_secrets_are_for_their_owner_alone(run: RunFolder) -> None:
    run.write_secrets({"TOKEN": "s3cret"})
    assert stat.S_IMODE(run.secrets_file.stat().st_mode) == 0o600
    assert run.secrets() == {"TOKEN": "s3cret"}
    run.write_secrets({})
    assert run.secrets() == {}


def test_attempts_are_numbered_and_never_shared(run: RunFolder) -> None:
    assert [run.new_attempt() for _ in range(3)] == [1, 2, 3]
    assert run.attempt_numbers() == [1, 2, 3]
    assert run.current_attempt() == 3


def test_final_marker(run: RunFolder) -> None:
    assert run.final() is None
    run.finish(Final("crash", 1, "three crashes"))
    assert run.final() == Final("crash", 1, "three crashes")
    run.reopen()
    assert run.final() is None
    run.finish(Final("done", 0, "finished"))
    run.reopen()
    assert run.final() == Final("done", 0, "finished"), "a finished run stays finished"


def test_progress_of_an_attempt(run: RunFolder, make_spec: Callable[..., JobSpec]) -> None:
    run.append("submitted", job_id="1")
    one = attempt.begin(run, job_id="1")
    run.append("started", step=0)
    run.append("checkpointed", step=10)
    attempt.end(run, make_spec(), one, "preempted", 75)
    two = attempt.begin(run, job_id="1")
    run.append("resumed", step=10)
    run.append("checkpointed", step=10)
    attempt.end(run, make_spec(), two, "preempted", 75)
    three = attempt.begin(run, job_id="1")
    attempt.end(run, make_spec(), three, "preempted", 75)
    ends = attempt.endings(run.events())
    assert [end["progressed"] for end in ends] == [True, False, False]
    assert [end["trained"] for end in ends] == [True, True, False]
    assert [end["step"] for end in ends] == [10, 10, 10]
    assert stands_at(run.events()) == 10


def test_a_run_that_began_anew_moves_on_from_there(
    run: RunFolder, make_spec: Callable[..., JobSpec]
) -> None:
    run.append("submitted", job_id="1")
    run.append("checkpointed", step=1000)
    number = attempt.begin(run, job_id="1")
    run.append("started", step=0)
    run.append("checkpointed", step=10)
    attempt.end(run, make_spec(), number, "preempted", 75)
    (end,) = attempt.endings(run.events())
    assert (end["step"], end["progressed"]) == (10, True)


def test_budgets_begin_anew_when_a_person_submits_again(run: RunFolder) -> None:
    run.append("submitted", job_id="1")
    run.append("attempt_ended", attempt=1, cause="crash")
    run.append("submitted", job_id="2")
    run.append("attempt_ended", attempt=2, cause="crash")
    assert [end["attempt"] for end in attempt.endings(run.events())] == [2]


def test_attempt_without_an_end_is_found(run: RunFolder, make_spec: Callable[..., JobSpec]) -> None:
    assert attempt.unfinished(run.events()) is None
    one = attempt.begin(run, job_id="1")
    assert attempt.unfinished(run.events()) == one
    attempt.end(run, make_spec(), one, "preempted", 75)
    assert attempt.unfinished(run.events()) is None


def test_final_decision_is_on_disk_when_end_returns(
    run: RunFolder, make_spec: Callable[..., JobSpec]
) -> None:
    one = attempt.begin(run, job_id="1")
    decision = attempt.end(run, make_spec(max_restarts=0), one, "crash", 9)
    assert decision.final == run.final() == Final("crash", 9, decision.reason)


def test_half_written_result_of_a_killed_attempt_is_removed(run: RunFolder) -> None:
    leftover = run.submitit / "1_0_result.pkl.save_tmp"
    leftover.touch()
    attempt.begin(run, job_id="1")
    assert not leftover.exists()


def test_an_attempt_s_number_is_not_used_again_when_logs_are_cleared(run: RunFolder) -> None:
    one = attempt.begin(run, job_id="1")
    shutil.rmtree(run.attempts)
    assert attempt.begin(run, job_id="1") == one + 1
