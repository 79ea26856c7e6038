from __future__ import annotations

from typing import Any

import pytest
import torch

from minimind.config import AUTO, DEFAULT_BATCH_SIZE, TrainConfig
from minimind.distributed.world import World
from minimind.planning.rows import Rows
from minimind.planning.run_plan import Machine, RunPlan, plan_run
from minimind.rundir import env
from minimind.training import trial

WORLD = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


def plan_of(**flags: Any) -> RunPlan:
    config = TrainConfig(hidden_size=64, num_hidden_layers=1, device="cpu", **flags)
    machine = Machine("cpu", "host", None)
    return plan_run(config, Rows(100), machine, vocab_size=50, dtype="float32")


def test_it_is_warmed_up_with_the_rows_that_batch_size_auto_is_planned_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiled model is: a batch of -1 rows was one of numpy's errors."""
    warmed: list[int] = []

    def warm_up(model: torch.nn.Module, rows: object, config: TrainConfig, *_: object) -> object:
        warmed.append(config.batch_size)
        return model

    monkeypatch.setattr(trial, "make_replica", warm_up)
    trial._prepare(plan_of(batch_size=AUTO, compile="on"), WORLD)
    assert warmed == [DEFAULT_BATCH_SIZE]


def test_it_waits_for_no_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a step of a job, whose variables are those of one rank of several."""
    for name in env.PLACE:
        monkeypatch.setenv(name, "of a launcher")
    worlds: list[World] = []

    def measure(plan: RunPlan, world: World) -> tuple[float, int]:
        worlds.append(world)
        return 1.0, 1

    monkeypatch.setattr(trial, "_measure_on", measure)
    assert trial.measure(plan_of()) == (1.0, 1)
    assert worlds == [WORLD]
