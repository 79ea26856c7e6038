"""What an error that ends a run means for its user."""

from __future__ import annotations

import torch

from minimind.config import TrainConfig
from minimind.errors import MiniMindError, OutOfMemoryError
from minimind.telemetry.monitor import describe_memory


def explain(error: Exception, config: TrainConfig, device: torch.device) -> Exception:
    """Turn an out-of-memory failure into one line with what to lower; leave others alone."""
    if isinstance(error, MiniMindError):
        return error
    text = str(error)
    loader_killed = "DataLoader worker" in text and "Killed" in text
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate" in text
    if not (memory or loader_killed):
        return error
    asked = "a loader process was killed" if loader_killed else text.splitlines()[0][:200]
    return OutOfMemoryError(
        f"out of memory ({asked}); there is {describe_memory(device)}; lower --batch_size "
        f"{config.batch_size} (raise --accumulation_steps to keep the update), --max_seq_len "
        f"{config.max_seq_len} or --num_workers {config.num_workers}, or use "
        "--gradient_checkpointing"
    )
