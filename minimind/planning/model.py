"""The model that a run's flags and tokenizer describe."""

from __future__ import annotations

import json
from typing import Any

from minimind.config import TrainConfig
from minimind.data.tokenizer import tokenizer_folder
from minimind.model.architecture import Architecture


def architecture_of(config: TrainConfig, vocab_size: int) -> Architecture:
    """The model that flags describe, over a vocabulary."""
    return Architecture(**sizes_of(config), vocab_size=vocab_size)


def sizes_of(config: TrainConfig) -> dict[str, Any]:
    """The fields of an ``Architecture`` that are flags."""
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "use_moe": bool(config.use_moe),
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
    }


def likely_vocabulary(config: TrainConfig) -> int:
    """Token ids of a run's tokenizer; as many as the shipped one has where that is not known."""
    return vocabulary_of(config.tokenizer_path) or Architecture.vocab_size


def vocabulary_of(tokenizer_path: str) -> int | None:
    """Token ids of a tokenizer folder, by its tokenizer.json; None where that does not say."""
    try:
        found = json.loads((tokenizer_folder(tokenizer_path) / "tokenizer.json").read_bytes())
        vocabulary = found["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        added = [token["id"] for token in found.get("added_tokens") or ()]
        return max(*ids, *added, 0) + 1
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
