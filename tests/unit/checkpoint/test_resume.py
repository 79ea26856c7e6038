from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minimind.checkpoint.resume import check_config, check_data, check_near_misses
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


@pytest.mark.parametrize(
    ("there", "flags", "said"),
    [
        ("pretrain_64.pt", {"hidden_size": 128}, "--hidden_size 64 --use_moe 0"),
        ("pretrain_64_moe.step0000000012.pt", {"hidden_size": 64}, "--hidden_size 64 --use_moe 1"),
        ("Pretrain_512.pt", {}, "--save_weight Pretrain --hidden_size 512"),
        ("pretrain_512.pt", {"save_weight": "pretrain_512"}, "--save_weight pretrain "),
        ("pretrain_512_resume.pth", {}, r"upstream MiniMind wrote.*--from_weight .*_resume\.pth"),
        ("pretrain_768_resume.pth", {}, "upstream MiniMind wrote"),
    ],
)
def test_a_near_miss_is_named_and_nothing_begins_anew(
    tmp_path: Path, there: str, flags: dict[str, Any], said: str
) -> None:
    (tmp_path / there).touch()
    config = TrainConfig(checkpoint_dir=str(tmp_path), from_resume="1", **flags)
    with pytest.raises(ConfigError, match=said) as caught:
        check_near_misses(config)
    assert there in str(caught.value)
    assert "\n" not in str(caught.value)
    for wish in ("0", "auto"):
        check_near_misses(replace(config, from_resume=wish))


@pytest.mark.parametrize(
    "there",
    ["", "other_512.pt", "pretrain_512.replaced.pt", "pretrain_512.lock", "sft_512_resume.pth"],
)
def test_a_first_start_beside_other_runs_is_no_near_miss(tmp_path: Path, there: str) -> None:
    if there:
        (tmp_path / there).touch()
    check_near_misses(TrainConfig(checkpoint_dir=str(tmp_path), from_resume="1"))
    check_near_misses(TrainConfig(checkpoint_dir=str(tmp_path / "none"), from_resume="1"))


def test_the_checkpoint_itself_beside_others_is_found(tmp_path: Path) -> None:
    for name in ("pretrain_64.pt", "pretrain_512.step0000000003.pt"):
        (tmp_path / name).touch()
    check_near_misses(TrainConfig(checkpoint_dir=str(tmp_path), from_resume="1"))
