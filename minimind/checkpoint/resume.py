"""Going on where a checkpoint stands: the same run, or a clear word on why it is not."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from minimind.config import TrainConfig
from minimind.errors import ConfigError, WeightsError
from minimind.rundir.layout import checkpoints_of, flags_of_checkpoint, stem_of_flags

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


_UPSTREAMS = re.compile(r"(?P<prefix>.+)_[0-9]+(_moe)?_resume\.pth")


def check_near_misses(config: TrainConfig) -> None:
    """Refuse to begin anew where ``--from_resume 1`` finds only checkpoints of nearly that name.

    Whoever asks to go on, and has one flag wrong, would lose the old weights to the new run.

    Raises:
        ConfigError: it does; the message names what is there, and how to go on from it.
        OSError: the folder cannot be read.
    """
    wanted = config.checkpoint_file
    if config.from_resume != "1" or checkpoints_of(wanted):
        return
    names = sorted(os.listdir(wanted.parent)) if wanted.parent.is_dir() else []
    for name in names:
        flags = flags_of_checkpoint(name)
        if flags is not None and _is_near(flags, config):
            raise ConfigError(
                f"--from_resume 1: {wanted.parent} holds no {wanted.name}, but {name}, of "
                f"--save_weight {flags['save_weight']} --hidden_size {flags['hidden_size']} "
                f"--use_moe {flags['use_moe']}: correct these to go on from it, or begin anew "
                "with --from_resume 0"
            )
    for name in names:
        theirs = _UPSTREAMS.fullmatch(name)
        if theirs is not None and theirs["prefix"] == config.save_weight:
            raise ConfigError(
                f"--from_resume 1: {wanted.parent} holds no {wanted.name}, but {name}, which "
                "upstream MiniMind wrote and only it can go on from: start from its weights with "
                f"--from_weight {wanted.parent / name} --from_resume 0"
            )


def _is_near(flags: dict[str, Any], config: TrainConfig) -> bool:
    """The same prefix with another size or kind, or the whole name where a prefix is asked for."""
    wanted = config.save_weight.casefold()
    return wanted in (flags["save_weight"].casefold(), stem_of_flags(flags).casefold())


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
