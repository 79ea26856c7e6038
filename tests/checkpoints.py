"""Checkpoints for tests: small, whole, and another one for every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from minimind.checkpoint.state import Execution, Progress, RankState, TrainState


def train_state(step: int = 0, *, shape: tuple[int, int] = (4, 4), **changes: Any) -> TrainState:
    """The state of a run on one rank after ``step`` optimiser steps, with ``changes``."""
    weight = torch.full(shape, float(step))
    state = TrainState(
        model={"a.weight": weight, "tied.weight": weight},
        optimizer={"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": []},
        scaler={},
        progress=Progress(step=step, global_step=step),
        wandb_id=None,
        world_size=1,
        rows_per_update=8,
        ranks=[RankState({}, torch.zeros(3, dtype=torch.float64), torch.zeros(()))],
        config={"batch_size": 8, "accumulation_steps": 1},
        execution=Execution("cpu", "float32", compile=False, attention="sdpa"),
        model_config={},
        data="fingerprint",
    )
    return replace(state, **changes)
