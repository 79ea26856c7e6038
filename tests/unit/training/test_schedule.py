from __future__ import annotations

import logging

import pytest

from minimind.checkpoint.state import Progress, TrainState
from minimind.config import TrainConfig
from minimind.training.schedule import learning_rate_at, plan_schedule
from tests.checkpoints import train_state


def rate(step: int, total: int = 100, warmup: float = 0.1, floor: float = 0.1) -> float:
    return learning_rate_at(step, total, 1.0, warmup_ratio=warmup, min_ratio=floor)


def test_schedule_warms_up_peaks_and_ends_at_the_floor() -> None:
    rates = [rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.1)
    assert rate(1000) == pytest.approx(0.1)


def test_schedule_halfway_is_the_mean_of_peak_and_floor() -> None:
    assert rate(50, total=101, warmup=0.0, floor=0.2) == pytest.approx(0.6)


def test_schedule_of_one_step() -> None:
    assert rate(0, total=1, warmup=0.0) == 1.0


def saved(config: TrainConfig, world_size: int) -> TrainState:
    return train_state(
        config=config.to_dict(),
        world_size=world_size,
        rows_per_update=config.batch_size * config.accumulation_steps * world_size,
    )


def test_fresh_schedule_counts_the_short_last_window() -> None:
    config = TrainConfig(batch_size=4, accumulation_steps=2, epochs=3)
    schedule = plan_schedule(config, 2, 33, Progress(), None)
    assert schedule.rows_per_micro_step == 8
    assert schedule.rows_per_update == 16
    assert schedule.total_steps == 9


def test_max_steps_ends_earlier_but_never_later() -> None:
    config = TrainConfig(batch_size=4, accumulation_steps=2, max_steps=2)
    assert plan_schedule(config, 1, 80, Progress(), None).total_steps == 2
    config = TrainConfig(batch_size=4, accumulation_steps=2, max_steps=99)
    assert plan_schedule(config, 1, 80, Progress(), None).total_steps == 10


def test_resume_keeps_the_total() -> None:
    config = TrainConfig(batch_size=4, accumulation_steps=2, epochs=2)
    progress = Progress(epoch=0, step=6, rows_done=24, global_step=3)
    schedule = plan_schedule(config, 1, 80, progress, saved(config, 1))
    assert schedule.total_steps == 20


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 4), (2, 2), (4, 1)])
def test_another_world_size_keeps_the_rows_per_update(world_size: int, accumulation: int) -> None:
    config = TrainConfig(batch_size=4, accumulation_steps=2)
    schedule = plan_schedule(config, world_size, 160, Progress(), saved(config, 2))
    assert schedule.accumulation_steps == accumulation
    assert schedule.rows_per_update == 16
    assert schedule.total_steps == 10


def test_what_cannot_be_kept_is_said(caplog: pytest.LogCaptureFixture) -> None:
    config = TrainConfig(batch_size=4, accumulation_steps=2)
    with caplog.at_level(logging.WARNING):
        schedule = plan_schedule(config, 3, 160, Progress(), saved(config, 2))
    assert schedule.rows_per_update == 24
    assert "24 rows an update instead of 16" in caplog.text


def test_flags_that_the_user_changed_win_over_the_kept_update() -> None:
    before = TrainConfig(batch_size=4, accumulation_steps=2)
    now = TrainConfig(batch_size=4, accumulation_steps=3)
    assert plan_schedule(now, 1, 160, Progress(), saved(before, 2)).accumulation_steps == 3
