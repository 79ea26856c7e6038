from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from launcher.spec.job_spec import JobSpec
from launcher.supervise.restart_policy import (
    decide,
    may_stay,
    pause_in_place,
    startup_seconds,
    worth_staying,
)


def ended(cause: str, code: int | None = 75, *, progressed: bool = True) -> dict[str, Any]:
    return {"cause": cause, "exit_code": code, "progressed": progressed, "trained": True}


def test_free_causes_are_free(make_spec: Callable[..., JobSpec]) -> None:
    for cause in ("preempted", "time_limit", "stop_requested"):
        assert decide(make_spec(), [ended(cause)] * 500).final is None


def test_done(make_spec: Callable[..., JobSpec]) -> None:
    final = decide(make_spec(), [ended("crash", 1), ended("done", 0)]).final
    assert final is not None
    assert (final.cause, final.exit_code) == ("done", 0)


@pytest.mark.parametrize("cause, code", [("config", 2), ("cancelled", 130)])
def test_ends_at_once(make_spec: Callable[..., JobSpec], cause: str, code: int) -> None:
    final = decide(make_spec(), [ended(cause)]).final
    assert final is not None
    assert (final.cause, final.exit_code) == (cause, code)


def test_crash_budget(make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(max_restarts=2)
    crashes = [ended("crash", 7)] * 2 + [ended("preempted")] * 9
    assert decide(spec, crashes).final is None
    final = decide(spec, [*crashes, ended("crash", 7)]).final
    assert final is not None
    assert (final.cause, final.exit_code) == ("crash", 7)
    assert "--max-restarts allows 2" in final.reason


def test_no_restart_at_all(make_spec: Callable[..., JobSpec]) -> None:
    assert decide(make_spec(max_restarts=0), [ended("crash", 1)]).final is not None
    assert decide(make_spec(max_restarts=0), [ended("preempted")]).final is None


def test_hangs_and_crashes_share_a_budget(make_spec: Callable[..., JobSpec]) -> None:
    final = decide(make_spec(max_restarts=1), [ended("crash", 1), ended("hang", 137)]).final
    assert final is not None
    assert final.cause == "hang"


def test_node_failures_have_a_budget_of_their_own(make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(max_restarts=0, max_node_failures=2)
    assert decide(spec, [ended("node_failure", None)] * 2).final is None
    final = decide(spec, [ended("node_failure", None)] * 3).final
    assert final is not None
    assert final.exit_code == 1


def test_no_progress_stops(make_spec: Callable[..., JobSpec]) -> None:
    stuck = ended("time_limit", progressed=False)
    assert decide(make_spec(), [stuck, stuck]).final is None
    final = decide(make_spec(), [ended("preempted"), stuck, stuck, stuck]).final
    assert final is not None
    assert final.cause == "no_progress"
    assert "3 attempts in a row" in final.reason


def test_progress_in_between_starts_the_count_anew(make_spec: Callable[..., JobSpec]) -> None:
    stuck = ended("preempted", progressed=False)
    assert decide(make_spec(), [stuck, stuck, ended("preempted"), stuck, stuck]).final is None


def early(cause: str, *, prepared: bool = False) -> dict[str, Any]:
    return ended(cause, progressed=False) | {"trained": False, "prepared": prepared}


@pytest.mark.parametrize("cause", ["preempted", "time_limit", "stop_requested"])
def test_ends_before_training_are_free_up_to_a_limit(
    make_spec: Callable[..., JobSpec], cause: str
) -> None:
    assert decide(make_spec(), [early(cause)] * 29).final is None
    final = decide(make_spec(), [ended(cause), *[early(cause)] * 30]).final
    assert final is not None
    assert (final.cause, final.exit_code) == ("no_progress", 1)
    assert final.reason.startswith("30 attempts in a row ended before training began; the last")


@pytest.mark.parametrize("got_on", [ended("preempted"), early("preempted", prepared=True)])
def test_getting_on_in_between_starts_the_count_of_false_starts_anew(
    make_spec: Callable[..., JobSpec], got_on: dict[str, Any]
) -> None:
    spec = make_spec(max_false_starts=3)
    decision = decide(spec, [*[early("preempted")] * 2, got_on, *[early("preempted")] * 2])
    assert (decision.final, decision.pause) == (None, 2)
    assert decide(spec, [got_on]).pause == 0


def test_pauses_before_another_false_start_grow_to_five_minutes(
    make_spec: Callable[..., JobSpec],
) -> None:
    pauses = [decide(make_spec(), [early("stop_requested")] * n).pause for n in range(1, 12)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_crash_has_a_budget_and_no_pause_of_its_own(make_spec: Callable[..., JobSpec]) -> None:
    decision = decide(make_spec(), [early("crash")] * 2)
    assert (decision.final, decision.pause) == (None, 0)


@pytest.mark.parametrize(
    ("causes", "seconds"),
    [
        (["crash"], 0.0),
        (["crash", "preempted", "crash"], 0.0),
        (["crash", "hang"], 15.0),
        (["crash"] * 4, 60.0),
        (["crash"] * 40, 300.0),
    ],
)
def test_failures_in_a_row_without_a_new_step_come_after_pauses(
    causes: list[str], seconds: float
) -> None:
    in_vain = [ended(cause, 1, progressed=False) for cause in causes]
    assert pause_in_place(in_vain) == seconds
    assert pause_in_place([*in_vain, ended("crash", 1)]) == 0.0
    assert pause_in_place([*in_vain, ended("crash", 1), ended("crash", 1, progressed=False)]) == 0.0


def test_launches_that_slurm_fails_are_free_and_bounded(make_spec: Callable[..., JobSpec]) -> None:
    launch = {**ended("launch_failed", 255, progressed=False), "trained": False}
    spec = make_spec(max_restarts=0, max_false_starts=4)
    assert [decide(spec, [launch] * n).pause for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    final = decide(spec, [launch] * 4).final
    assert final is not None
    assert final.cause == "no_progress"


def test_a_node_found_unfit_costs_no_crash(make_spec: Callable[..., JobSpec]) -> None:
    unfit = {**ended("unfit_node", 75, progressed=False), "trained": False}
    assert decide(make_spec(max_restarts=0), [unfit]).final is None
    assert may_stay([unfit])
    assert pause_in_place([unfit]) == 0.0


def test_the_nodes_go_back_after_a_row_of_failed_launches() -> None:
    launch, crash = ended("launch_failed", 255), ended("crash", 1)
    stays = [may_stay([crash, *[launch] * n]) for n in range(14)]
    assert stays == [n not in (6, 12) for n in range(14)]
    assert not may_stay([ended("preempted")])


@pytest.mark.parametrize(
    ("complaint", "stays"),
    [
        ("Unspecified error", False),
        ("Invalid job id specified", False),
        ("Unable to contact slurm controller (connect failure)", True),
    ],
)
def test_the_nodes_go_back_at_once_where_no_step_can_start_before_the_next_start(
    complaint: str, stays: bool
) -> None:
    reason = f"Unable to confirm allocation for job 7: {complaint}"
    assert may_stay([{**ended("launch_failed", 1), "reason": reason}]) is stays


def test_start_up_is_the_shortest_that_led_to_training() -> None:
    def attempt(*offsets: tuple[float, str]) -> list[dict[str, Any]]:
        return [{"event": "attempt_started", "time": 0.0}] + [
            {"event": kind, "time": time} for time, kind in offsets
        ]

    assert startup_seconds([]) == 30.0
    assert startup_seconds(attempt((3.0, "started"))) == 30.0
    tokenised = attempt((90.0, "preparing"), (4000.0, "started"), (4001.0, "resumed"))
    assert startup_seconds(tokenised) == 4000.0
    assert startup_seconds([*tokenised, *attempt(), *attempt((50.0, "resumed"))]) == 50.0


def test_an_attempt_needs_as_much_time_for_work_as_for_its_start() -> None:
    assert worth_staying(float("inf"), 4000.0)
    assert worth_staying(100.0, 50.0)
    assert not worth_staying(99.0, 50.0)
