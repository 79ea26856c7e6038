"""Mixed precision: which autocast, and whether gradients need scaling."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from minimind.distributed.device import autocast_takes
from minimind.errors import ConfigError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def autocast_context(
    device: torch.device, dtype: str
) -> contextlib.AbstractContextManager[None] | torch.autocast:
    """The context of the forward pass. float32 needs none; it is reusable.

    Raises:
        ConfigError: float16 on a CPU, whose gradients would need a scaler that CPUs lack; or
            what a plug-in's device has no autocast for.
    """
    if dtype == "float32":
        return contextlib.nullcontext()
    if dtype == "float16" and device.type == "cpu":
        raise ConfigError("--dtype float16 needs a GPU; use bfloat16 or float32 on a CPU")
    if not autocast_takes(device, DTYPES[dtype]):
        raise ConfigError(
            f"--dtype {dtype}: torch has no such mixed precision on {device.type} devices; "
            "use --dtype float32"
        )
    return torch.autocast(device.type, dtype=DTYPES[dtype])


def make_scaler(device: torch.device, dtype: str) -> torch.amp.GradScaler:
    """Scale the loss for float16, whose gradients underflow; otherwise do nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype == "float16")


def restore_scaler(scaler: torch.amp.GradScaler, state: dict[str, Any]) -> None:
    """Go on with a checkpoint's scale.

    The state of a run in another dtype is empty: float16 after it starts with a scale of its
    own, which finds its height within a few steps.
    """
    if state:
        scaler.load_state_dict(state)
