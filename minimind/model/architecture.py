"""What fixes a MiniMind model: a small Qwen3 (dense) or Qwen3-MoE language model."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from typing import Any

GROUPED_MM_MULTIPLE = 8
"""The grouped matmul wants rows that start on 16 bytes: 8 numbers of 2 bytes."""


@dataclass(kw_only=True, repr=False)
class Architecture:
    """Everything that fixes the architecture of a MiniMind model.

    ``MiniMindConfig`` has the same fields and is a configuration of transformers'.

    Args:
        vocab_size: number of token ids.
        hidden_size: width of the residual stream.
        num_hidden_layers: number of decoder layers.
        num_attention_heads: query heads per layer.
        num_key_value_heads: key/value heads per layer (grouped-query attention); divides the
            number of query heads.
        head_dim: width of one head; ``hidden_size / num_attention_heads`` if None.
        intermediate_size: width of the SwiGLU layer; ``ceil(hidden_size·π/64)·64`` if None.
        hidden_act: activation of the gate: "silu", or another key of transformers' ``ACT2FN``.
        max_position_embeddings: longest sequence in tokens that the model is meant for.
        rms_norm_eps: added to the mean square in RMSNorm.
        rope_parameters: transformers' RoPE dictionary; plain RoPE if None.
        use_moe: replace every SwiGLU layer with a mixture of experts.
        num_experts: experts per layer.
        num_experts_per_tok: experts that each token goes to.
        moe_intermediate_size: width of one expert; ``intermediate_size`` if None.
        norm_topk_prob: scale a token's expert weights to sum to 1 (so top-1 weighs exactly 1).
        router_aux_loss_coef: factor of the load-balancing loss.
        tie_word_embeddings: use one matrix for input and output embeddings.
        attention_dropout: dropout probability of attention weights.
        dropout: dropout probability of embeddings and of each residual branch.
        initializer_range: standard deviation of initial weights.
        use_cache: return a key/value cache by default (outside training).
        bos_token_id: id that opens a document.
        eos_token_id: id that closes a document.
        pad_token_id: id that fills a row.

    Raises:
        ValueError: if values contradict each other or are out of range.
    """

    # Without annotations, so that these are no fields.
    model_type = "minimind"
    default_theta = 1_000_000.0
    _attn_implementation = "sdpa"

    vocab_size: int = 6400
    hidden_size: int = 512
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    # None until __post_init__ works it out from the other sizes, here and below.
    head_dim: int = None  # type: ignore[assignment]
    intermediate_size: int = None  # type: ignore[assignment]
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_parameters: dict[str, Any] = None  # type: ignore[assignment]
    use_moe: bool = False
    num_experts: int = 4
    num_experts_per_tok: int = 1
    moe_intermediate_size: int = None  # type: ignore[assignment]
    norm_topk_prob: bool = True
    router_aux_loss_coef: float = 5e-4
    tie_word_embeddings: bool = True
    attention_dropout: float = 0.0
    dropout: float = 0.0
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0

    def __post_init__(self) -> None:
        self._derive_sizes()
        self.rope_parameters = {
            "rope_theta": self.default_theta,
            "rope_type": "default",
            **(self.rope_parameters or {}),
        }
        self._validate_architecture()

    @classmethod
    def plain(cls, **settings: Any) -> Architecture | None:
        """Of what ``MiniMindConfig`` takes, ``rope_theta`` too; None where RoPE is scaled.

        Raises:
            ValueError: as the class.
        """
        rope = {"rope_theta": settings.pop("rope_theta", cls.default_theta)}
        rope |= settings.pop("rope_parameters", None) or {}
        if set(rope) - {"rope_theta", "rope_type"} or rope.get("rope_type", "default") != "default":
            return None
        return cls(**settings, rope_parameters=rope)

    def architecture_dict(self) -> dict[str, Any]:
        """The fields above by name, as a checkpoint keeps them; of a ``MiniMindConfig`` no more."""
        values = {field.name: getattr(self, field.name) for field in fields(Architecture)}
        return {**copy.deepcopy(values), "model_type": self.model_type}

    def _derive_sizes(self) -> None:
        self.use_moe = bool(self.use_moe)
        self._require_positive("hidden_size", "num_attention_heads")
        if self._unset("head_dim"):
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                    f"({self.num_attention_heads}), or head_dim must be given"
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self._unset("intermediate_size"):
            self.intermediate_size = math.ceil(self.hidden_size * math.pi / 64) * 64
        if self._unset("moe_intermediate_size"):
            self.moe_intermediate_size = self.intermediate_size

    @property
    def rope_theta(self) -> float:
        """Base wavelength of RoPE, kept in ``rope_parameters``."""
        return (self.rope_parameters or {}).get("rope_theta", self.default_theta)

    @rope_theta.setter
    def rope_theta(self, value: float) -> None:
        self.rope_parameters = {**(self.rope_parameters or {}), "rope_theta": value}

    def _unset(self, name: str) -> bool:
        return getattr(self, name) is None

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")

    def _validate_architecture(self) -> None:
        self._require_positive(
            "vocab_size",
            "num_hidden_layers",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
            "max_position_embeddings",
        )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even (RoPE turns pairs), not {self.head_dim}")
        for name in ("rms_norm_eps", "initializer_range", "rope_theta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        for name in ("attention_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)!r}")
        if self.use_moe:
            self._validate_experts()

    def _validate_experts(self) -> None:
        self._require_positive("num_experts", "num_experts_per_tok", "moe_intermediate_size")
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) must not exceed num_experts "
                f"({self.num_experts})"
            )
        if not self.router_aux_loss_coef >= 0:
            raise ValueError(
                f"router_aux_loss_coef must not be negative, not {self.router_aux_loss_coef!r}"
            )
        for name in ("hidden_size", "moe_intermediate_size"):
            if getattr(self, name) % GROUPED_MM_MULTIPLE:
                raise ValueError(
                    f"with use_moe, {name} must be a multiple of {GROUPED_MM_MULTIPLE} "
                    f"(grouped matmul alignment), not {getattr(self, name)}"
                )
