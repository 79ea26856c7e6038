"""Which optimiser steps a run takes, of how many rows, and at which learning rates."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from minimind.checkpoint.state import Progress, TrainState
from minimind.config import TrainConfig

log = logging.getLogger(__name__)


def learning_rate_at(
    step: int, total_steps: int, peak: float, *, warmup_ratio: float, min_ratio: float
) -> float:
    """Cosine schedule with a linear warm-up and a floor.

    Args:
        step: optimiser steps done so far, 0-based.
        total_steps: optimiser steps of the whole run.
        peak: the rate after the warm-up.
        warmup_ratio: share of ``total_steps`` that warms up.
        min_ratio: the last rate, as a share of ``peak``.
    """
    warmup_steps = round(total_steps * warmup_ratio)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps - 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * (min_ratio + (1 - min_ratio) * cosine)


@dataclass(frozen=True)
class Schedule:
    """How this run's rows fall into micro-steps and optimiser steps."""

    rows_per_micro_step: int
    accumulation_steps: int
    total_steps: int
    """Optimiser steps of the whole run, those before the resume included."""

    @property
    def rows_per_update(self) -> int:
        return self.rows_per_micro_step * self.accumulation_steps


def plan_schedule(
    config: TrainConfig,
    world_size: int,
    n_rows: int,
    progress: Progress,
    saved: TrainState | None,
) -> Schedule:
    """Lay out the rest of the run; on another number of ranks, keep the rows per update.

    Args:
        n_rows: rows of one epoch.
        saved: the checkpoint, or None for a fresh run.
    """
    rows_per_micro_step = config.batch_size * world_size
    accumulation = config.accumulation_steps
    if saved is not None:
        accumulation = _accumulation_after(saved, config, world_size)
    per_update = rows_per_micro_step * accumulation
    left_here = math.ceil(max(0, n_rows - progress.rows_done) / per_update)
    epochs_after = max(0, config.epochs - progress.epoch - 1)
    total = progress.global_step + left_here + epochs_after * math.ceil(n_rows / per_update)
    if config.max_steps:
        total = min(total, config.max_steps)
    return Schedule(rows_per_micro_step, accumulation, total)


def _accumulation_after(saved: TrainState, config: TrainConfig, world_size: int) -> int:
    """Micro-steps an update: as many as keep its rows, unless the flags have changed."""
    rows_per_micro_step = config.batch_size * world_size
    asked = config.accumulation_steps
    before = (saved.config["batch_size"], saved.config["accumulation_steps"])
    if before != (config.batch_size, asked):
        return asked
    if saved.rows_per_update == rows_per_micro_step * asked:
        return asked
    kept, rest = divmod(saved.rows_per_update, rows_per_micro_step)
    if kept >= 1 and rest == 0:
        log.info(
            "%d ranks instead of %d: accumulating %d micro-steps keeps %d rows an update",
            world_size,
            saved.world_size,
            kept,
            saved.rows_per_update,
        )
        return kept
    log.warning(
        "%d ranks instead of %d: %d rows an update instead of %d; choose a "
        "--batch_size that divides it to keep it",
        world_size,
        saved.world_size,
        rows_per_micro_step * asked,
        saved.rows_per_update,
    )
    return asked
