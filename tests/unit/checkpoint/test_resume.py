from __future__ import annotations

import pytest

from minimind.checkpoint.resume import check_config, check_data
from minimind.config import TrainConfig
from minimind.errors import ConfigError


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
