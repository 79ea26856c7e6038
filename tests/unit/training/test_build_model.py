"""The model of a run, and what there is before it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minimind.config import TrainConfig
from minimind.model import MiniMindConfig
from minimind.telemetry.flops import flops_per_token
from minimind.training.build_model import planned_flops
from minimind.training.schedule import Schedule


@pytest.mark.parametrize(
    ("n_rows", "total_steps", "rows"),
    [(1000, 40, 2000), (1000, 10, 640), (5, 2, 10)],
    ids=["whole epochs", "ended by max_steps", "updates that are mostly empty"],
)
def test_planned_flops_count_rows_that_there_are(n_rows: int, total_steps: int, rows: int) -> None:
    model = MiniMindConfig(hidden_size=64, num_hidden_layers=1)
    plan: Any = SimpleNamespace(n_rows=n_rows, max_seq_len=128)
    schedule = Schedule(rows_per_micro_step=16, accumulation_steps=4, total_steps=total_steps)
    flops = planned_flops(TrainConfig(epochs=2), model, plan, schedule, world_size=2)
    assert flops == pytest.approx(rows / 2 * 128 * flops_per_token(model, 128))
