from __future__ import annotations

import pytest
import torch

from minimind.config import AUTO, DEFAULT_BATCH_SIZE, TrainConfig
from minimind.distributed.world import World
from minimind.planning.rows import Rows
from minimind.planning.run_plan import Machine, plan_run
from minimind.training import trial

WORLD = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def test_it_is_warmed_up_with_the_rows_that_batch_size_auto_is_planned_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiled model is: a batch of -1 rows was one of numpy's errors."""
    config = TrainConfig(batch_size=AUTO, hidden_size=64, num_hidden_layers=1, compile="on")
    machine = Machine("cpu", "host", None)
    plan = plan_run(config, Rows(100), machine, vocab_size=50, dtype="float32")
    warmed: list[int] = []

    def warm_up(model: torch.nn.Module, rows: object, config: TrainConfig, *_: object) -> object:
        warmed.append(config.batch_size)
        return model

    monkeypatch.setattr(trial, "make_replica", warm_up)
    trial._prepare(plan, WORLD)
    assert warmed == [DEFAULT_BATCH_SIZE]
