"""How many parameters a model has, and how many of them a token meets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """Attributes:
    embedding: of the tokens, which the output head shares.
    matrices: of the layers' matrices, which Muon updates.
    norms: all other.
    active: those that a token meets, the head included; all of them in a dense model.
    """

    embedding: int
    matrices: int
    norms: int
    active: int

    @property
    def total(self) -> int:
        return self.embedding + self.matrices + self.norms


def count_parameters(architecture: Any) -> Parameters:
    """Count them.

    Args:
        architecture: an ``Architecture``, or anything with its fields.
    """
    layers = architecture.num_hidden_layers
    embedding = architecture.vocab_size * architecture.hidden_size
    norms = layers * layer_norms(architecture) + architecture.hidden_size
    experts = architecture.num_experts if architecture.use_moe else 1
    visited = architecture.num_experts_per_tok if architecture.use_moe else 1
    attention = attention_matrices(architecture)
    return Parameters(
        embedding=embedding,
        matrices=layers * (attention + feed_forward_matrices(architecture, experts)),
        norms=norms,
        active=embedding
        + norms
        + layers * (attention + feed_forward_matrices(architecture, visited)),
    )


def attention_matrices(architecture: Any) -> int:
    """Weights of the four projections of one layer."""
    hidden, size = architecture.hidden_size, head_size(architecture)
    queries, keys = architecture.num_attention_heads * size, architecture.num_key_value_heads * size
    return 2 * hidden * queries + 2 * hidden * keys


def feed_forward_matrices(architecture: Any, experts: int) -> int:
    """Weights of one layer's SwiGLU, or of so many experts and their router."""
    hidden = architecture.hidden_size
    if architecture.use_moe:
        router = hidden * architecture.num_experts
        return experts * 3 * hidden * architecture.moe_intermediate_size + router
    return 3 * hidden * architecture.intermediate_size


def layer_norms(architecture: Any) -> int:
    """Scales of one layer's norms: before attention, before the MLP, of queries and of keys."""
    return 2 * architecture.hidden_size + 2 * head_size(architecture)


def head_size(architecture: Any) -> int:
    """Width of one attention head."""
    given = getattr(architecture, "head_dim", None)
    return int(given or architecture.hidden_size // architecture.num_attention_heads)
