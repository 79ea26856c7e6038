"""Into how many optimizer steps rows fall."""

from __future__ import annotations

from minimind.config import AUTO, DEFAULT_BATCH_SIZE, TrainConfig


def updates_of(rows: int, per_update: int) -> int:
    """Optimizer steps of so many rows of one epoch; the last may be a short one."""
    return -(-rows // per_update)


def micro_batch(config: TrainConfig) -> int:
    """Rows of a rank's micro-batch; of ``--batch_size auto`` those that its update is made of."""
    return DEFAULT_BATCH_SIZE if config.batch_size == AUTO else config.batch_size


def rows_per_update(config: TrainConfig, ranks: int) -> int:
    """Rows of an optimizer step over all ranks."""
    return micro_batch(config) * config.accumulation_steps * ranks


def planned_updates(config: TrainConfig, rows: int, ranks: int) -> int:
    """Optimizer steps of a whole run over so many rows an epoch."""
    total = config.epochs * updates_of(rows, rows_per_update(config, ranks))
    return min(total, config.max_steps) if config.max_steps else total
