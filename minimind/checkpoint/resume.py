"""Going on where a checkpoint stands: the same run, or a clear word on why it is not."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minimind.config import TrainConfig
from minimind.errors import ConfigError, WeightsError
from minimind.weights.torch_file import plain_tensor

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


@dataclass
class Progress:
    """How far the run is, at an optimiser-step boundary."""

    epoch: int = 0
    """Epoch under way, 0-based."""
    step: int = 0
    """Micro-steps done in this epoch."""
    rows_done: int = 0
    """Rows of this epoch trained, by all ranks together."""
    global_step: int = 0
    """Optimiser steps done in the whole run."""
    tokens: int = 0
    """Real tokens trained in the whole run."""
    skipped_steps: int = 0
    """Optimiser steps skipped because the loss or gradient was not finite."""


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


def check_state(saved: Mapping[str, Any], path: Path) -> None:
    """See that a checkpoint has all that a resume reads, of the right types.

    What is in it is not judged here: a damaged file fails its checksums before.

    Raises:
        WeightsError: something else wrote it, or somebody changed it.
    """

    def is_count(value: Any) -> bool:
        return type(value) is int and 0 <= value < 1 << 62

    def is_execution(value: Any) -> bool:
        texts = ("device", "dtype", "attention")
        return (
            isinstance(value, dict)
            and all(isinstance(value.get(name), str) for name in texts)
            and isinstance(value.get("compile"), bool)
        )

    def is_rank(rank: Any) -> bool:
        return (
            isinstance(rank, dict)
            and isinstance(rank.get("rng"), dict)
            and all(plain_tensor(rank.get(name)) for name in ("meter", "grad_norm"))
            and rank["meter"].shape == (3,)
        )

    ranks, config = saved.get("ranks"), saved.get("config")
    counts = (*vars(Progress()), "world_size", "rows_per_update")
    faults = {
        **{name: not is_count(saved.get(name)) for name in counts},
        **{name: not isinstance(saved.get(name), dict) for name in ("optimizer", "scaler")},
        "model": not isinstance(saved.get("model"), dict)
        or not all(plain_tensor(value) for value in saved["model"].values()),
        "model_config": not isinstance(saved.get("model_config"), dict),
        "data": not isinstance(saved.get("data"), str),
        "wandb_id": not isinstance(saved.get("wandb_id"), (str, type(None))),
        "config": not isinstance(config, dict)
        or not all(
            is_count(config.get(name)) and config[name] > 0
            for name in ("batch_size", "accumulation_steps")
        ),
        # Checkpoints from before there was a choice have none.
        "execution": "execution" in saved and not is_execution(saved["execution"]),
        "ranks": not isinstance(ranks, list)
        or not is_count(saved.get("world_size"))
        or len(ranks) != saved["world_size"]
        or not all(is_rank(rank) for rank in ranks),
    }
    if wrong := [name for name, is_wrong in faults.items() if is_wrong]:
        raise WeightsError(
            f"{path} is not a checkpoint that this program can go on from: its "
            f"{', '.join(wrong)} cannot be used; start from its weights with --from_weight"
        )


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
    saved: dict[str, Any] | None,
) -> Schedule:
    """Lay out the rest of the run; on another number of ranks, keep the rows per update.

    Args:
        n_rows: rows of one epoch.
        saved: the checkpoint, or None for a fresh run.
    """
    rows_per_micro_step = config.batch_size * world_size
    accumulation = config.accumulation_steps
    if saved is not None:
        flags = saved["config"]
        same_flags = (flags["batch_size"], flags["accumulation_steps"]) == (
            config.batch_size,
            config.accumulation_steps,
        )
        if same_flags and saved["rows_per_update"] != rows_per_micro_step * accumulation:
            kept, rest = divmod(saved["rows_per_update"], rows_per_micro_step)
            if kept >= 1 and rest == 0:
                accumulation = kept
                log.info(
                    "%d ranks instead of %d: accumulating %d micro-steps keeps %d rows an update",
                    world_size,
                    saved["world_size"],
                    kept,
                    saved["rows_per_update"],
                )
            else:
                log.warning(
                    "%d ranks instead of %d: %d rows an update instead of %d; choose a "
                    "--batch_size that divides it to keep it",
                    world_size,
                    saved["world_size"],
                    rows_per_micro_step * accumulation,
                    saved["rows_per_update"],
                )
    per_update = rows_per_micro_step * accumulation
    left_here = math.ceil(max(0, n_rows - progress.rows_done) / per_update)
    epochs_after = max(0, config.epochs - progress.epoch - 1)
    total = progress.global_step + left_here + epochs_after * math.ceil(n_rows / per_update)
    if config.max_steps:
        total = min(total, config.max_steps)
    return Schedule(rows_per_micro_step, accumulation, total)
