from __future__ import annotations

from typing import Any

import pytest

from launcher.ledger import Ledger, furthest_steps, ledger


def log(*entries: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"time": time, "event": event, **values} for time, event, values in entries]


def test_a_run_that_was_preempted_and_lost_steps() -> None:
    events = log(
        (0, "submitted", {}),
        (10, "attempt_started", {"attempt": 1}),
        (15, "started", {"step": 0}),
        (75, "checkpointed", {"step": 60}),
        # Killed at 95 s with 80 steps done, 60 of them saved.
        (95, "attempt_ended", {"attempt": 1}),
        (115, "attempt_started", {"attempt": 2}),
        (120, "resumed", {"step": 60}),
        (160, "finished", {"step": 100, "stall_seconds": 4.0}),
        (160, "attempt_ended", {"attempt": 2}),
        (160, "run_ended", {}),
    )
    books = ledger(events, {1: 80, 2: 100}, now=9999)
    assert books.queue == pytest.approx(30)
    assert books.startup == pytest.approx(10)
    assert books.lost == pytest.approx(20)
    assert books.lost_steps == 20
    assert books.checkpoint_stall == pytest.approx(4)
    assert books.training == pytest.approx(60 + 36)
    assert books.total == pytest.approx(160)
    assert books.goodput == pytest.approx(0.6)


def test_every_second_has_one_place_while_it_runs() -> None:
    events = log(
        (100, "submitted", {}),
        (110, "attempt_started", {"attempt": 1}),
        (112, "started", {"step": 0}),
    )
    assert ledger(events, {}, now=150) == Ledger(queue=10, startup=2, training=38)
    assert ledger(events[:1], {}, now=150) == Ledger(queue=50)
    assert ledger([], {}, now=150).goodput is None


def test_lost_attempt_without_an_end() -> None:
    events = log(
        (0, "submitted", {}),
        (0, "attempt_started", {"attempt": 1}),
        (0, "started", {"step": 0}),
        (40, "checkpointed", {"step": 40}),
        (60, "attempt_started", {"attempt": 2}),
        (60, "resumed", {"step": 40}),
    )
    books = ledger(events, {1: 50}, now=100)
    assert books.lost_steps == 10
    assert books.training + books.lost == pytest.approx(100)
    assert books.lost == pytest.approx(60 * 10 / 50)


def test_furthest_steps_by_time() -> None:
    events = log((0, "attempt_started", {"attempt": 1}), (10, "attempt_started", {"attempt": 2}))
    metrics = [{"time": t, "global_step": s} for t, s in ((1, 1), (5, 7), (11, 6), (12, 8))]
    assert furthest_steps(events, [*metrics, {"loss": 1.0}]) == {1: 7, 2: 8}
