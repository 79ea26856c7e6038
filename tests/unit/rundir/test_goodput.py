from __future__ import annotations

import itertools
from typing import Any

import pytest

from minimind.rundir.goodput import Logged, account_for, events_of_metrics, logged_by_attempt


def log(*entries: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"time": time, "event": event, **values} for time, event, values in entries]


KILLED_ONCE = log(
    (0, "submitted", {}),
    (10, "attempt_started", {"attempt": 1, "nodes": ["n1", "n2"]}),
    (15, "started", {"step": 0}),
    (75, "checkpointed", {"step": 60}),
    # Killed at 95 s with 80 steps done, 60 of them saved.
    (95, "attempt_ended", {"attempt": 1, "cause": "crash", "exit_code": 137}),
    (115, "attempt_started", {"attempt": 2}),
    (120, "resumed", {"step": 60}),
    (160, "finished", {"step": 100}),
    (160, "attempt_ended", {"attempt": 2, "cause": "done", "exit_code": 0}),
    (160, "run_ended", {}),
)
POINTS = [
    {"time": 50, "global_step": 40},
    {"time": 94, "global_step": 80, "checkpoint_seconds": 0.0},
    {"time": 158, "global_step": 100, "checkpoint_seconds": 4.0},
]


def test_a_run_that_was_killed_and_lost_steps() -> None:
    account = account_for(KILLED_ONCE, POINTS, now=9999)
    books = account.to_dict()
    assert books["queue"] == pytest.approx(30)
    assert books["startup"] == pytest.approx(10)
    assert books["lost"] == pytest.approx(20)
    assert books["lost_steps"] == 20
    assert books["checkpoint_stall"] == pytest.approx(4)
    assert books["training"] == pytest.approx(60 + 36)
    assert account.total == pytest.approx(160)
    assert books["goodput"] == pytest.approx(0.6)


def test_a_restart_in_the_same_job_has_no_queue() -> None:
    restarted = log((110, "restarted", {"attempt": 1, "cause": "crash"}))
    events = [*KILLED_ONCE[:5], *restarted, *KILLED_ONCE[5:]]
    books = account_for(events, POINTS, now=9999).to_dict()
    assert books["queue"] == pytest.approx(10)
    assert books["startup"] == pytest.approx(5 + 25)
    assert books["training"] == pytest.approx(60 + 36)


def test_a_look_at_the_nodes_before_an_attempt_is_start_up() -> None:
    seen = {"attempt": 1, "seconds": 1.0, "compute_seconds": 3.0}
    late = {"attempt": 2, "seconds": 9999.0}
    looked = log((10, "preflight", seen), (115, "preflight", late))
    events = [*KILLED_ONCE[:2], looked[0], *KILLED_ONCE[2:6], looked[1], *KILLED_ONCE[6:]]
    account = account_for(events, POINTS, now=9999)
    assert account.seconds("queue") == pytest.approx(10 - 4)
    assert account.seconds("startup") == pytest.approx(10 + 4 + 20)
    assert account.total == pytest.approx(160)


def test_its_attempts_have_cause_steps_and_losses() -> None:
    first, second = account_for(KILLED_ONCE, POINTS, now=9999).attempts
    assert (first.cause, first.exit_code, first.nodes) == ("crash", 137, ("n1", "n2"))
    assert (first.first_step, first.saved_step, first.furthest_step) == (0, 60, 80)
    assert (first.lost_steps, first.lost_seconds) == (20, pytest.approx(20))
    assert (second.cause, second.first_step, second.furthest_step) == ("done", 60, 100)
    assert second.lost_steps == 0


@pytest.mark.parametrize(
    ("begins", "first_step", "went_back_from"),
    [
        ([("started", 60), ("resumed", 60)], 60, 0),
        ([("started", 40), ("resumed", 40)], 40, 60),
        ([("started", 0)], 0, 60),
    ],
)
def test_an_attempt_that_begins_at_less_than_was_saved_has_gone_back(
    begins: list[tuple[str, int]], first_step: int, went_back_from: int
) -> None:
    began = [(120 + i, kind, {"step": step}) for i, (kind, step) in enumerate(begins)]
    events = [*KILLED_ONCE[:6], *log(*began, (160, "checkpointed", {"step": 50}))]
    first, second = account_for(events, [], now=170).attempts
    assert first.went_back_from == 0
    assert (second.first_step, second.went_back_from) == (first_step, went_back_from)


def test_its_spans_follow_each_other() -> None:
    spans = account_for(KILLED_ONCE, POINTS, now=9999).spans
    assert [span.phase for span in spans] == [
        *("queue", "startup", "training", "lost"),
        *("queue", "startup", "training", "checkpoint_stall"),
    ]
    assert [a.end == b.start for a, b in itertools.pairwise(spans)] == [True] * 7


def test_every_second_has_one_place_while_it_runs() -> None:
    events = log(
        (100, "submitted", {}),
        (110, "attempt_started", {"attempt": 1}),
        (112, "started", {"step": 0}),
    )

    def seconds(upto: int) -> dict[str, float]:
        account = account_for(events[:upto], [], now=150)
        return {span.phase: span.seconds for span in account.spans}

    assert seconds(3) == {"queue": 10, "startup": 2, "training": 38}
    assert seconds(1) == {"queue": 50}
    assert account_for([], [], now=150).goodput is None


def test_what_a_running_attempt_has_not_saved_is_not_lost() -> None:
    events = [*KILLED_ONCE[:4]]
    (attempt,) = account_for(events, POINTS[:2], now=95).attempts
    assert (attempt.lost_steps, attempt.furthest_step, attempt.cause) == (0, 80, None)


def test_lost_attempt_without_an_end() -> None:
    events = log(
        (0, "submitted", {}),
        (0, "attempt_started", {"attempt": 1}),
        (0, "started", {"step": 0}),
        (40, "checkpointed", {"step": 40}),
        (60, "attempt_started", {"attempt": 2}),
        (60, "resumed", {"step": 40}),
    )
    account = account_for(events, [{"time": 59, "global_step": 50}], now=100)
    assert account.lost_steps == 10
    assert account.seconds("training") + account.seconds("lost") == pytest.approx(100)
    assert account.seconds("lost") == pytest.approx(60 * 10 / 50)


def test_an_error_is_kept_with_its_attempt() -> None:
    events = log(
        (0, "submitted", {}),
        (1, "attempt_started", {"attempt": 1}),
        (2, "failed", {"error": "ConfigError: --lr is no number"}),
        (3, "attempt_ended", {"attempt": 1, "cause": "config", "exit_code": 2}),
    )
    (attempt,) = account_for(events, [], now=3).attempts
    assert attempt.error == "ConfigError: --lr is no number"
    assert not attempt.trained


def test_points_belong_to_the_attempt_that_was_under_way() -> None:
    events = log((0, "attempt_started", {"attempt": 1}), (10, "attempt_started", {"attempt": 2}))
    metrics = [
        {"time": time, "global_step": step, "checkpoint_seconds": 0.5}
        for time, step in ((1, 1), (5, 7), (11, 6), (12, 8), (13, 9))
    ]
    expected = {1: Logged(7, 1.0), 2: Logged(9, 1.5)}
    assert logged_by_attempt(events, [*metrics, {"loss": 1.0}]) == expected


METRICS = [
    {"time": 12.0, "global_step": 10, "elapsed_seconds": 2.0},
    {"time": 32.0, "global_step": 30, "elapsed_seconds": 20.0},
    {"time": 40.0, "event": "resumed", "global_step": 20},
    {"time": 60.0, "global_step": 40, "elapsed_seconds": 20.0},
]


def test_without_a_launcher_the_metrics_tell_the_attempts() -> None:
    events = events_of_metrics(METRICS, over=True)
    account = account_for(events, METRICS, now=60)
    first, second = account.attempts
    assert (first.began, first.ended, first.lost_steps) == (10.0, 32.0, 10)
    assert (second.first_step, second.furthest_step, second.lost_steps) == (20, 40, 0)
    # 22 s of which 10 of 30 steps were lost; 8 s between the attempts.
    assert account.seconds("lost") == pytest.approx(22 / 3)
    assert account.seconds("queue") == pytest.approx(8)
    assert account.total == pytest.approx(50)


def test_without_a_launcher_a_going_run_has_an_open_end() -> None:
    events = events_of_metrics(METRICS[:2], over=False)
    account = account_for(events, METRICS[:2], now=50)
    (attempt,) = account.attempts
    assert attempt.ended is None
    assert account.seconds("training") == pytest.approx(40)
    assert events_of_metrics([], over=False) == []
