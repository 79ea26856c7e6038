from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from minimind.checkpoint.state import Progress, TrainState
from minimind.config import TrainConfig
from minimind.training.schedule import learning_rate_at, plan_schedule, planned_rate
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


def resumed(before: TrainConfig, now: TrainConfig, progress: Progress, world_size: int = 1) -> None:
    """Plan the schedule of a run of 80 rows an epoch that goes on, with other flags perhaps."""
    plan_schedule(now, world_size, 80, progress, saved(before, 1))


ONE_EPOCH = TrainConfig(batch_size=4, accumulation_steps=2, epochs=1)
ITS_END = Progress(epoch=0, step=20, rows_done=80, global_step=10)
AT_STEP_5 = Progress(epoch=0, step=10, rows_done=40, global_step=5)


def test_more_epochs_after_the_end_say_how_the_rate_jumps(caplog: pytest.LogCaptureFixture) -> None:
    now = replace(ONE_EPOCH, epochs=3)
    resumed(ONE_EPOCH, now, ITS_END)
    schedule = plan_schedule(now, 1, 80, ITS_END, None)
    assert schedule.total_steps == 30
    before, after = planned_rate(ONE_EPOCH, 10, 10), planned_rate(now, 10, 30)
    assert [record.getMessage() for record in caplog.records] == [
        "--epochs was 1 and is now 3: the learning rate at this step jumps from "
        f"{before:.1e} to {after:.1e}"
    ]
    assert f"{before:.1e}" == "5.0e-05"
    assert after > 4 * before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 1e-3}, "--learning_rate was 0.0005 and is now 0.001: "),
        ({"max_steps": 7}, "--max_steps was 0 and is now 7: "),
        ({"min_lr_ratio": 0.5}, "--min_lr_ratio was 0.1 and is now 0.5: "),
        ({"accumulation_steps": 1}, "--accumulation_steps was 2 and is now 1: "),
        (
            {"epochs": 2, "learning_rate": 1e-3},
            "--epochs was 1 and is now 2, --learning_rate was 0.0005 and is now 0.001: ",
        ),
    ],
)
def test_whatever_changes_the_rate_says_so(
    changes: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(ONE_EPOCH, replace(ONE_EPOCH, **changes), AT_STEP_5)
    assert f"{said}the learning rate at this step jumps from " in caplog.text


def test_other_ranks_that_change_the_update_say_how_the_rate_jumps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resumed(ONE_EPOCH, ONE_EPOCH, AT_STEP_5, world_size=3)
    assert "3 ranks instead of 1: the learning rate at this step jumps from " in caplog.text


@pytest.mark.parametrize(
    ("now", "progress", "world_size"),
    [
        (ONE_EPOCH, AT_STEP_5, 1),
        (ONE_EPOCH, AT_STEP_5, 2),
        (ONE_EPOCH, ITS_END, 1),
        (replace(ONE_EPOCH, learning_rate=1.0), ITS_END, 1),
        (replace(ONE_EPOCH, weight_decay=0.5), AT_STEP_5, 1),
        (replace(ONE_EPOCH, max_steps=99), AT_STEP_5, 1),
    ],
)
def test_a_rate_that_stays_is_not_mentioned(
    now: TrainConfig, progress: Progress, world_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(ONE_EPOCH, now, progress, world_size)
    assert "learning rate" not in caplog.text
