"""Which optimiser steps a run takes, of how many rows, and at which learning rates."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from minimind.checkpoint.state import Progress, TrainState
from minimind.config import TrainConfig
from minimind.planning.updates import updates_of

MAKE_THE_RATE = (
    "epochs",
    "max_steps",
    "batch_size",
    "accumulation_steps",
    "learning_rate",
    "warmup_ratio",
    "min_lr_ratio",
)
"""The flags that make the learning rate of a step."""

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
    total = _total_steps(config, n_rows, progress, rows_per_micro_step * accumulation)
    if saved is not None and progress.global_step < total:
        _tell_new_rate(config, total, n_rows, progress, saved, world_size)
    return Schedule(rows_per_micro_step, accumulation, total)


def _total_steps(config: TrainConfig, n_rows: int, progress: Progress, per_update: int) -> int:
    """Optimiser steps of the whole run, from the place that it is at."""
    left_here = updates_of(max(0, n_rows - progress.rows_done), per_update)
    epochs_after = max(0, config.epochs - progress.epoch - 1)
    total = progress.global_step + left_here + epochs_after * updates_of(n_rows, per_update)
    return min(total, config.max_steps) if config.max_steps else total


def _tell_new_rate(
    config: TrainConfig,
    total: int,
    n_rows: int,
    progress: Progress,
    saved: TrainState,
    world_size: int,
) -> None:
    """Say by how much the learning rate of the next step differs from what it was to be.

    More epochs after the end stretch the whole schedule: the rate leaves its floor again.
    """
    changed = {
        name: saved.config[name]
        for name in MAKE_THE_RATE
        if name in saved.config and saved.config[name] != getattr(config, name)
    }
    asked_before = replace(config, **changed)
    total_before = _total_steps(asked_before, n_rows, progress, saved.rows_per_update)
    step = progress.global_step
    before, now = told_apart(
        planned_rate(asked_before, step, total_before), planned_rate(config, step, total)
    )
    if before == now:
        return
    reasons = [
        f"--{name} was {old} and is now {getattr(config, name)}" for name, old in changed.items()
    ]
    log.warning(
        "%s: the learning rate at this step jumps from %s to %s",
        ", ".join(reasons) or f"{world_size} ranks instead of {saved.world_size}",
        before,
        now,
    )


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers with no more digits than show that they differ, up to four.

    >>> told_apart(5e-5, 2.4e-4), told_apart(4.98e-4, 4.99e-4)
    (('5.0e-05', '2.4e-04'), ('4.980e-04', '4.990e-04'))
    """
    short = f"{one:.1e}", f"{other:.1e}"
    return short if short[0] != short[1] else (f"{one:.3e}", f"{other:.3e}")


def planned_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """The learning rate of optimiser step ``step`` of ``total_steps``."""
    return learning_rate_at(
        step,
        total_steps,
        config.learning_rate,
        warmup_ratio=config.warmup_ratio,
        min_ratio=config.min_lr_ratio,
    )


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
