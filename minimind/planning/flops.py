"""How many FLOPs a token costs."""

from __future__ import annotations

from typing import Any

from minimind.planning.parameters import (
    attention_matrices,
    feed_forward_matrices,
    head_size,
    layer_norms,
)


def flops_per_token(config: Any, seq_len: int) -> float:
    """FLOPs of the forward and backward pass for one token in a row of ``seq_len`` tokens.

    6·(N + V·H) + 6·L·T·A, where N are the parameters that the token meets outside of the
    embedding, V·H the output head, L layers, T tokens and A = query heads · head size.

    The first term is Kaplan et al. 2020 (section 2.1): a weight costs one multiplication and
    one addition forward, and twice that backward. The second is PaLM's attention term
    12·L·T·A (Chowdhery et al. 2022, appendix B), halved because a causal token attends to
    half of the row on average. Of an expert layer only the router and the
    ``num_experts_per_tok`` experts that the token visits are counted. Recomputed activations
    do not count, and neither does attention saved at document borders of a packed row.

    Args:
        config: a ``MiniMindConfig``, or anything with its fields.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    visited = config.num_experts_per_tok if config.use_moe else 1
    layer = attention_matrices(config) + feed_forward_matrices(config, visited)
    weights = layers * (layer + layer_norms(config)) + hidden
    head = config.vocab_size * hidden
    attention_width = config.num_attention_heads * head_size(config)
    return float(6 * (weights + head) + 6 * layers * seq_len * attention_width)
