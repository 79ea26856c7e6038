from __future__ import annotations

import logging

import pytest

from minimind.checkpoint.resume import check_config, check_data, plan_schedule
from minimind.checkpoint.state import Progress, TrainState
from minimind.config import TrainConfig
from minimind.errors import ConfigError
from tests.checkpoints import train_state


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


def test_another_model_is_refused() -> None:
    before = TrainConfig(num_hidden_layers=4).to_dict()
    with pytest.raises(ConfigError, match="--num_hidden_layers 4, not 8"):
        check_config(TrainConfig(), before)


def test_another_rate_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_config(TrainConfig(learning_rate=1e-3), TrainConfig().to_dict())
    assert "--learning_rate was 0.0005 and is now 0.001" in caplog.text


def test_paths_and_intervals_may_change_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    check_config(
        TrainConfig(save_dir="x", log_interval=1, save_interval=7), TrainConfig().to_dict()
    )
    assert caplog.text == ""


def test_other_data_is_refused() -> None:
    check_data("a", "a")
    with pytest.raises(ConfigError, match="other data or another tokenizer"):
        check_data("a", "b")
