from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.errors import ConfigError
from minimind.planning import run_plan
from minimind.rundir import env
from minimind.system.memory import HostMemory
from minimind.training.preflight import announce_plan, refuse_what_cannot_fit

WORLD = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
LARGE = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
GIB = 1 << 30


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GiB."""
    monkeypatch.setattr(run_plan, "host_memory", lambda: HostMemory(16 * GIB, 8 * GIB, 0))


@pytest.mark.usefixtures("host")
def test_a_model_that_cannot_fit_is_refused_with_the_plan(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"), pytest.raises(ConfigError, match="the model does not fit") as no:
        refuse_what_cannot_fit(TrainConfig(**LARGE), WORLD, "bfloat16")
    assert "lower --hidden_size 8192, --num_hidden_layers 80" in str(no.value)
    assert "\n" not in str(no.value)
    assert "cannot fit" in caplog.text
    assert "gradients" in caplog.text
    assert "sequences" not in caplog.text, "of the text nothing is known yet"
    refuse_what_cannot_fit(TrainConfig(), WORLD, "bfloat16")


@pytest.mark.usefixtures("host")
def test_ranks_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(hidden_size=2048, num_hidden_layers=10)
    world = World(rank=0, world_size=16, local_rank=0, device=torch.device("cpu"))
    refuse_what_cannot_fit(config, world, "bfloat16")
    monkeypatch.setenv(env.LOCAL_WORLD_SIZE, "16")
    with pytest.raises(ConfigError, match="for each of 16 ranks"):
        refuse_what_cannot_fit(config, world, "bfloat16")


@pytest.mark.usefixtures("host")
def test_three_lines_and_a_warning_where_it_may_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        config = TrainConfig(checkpoint_dir=str(tmp_path), batch_size=8)
        announce_plan(config, WORLD, 1000, 6400, "bfloat16")
    assert [record.message.split()[:2] for record in caplog.records] == [
        ["plan:", "30.03M"],
        ["plan:", "memory"],
        ["plan:", "disk"],
    ]
    caplog.clear()
    config = TrainConfig(checkpoint_dir=str(tmp_path), batch_size=1024)
    announce_plan(config, WORLD, 1000, 6400, "bfloat16")
    assert "`minimind plan` with the same flags says what would make it fit" in caplog.text
