from __future__ import annotations

import math

import pytest

from minimind.telemetry import time_left as module
from minimind.telemetry.time_left import TimeLeft


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    return clock


def test_the_steps_that_are_left_at_the_speed_so_far(now: list[float]) -> None:
    left = TimeLeft(done=10, total=50, deadline=math.inf)
    now[0] += 20
    assert left.seconds(20) == 60, "ten steps in 20 s, thirty to go"
    assert left.seconds(50) == 0


def test_a_part_of_a_step_counts(now: list[float]) -> None:
    left = TimeLeft(done=0, total=4, deadline=math.inf)
    now[0] += 5
    assert left.seconds(0.5) == 35


def test_max_minutes_ends_it_before_the_steps_do(now: list[float]) -> None:
    left = TimeLeft(done=0, total=1000, deadline=now[0] + 240)
    assert left.seconds(0) == 240, "no speed is known yet"
    now[0] += 30
    assert left.seconds(1) == 210
    now[0] += 400
    assert left.seconds(2) == 0


def test_few_steps_end_it_before_max_minutes_do(now: list[float]) -> None:
    left = TimeLeft(done=0, total=3, deadline=now[0] + 240)
    now[0] += 10
    assert left.seconds(1) == 20
