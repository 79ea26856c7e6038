"""Held-out loss: of a run's model while it trains, and of stored weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from minimind.data.mixture import Plan
from minimind.data.packing import plan_rows
from minimind.data.token_store import TokenStore
from minimind.data.tokenize.build import open_corpus
from minimind.distributed.device import sum_dtype
from minimind.distributed.world import World
from minimind.training.precision import autocast_context
from minimind.weights.pretrained import open_pretrained


@torch.no_grad()
def evaluate(
    model: nn.Module,
    plan: Plan,
    store: TokenStore,
    *,
    batch_size: int,
    world: World,
    autocast: AbstractContextManager[Any],
    goes_on: Callable[[], bool] = lambda: True,
) -> dict[str, float] | None:
    """Score every held-out token once, the rows shared out among the ranks.

    Args:
        goes_on: asked before each batch, equally often on every rank; False, which it must
            answer on all ranks alike, leaves the rest unscored.

    Returns:
        ``eval_loss`` in nats per scored token, and ``bits_per_byte`` of the UTF-8 text,
        which compares tokenizers too. None when it was left early.
    """
    mine = np.arange(world.rank, plan.n_rows, world.world_size)
    was_training = model.training
    model.eval()
    totals = torch.zeros(2, dtype=sum_dtype(world.device), device=world.device)
    try:
        # Rank 0 has the most rows; a rank that has none left still answers.
        for start in range(0, -(-plan.n_rows // world.world_size), batch_size):
            if not goes_on():
                return None
            rows = mine[start : start + batch_size]
            if len(rows):
                totals += score_batch(model, plan.build(rows, batch_size), world.device, autocast)
    finally:
        model.train(was_training)
    nats, scored = world.sum(totals.cpu().double()).tolist()
    return {
        "eval_loss": nats / max(1, scored),
        "bits_per_byte": nats / math.log(2) / max(1, store.n_bytes),
    }


def score_batch(
    model: nn.Module,
    arrays: dict[str, Any],
    device: torch.device,
    autocast: AbstractContextManager[Any],
) -> torch.Tensor:
    """Nats and scored tokens of one batch, as of ``sum_dtype``: shape [2]."""
    batch = to_device(arrays, device)
    targets = batch.pop("targets")
    with autocast:
        out = model(**batch, shift_labels=targets, num_items_in_batch=1)
    dtype = sum_dtype(device)
    return torch.stack((out.loss.to(dtype), (targets >= 0).sum().to(dtype)))


def score(
    weight: str | Path,
    device: Any,
    *,
    data_path: Sequence[str],
    text_field: str = "text",
    render_chat: bool = False,
    max_seq_len: int | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
    cache_dir: str = "",
    tokenizer_path: str = "",
    num_experts_per_tok: int | None = None,
    allow_other_tokenizer: bool = False,
) -> dict[str, Any]:
    """Score every token of the text once, in rows as in training.

    Returns:
        ``loss`` (nats per scored token), ``perplexity`` (its exponential), ``bits_per_byte``
        of the UTF-8 text, and what they are of.

    Raises:
        ConfigError, DataError, WeightsError: the device, text or weights cannot be used.
    """
    autocast = autocast_context(device, dtype)
    source = open_pretrained(weight, tokenizer_path, num_experts_per_tok, allow_other_tokenizer)
    length = max_seq_len or int(source.flags.get("max_seq_len", 512))
    store = open_corpus(
        data_path,
        str(source.tokenizer_folder),
        text_field=text_field,
        render_chat=render_chat,
        cache_dir=cache_dir,
        special=source.special,
    )
    plan = plan_rows(store, length)
    result = evaluate(
        source.build_plain().to(device),
        plan,
        store,
        batch_size=batch_size,
        world=World(rank=0, world_size=1, local_rank=0, device=device),
        autocast=autocast,
    )
    assert result is not None, "nobody asked it to leave"
    loss = result["eval_loss"]
    return {
        "weight": str(weight),
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "bits_per_byte": result["bits_per_byte"],
        "documents": store.n_docs,
        "scored_tokens": int(np.asarray(plan.targets_per_row).sum(dtype=np.int64)),
        "bytes": store.n_bytes,
        "max_seq_len": length,
        "dtype": dtype,
    }


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """Move a batch of numpy arrays or tensors; from pinned memory without waiting."""
    return {
        name: torch.as_tensor(value).to(device, non_blocking=True) for name, value in batch.items()
    }
