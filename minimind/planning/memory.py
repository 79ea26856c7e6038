"""The memory that a rank needs at its peak: the end of a micro-batch's forward pass.

What autograd keeps of a layer was read off the model itself, tensor by tensor
(tests/unit/planning/test_memory.py does so again).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from minimind.planning.parameters import Parameters, count_parameters, head_size

FLOAT32, HALF = 4, 2

PROGRAM, CONTEXT = 300_000_000, 600_000_000
"""The libraries in a host's memory, and an accelerator's context with its workspaces. Measured on
a CPU, and on CUDA."""

COMPILER = 250_000_000
"""What torch's compiler stays in the host's memory with."""


HEAP, COMPILED_HEAP = 1.5, 0.85
"""What a step holds of a CPU's memory for a byte that autograd keeps. The C library's heap, which
training never gives back, has gaps: 256×4 in rows of 32 × 256 held 2.76 GB. torch's compiler keeps
less than it is asked to: 256×4, 512×8 and 768×16 held 0.7 to 0.9 of it."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank, by what they are for. On an accelerator is all but the checkpoint's copy.

    Attributes:
        casts: weights in the precision that matrix products take.
        logits: of the output head, with what the loss and its gradient take.
        exchange: buckets in which ranks add up their gradients.
        checkpoint: the copy that is written while training goes on; in the host's memory.
        program: libraries.
    """

    weights: int
    gradients: int
    optimizer: int
    casts: int
    activations: int
    logits: int
    exchange: int
    checkpoint: int
    program: int

    @property
    def fixed(self) -> int:
        """What no batch size changes and nothing can do without."""
        return self.weights + self.gradients + self.optimizer

    def total(self, device: str) -> int:
        """At the peak, in the memory of a device of this kind."""
        everything = sum(asdict(self).values())
        return everything if device == "cpu" else everything - self.checkpoint


def memory_of(
    architecture: Any,
    *,
    rows: int,
    tokens: int,
    dtype: str,
    optimizer: str,
    device: str,
    recompute: bool,
    packed: bool,
    ranks: int,
    compiled: bool,
) -> Memory:
    """The bytes of one rank.

    Args:
        architecture: an ``Architecture``, or anything with its fields.
        rows: of a micro-batch.
        tokens: of a row.
        dtype: "bfloat16", "float16" or "float32".
        recompute: whether activations are computed again in the backward pass.
        packed: whether rows hold several documents, which takes a mask.
        compiled: whether torch's compiler runs.
    """
    counted = count_parameters(architecture)
    half = dtype != "float32"
    places = rows * tokens
    layer = layer_bytes(architecture, tokens, half=half, packed=packed)
    layers = architecture.num_hidden_layers
    kept = FLOAT32 * architecture.hidden_size
    activations = layers * kept + layer if recompute else layers * layer
    state = optimizer_bytes(counted, optimizer)
    weights = FLOAT32 * counted.total
    held = (COMPILED_HEAP if compiled else HEAP) if device == "cpu" else 1.0
    return Memory(
        weights=weights,
        gradients=FLOAT32 * counted.total,
        optimizer=state,
        casts=cast_bytes(architecture, counted, half=half),
        activations=round(held * places * (activations + 10 * architecture.hidden_size)),
        # Scores, their logarithms and two gradients in float32; twice more in half precision,
        # which replaces the first.
        logits=round(held * places * architecture.vocab_size * 4 * FLOAT32),
        # DDP's first buckets; the gradients are views into the others.
        exchange=FLOAT32 * counted.total if ranks > 1 else 0,
        checkpoint=weights + state + HALF * counted.total,
        program=_program(device, compiled),
    )


def _program(device: str, compiled: bool) -> int:
    if device != "cpu":
        return CONTEXT
    return PROGRAM + COMPILER if compiled else PROGRAM


def optimizer_bytes(counted: Parameters, optimizer: str) -> int:
    """Two float32 moments of a parameter; Muon has one of a layer's matrix."""
    both = 2 * FLOAT32 * counted.total
    return both - FLOAT32 * counted.matrices if optimizer == "muon" else both


def cast_bytes(architecture: Any, counted: Parameters, *, half: bool) -> int:
    """Copies of matrices that a step makes: in half precision of all; of experts in any."""
    if half:
        return HALF * (counted.matrices + counted.embedding)
    if not architecture.use_moe:
        return 0
    expert = 3 * architecture.hidden_size * architecture.moe_intermediate_size
    return FLOAT32 * architecture.num_hidden_layers * architecture.num_experts * expert


def layer_bytes(architecture: Any, tokens: int, *, half: bool, packed: bool) -> int:
    """Bytes that autograd keeps of one layer for each token of a row of ``tokens``."""
    hidden, size = architecture.hidden_size, head_size(architecture)
    query_heads, key_heads = architecture.num_attention_heads, architecture.num_key_value_heads
    queries, keys = query_heads * size, key_heads * size
    product = HALF if half else FLOAT32
    # Input and output of both norms, in float32; autocast copies the output for each product.
    norms = 2 * 2 * FLOAT32 * hidden
    inputs = 5 * HALF * hidden if half else 2 * FLOAT32 * hidden
    # Before and after the norms of queries and keys; then what attention itself keeps, with
    # keys and values repeated for every query head.
    attention = (FLOAT32 + product) * (queries + keys) + 4 * product * queries
    mask = product * tokens if packed else 0
    statistics = FLOAT32 * (2 + 2 * query_heads + key_heads)
    return norms + inputs + attention + mask + statistics + _feed_forward(architecture, product)


def _feed_forward(architecture: Any, product: int) -> int:
    """Gate, its activation, the other half, their product; of experts their rows too."""
    if not architecture.use_moe:
        return 4 * product * architecture.intermediate_size
    visited = architecture.num_experts_per_tok
    inner = 4 * product * architecture.moe_intermediate_size
    return visited * (inner + 2 * product * architecture.hidden_size)
