"""The loss of text that a model has not seen, outside of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minimind.data.packing import plan_rows
from minimind.data.tokenize.build import open_corpus
from minimind.distributed.world import World
from minimind.training.evaluate import evaluate
from minimind.training.precision import autocast_context
from minimind.weights.pretrained import open_pretrained


def score(
    weight: str | Path,
    device: Any,
    *,
    data_path: Sequence[str],
    text_field: str = "text",
    max_seq_len: int | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
    cache_dir: str = "",
    tokenizer_path: str = "",
    num_experts_per_tok: int | None = None,
) -> dict[str, Any]:
    """Score every token of the text once, in rows as in training.

    Returns:
        ``loss`` (nats per scored token), ``perplexity`` (its exponential), ``bits_per_byte``
        of the UTF-8 text, and what they are of.

    Raises:
        ConfigError, DataError, WeightsError: the device, text or weights cannot be used.
    """
    autocast = autocast_context(device, dtype)
    source = open_pretrained(weight, tokenizer_path, num_experts_per_tok)
    length = max_seq_len or int(source.flags.get("max_seq_len", 512))
    store = open_corpus(
        data_path, str(source.tokenizer_folder), text_field=text_field, cache_dir=cache_dir
    )
    plan = plan_rows(store, length)
    result = evaluate(
        source.build().to(device),
        plan,
        store,
        batch_size=batch_size,
        world=World(rank=0, world_size=1, local_rank=0, device=device),
        autocast=autocast,
    )
    loss = result["eval_loss"]
    return {
        "weight": str(weight),
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "bits_per_byte": result["bits_per_byte"],
        "documents": store.n_docs,
        "scored_tokens": int(plan.targets_per_row.sum(dtype="int64")),
        "bytes": store.n_bytes,
        "max_seq_len": length,
        "dtype": dtype,
    }
