"""Going on where a checkpoint stands: the same run, or a clear word on why it is not."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minimind.checkpoint.state import Progress, TrainState
from minimind.config import TrainConfig
from minimind.errors import ConfigError, WeightsError

log = logging.getLogger(__name__)

SAME_OR_REFUSE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "use_moe",
    "num_experts",
    "num_experts_per_tok",
    "optimizer",
    "max_seq_len",
    "pack",
    "seed",
)
"""With another value the saved tensors or the saved place in the data mean nothing."""

SAME_OR_WARN = (
    "batch_size",
    "accumulation_steps",
    "epochs",
    "max_steps",
    "learning_rate",
    "min_lr_ratio",
    "warmup_ratio",
    "weight_decay",
    "beta1",
    "beta2",
    "grad_clip",
    "dtype",
)
"""With another value the run goes on, but not bit for bit as it would have."""


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


@contextlib.contextmanager
def must_fit(path: Path) -> Iterator[None]:
    """Turn what torch says about a state that is another's into one line.

    Raises:
        WeightsError: the state in ``path`` does not fit.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"the state in {path} does not fit this run: {reason}") from error


def check_config(config: TrainConfig, saved: dict[str, Any]) -> None:
    """Compare the flags of this run with the checkpoint's.

    Raises:
        ConfigError: the checkpoint belongs to another model or another data order.
    """
    now = config.to_dict()
    for name in SAME_OR_REFUSE:
        if name in saved and saved[name] != now[name]:
            raise ConfigError(
                f"the checkpoint was made with --{name} {saved[name]}, not {now[name]}; use the "
                "same to resume, or another --save_weight or --checkpoint_dir for another run"
            )
    for name in SAME_OR_WARN:
        if name in saved and saved[name] != now[name]:
            log.warning(
                "--%s was %s and is now %s: the run goes on, but not bit for bit as before",
                name,
                saved[name],
                now[name],
            )


def check_data(fingerprint: str, saved: str) -> None:
    """Compare the data with the checkpoint's.

    Raises:
        ConfigError: the rows are others, so the place in their order means nothing.
    """
    if fingerprint != saved:
        raise ConfigError(
            "the checkpoint was made with other data or another tokenizer, or other weights in "
            "--data_path; use the same to resume, or start a new run from its weights with "
            "--from_weight and --from_resume 0"
        )


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
        flags = saved.config
        same_flags = (flags["batch_size"], flags["accumulation_steps"]) == (
            config.batch_size,
            config.accumulation_steps,
        )
        if same_flags and saved.rows_per_update != rows_per_micro_step * accumulation:
            kept, rest = divmod(saved.rows_per_update, rows_per_micro_step)
            if kept >= 1 and rest == 0:
                accumulation = kept
                log.info(
                    "%d ranks instead of %d: accumulating %d micro-steps keeps %d rows an update",
                    world_size,
                    saved.world_size,
                    kept,
                    saved.rows_per_update,
                )
            else:
                log.warning(
                    "%d ranks instead of %d: %d rows an update instead of %d; choose a "
                    "--batch_size that divides it to keep it",
                    world_size,
                    saved.world_size,
                    rows_per_micro_step * accumulation,
                    saved.rows_per_update,
                )
    per_update = rows_per_micro_step * accumulation
    left_here = math.ceil(max(0, n_rows - progress.rows_done) / per_update)
    epochs_after = max(0, config.epochs - progress.epoch - 1)
    total = progress.global_step + left_here + epochs_after * math.ceil(n_rows / per_update)
    if config.max_steps:
        total = min(total, config.max_steps)
    return Schedule(rows_per_micro_step, accumulation, total)
