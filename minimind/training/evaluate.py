"""Held-out loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn

from minimind.data.mixture import Plan
from minimind.data.token_store import TokenStore
from minimind.distributed.world import World


@torch.no_grad()
def evaluate(
    model: nn.Module,
    plan: Plan,
    store: TokenStore,
    *,
    batch_size: int,
    world: World,
    autocast: AbstractContextManager[Any],
    each_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Score every held-out token once, the rows shared out among the ranks.

    Returns:
        ``eval_loss`` in nats per scored token, and ``bits_per_byte`` of the UTF-8 text,
        which compares tokenizers too.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=world.device)
    mine = np.arange(world.rank, plan.n_rows, world.world_size)
    for start in range(0, len(mine), batch_size):
        batch = to_device(plan.build(mine[start : start + batch_size], batch_size), world.device)
        targets = batch.pop("targets")
        with autocast:
            out = model(**batch, shift_labels=targets, num_items_in_batch=1)
        totals += torch.stack((out.loss.double(), (targets >= 0).sum().double()))
        each_batch()
    model.train(was_training)
    nats, scored = world.sum(totals.cpu()).tolist()
    return {
        "eval_loss": nats / max(1, scored),
        "bits_per_byte": nats / math.log(2) / max(1, store.n_bytes),
    }


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """Move a batch of numpy arrays or tensors; from pinned memory without waiting."""
    return {
        name: torch.as_tensor(value).to(device, non_blocking=True) for name, value in batch.items()
    }
