"""The steps of an attempt, on a place that only says what it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from launcher.inspect.explain import doubts
from launcher.preflight.judge import Verdict
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import supervisor
from launcher.supervise.classify import Evidence
from launcher.supervise.supervisor import CannotStart, Supervisor
from tests.own_time import sleeps_by


class EndedRanks:
    """Ranks that have ended already."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def broken(self) -> bool:
        return False

    def suspended(self, *, on_all_nodes: bool) -> str:
        return ""

    def dump_stacks(self) -> None: ...

    def kill(self) -> None: ...


class Place:
    """A place whose attempts end with ``codes``, one after the other."""

    where = "here"
    fence_seconds = 6.0
    restarts_itself = True

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.steps: list[str] = []
        self.pauses: list[float] = []
        self.at_the_end: Callable[[], object] = lambda: None
        self.verdict: Verdict | None = None
        self.has_others = True

    def say(self, text: str) -> None: ...

    def stopped(self, code: int) -> int | None:
        return None if self.codes else 99

    def place(self) -> dict[str, Any]:
        return {"job_id": "7", "nodes": ["here"]}

    def sweep(self) -> None:
        self.steps.append("sweep")

    def look(self) -> Verdict | None:
        return self.verdict

    def unfit(self, number: int, nodes: Mapping[str, str]) -> Evidence | None:
        # The next attempt has other nodes.
        self.verdict = None
        return Evidence(75, unfit=nodes) if self.has_others else None

    def start(self, number: int) -> EndedRanks:
        self.steps.append(f"start {number}")
        if self.codes[0] == 127:
            raise CannotStart
        return EndedRanks(self.codes.pop(0))

    def tick(self) -> None: ...

    def ranks_are_gone(self) -> None:
        self.at_the_end()

    def evidence(self, exit_code: int | None, *, hung: bool = False) -> Evidence:
        return Evidence(exit_code, killed_for_hang=hung)

    def evidence_of_lost(self, number: int) -> Evidence:
        return Evidence(None)

    def again(self, cause: str, exit_code: int, pause: float) -> None:
        self.steps.append(f"again after {cause}")
        self.pauses.append(pause)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the supervisor would have waited."""
    found: list[float] = []
    sleeps_by(monkeypatch, supervisor, found.append)
    return found


def supervise(run: RunFolder, place: Place, **changes: Any) -> int:
    return Supervisor(run, replace(run.spec(), **changes), place).main()


def ended(run: RunFolder) -> list[tuple[int, str]]:
    ends = [event for event in run.events() if event["event"] == "attempt_ended"]
    return [(end["attempt"], end["cause"]) for end in ends]


def test_attempts_follow_each_other_until_the_run_is_done(submitted: RunFolder) -> None:
    place = Place(1, 75, 0)
    assert supervise(submitted, place) == 0
    assert ended(submitted) == [(1, "crash"), (2, "stop_requested"), (3, "done")]
    first = ["sweep", "start 1", "again after crash"]
    second = ["sweep", "start 2", "again after stop_requested"]
    assert place.steps == [*first, *second, "sweep", "start 3"]


def test_what_a_killed_command_was_writing_is_removed(submitted: RunFolder) -> None:
    written = (submitted.spec_file, submitted.current_file, submitted.stopped_marker)
    killed = f"{os.uname().nodename}.{2**30}.00ff00ff.tmp"
    for path in (*written, submitted.done_marker, submitted.secrets_file):
        path.with_name(f".{path.name}.{killed}").write_text("half")
    assert supervise(submitted, Place(0)) == 0
    assert list(submitted.root.rglob("*.tmp")) == []


def test_a_run_that_is_over_begins_no_attempt(
    submitted: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    submitted.finish(Final("crash", 9, "too many"))
    assert supervise(submitted, Place(0)) == 9
    assert submitted.attempt_numbers() == []
    said = capfd.readouterr().out
    assert said == "launcher: this run is over (too many); nothing to do\n"


def test_a_lost_attempt_is_closed_and_its_ranks_get_time_to_stand_back(
    submitted: RunFolder, slept: list[float]
) -> None:
    submitted.append("attempt_started", attempt=submitted.new_attempt())
    assert supervise(submitted, Place(75, 0)) == 0
    assert ended(submitted) == [(1, "lost"), (2, "stop_requested"), (3, "done")]
    assert [seconds for seconds in slept if seconds] == [6.0]
    requeued = [event["by"] for event in submitted.events() if event["event"] == "requeued"]
    assert requeued == ["slurm"]


def test_a_lost_attempt_can_be_one_too_many(submitted: RunFolder) -> None:
    submitted.append("attempt_started", attempt=submitted.new_attempt())
    assert supervise(submitted, Place(0), max_node_failures=0) == 1
    assert submitted.attempt_numbers() == [1]


UNFIT = Verdict({"n2": "it does not answer"}, seen={"looked_at": 2, "seconds": 0.5})


def test_ranks_do_not_start_on_an_unfit_node_where_there_are_others(submitted: RunFolder) -> None:
    place = Place(0)
    place.verdict = UNFIT
    assert supervise(submitted, place, max_restarts=0) == 0
    assert ended(submitted) == [(1, "unfit_node"), (2, "done")]
    assert place.steps == ["sweep", "again after unfit_node", "sweep", "start 2"]
    events = submitted.events()
    seen, suspect, end = events[2:5]
    assert (seen["event"], seen["looked_at"], seen["seconds"]) == ("preflight", 2, 0.5)
    values = {"event": "node_suspected", "attempt": 1, "node": "n2", "certain": True}
    assert suspect.items() >= {**values, "reason": "it does not answer"}.items()
    assert end["reason"] == "n2: it does not answer"
    assert not any(event["event"] == "preflight" for event in events[5:])


def test_ranks_start_on_an_unfit_node_where_there_is_no_other(submitted: RunFolder) -> None:
    place = Place(0)
    place.verdict, place.has_others = UNFIT, False
    assert supervise(submitted, place) == 0
    assert ended(submitted) == [(1, "done")]


def test_what_is_wrong_everywhere_ends_the_run_before_an_attempt(
    submitted: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place(0)
    place.verdict = Verdict(everywhere="n1: it shows no GPU; the same on all other nodes")
    assert supervise(submitted, place) == 2
    assert submitted.attempt_numbers() == []
    said = "launcher: error: n1: it shows no GPU; the same on all other nodes\n"
    assert capfd.readouterr().out == said
    final = submitted.final()
    assert final is not None
    assert final.cause == "config"


def test_what_may_do_harm_is_said_and_the_ranks_start(
    submitted: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place(0)
    place.verdict = Verdict(warnings=("n1: /dev/shm has 0 MiB left",))
    assert supervise(submitted, place) == 0
    assert "launcher: warning: n1: /dev/shm has 0 MiB left\n" in capfd.readouterr().out
    assert doubts(submitted.events()) == ["before attempt 1: n1: /dev/shm has 0 MiB left"]


def test_a_program_that_is_not_there_is_not_tried_again(submitted: RunFolder) -> None:
    assert supervise(submitted, Place(127)) == 2
    assert ended(submitted) == [(1, "config")]


def test_a_superseded_supervisor_leaves_the_end_to_its_successor(submitted: RunFolder) -> None:
    place = Place(0)
    place.at_the_end = submitted.new_attempt
    assert supervise(submitted, place) == 75
    assert ended(submitted) == []
    assert submitted.final() is None


def test_a_stop_before_an_attempt_begins_none(submitted: RunFolder) -> None:
    assert supervise(submitted, Place()) == 99
    assert submitted.attempt_numbers() == []


def test_a_run_whose_checkpoint_is_gone_ends_before_an_attempt_begins(
    submitted: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    submitted.append("attempt_started", attempt=submitted.new_attempt(), job_id="7")
    submitted.append("checkpointed", step=10)
    submitted.append("attempt_ended", attempt=1, cause="preempted", step=10)
    place = Place(0)
    assert supervise(submitted, place, train_args=("--from_resume", "auto")) == 2
    assert place.steps == []
    assert submitted.attempt_numbers() == [1]
    final = submitted.final()
    assert final is not None
    assert (final.cause, final.exit_code) == ("config", 2)
    assert final.reason.startswith("a checkpoint of optimiser step 10 is on record")
    assert submitted.events()[-1]["event"] == "run_ended"
    assert final.reason in capfd.readouterr().out


def test_a_run_begins_anew_once(submitted: RunFolder) -> None:
    """Its second attempt goes on from what the first one saved."""
    place = Place(75, 0)
    place.at_the_end = lambda: submitted.append("started", step=0)
    wishes = ("--from_resume", "0")
    assert supervise(submitted, place, train_args=wishes) == 0
    assert submitted.spec().train_args == (*wishes, "--from_resume", "auto")


def test_attempts_that_never_train_come_after_longer_and_longer_pauses(
    submitted: RunFolder,
) -> None:
    place = Place(*[75] * 5)
    assert supervise(submitted, place, max_false_starts=5) == 1
    assert place.pauses == [1, 2, 4, 8]
    final = submitted.final()
    assert final is not None
    assert final.cause == "no_progress"
    assert submitted.events()[-2]["prepared"] is False


def test_an_attempt_that_prepared_for_long_is_no_false_start(submitted: RunFolder) -> None:
    place = Place(75, 0)
    place.at_the_end = lambda: submitted.append("preparing", what="tokenising: 1 of 2 MB (50%)")
    assert supervise(submitted, place, max_false_starts=1) == 0
    assert place.pauses == [0]
