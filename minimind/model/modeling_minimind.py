"""MiniMind: a Qwen3 (dense) or Qwen3-MoE decoder, readable top to bottom.

Shapes in this file: B rows, T tokens a row, D = hidden_size, H query heads, K key/value heads,
d = head_dim, V = vocab_size, E experts, k experts per token, N = B·T tokens in all.

The file imports only its sibling configuration, so that a folder written by ``save_pretrained``
carries all the code that loading it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, library, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    create_causal_mask,
    eager_mask,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_minimind import MiniMindConfig

ATTENTION_BLOCK = 256
"""Queries that blockwise attention takes at a time: half as many take half as long again to
compile, and win one per cent."""


@dataclass
class MiniMindModelOutput(BaseModelOutputWithPast):
    """Transformers' decoder output and the load-balancing loss."""

    aux_loss: Tensor | None = None
    """Load-balancing loss summed over layers, scaled by its coefficient: float32 scalar."""


@dataclass
class MiniMindCausalLMOutput(CausalLMOutputWithPast):
    """Transformers' language-model output and the load-balancing loss, not part of ``loss``."""

    aux_loss: Tensor | None = None
    """Load-balancing loss summed over layers, scaled by its coefficient: float32 scalar."""


class MiniMindRMSNorm(nn.Module):
    """Root mean square normalisation (arXiv:1910.07467), computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class MiniMindRotaryEmbedding(nn.Module):
    """Rotary position embedding (arXiv:2104.09864), scaled as ``config.rope_parameters`` says."""

    inv_freq: Tensor

    def __init__(self, config: MiniMindConfig) -> None:
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        initialise = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = initialise(config)
        # transformers refills these two by name when a model is built on the meta device.
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(
        config: MiniMindConfig, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, float]:
        """Frequencies θ^(−2i/d) for i < d/2: float32 [d/2], and the scale of cos and sin (1)."""
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        # Not θ^(−x): the last bit counts at far positions, and Qwen3 divides.
        return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, T, d] of ``position_ids`` [B, T], in the dtype of ``x``."""
        inv_freq = self.inv_freq.to(device=x.device, dtype=torch.float32)
        angles = position_ids[..., None].float() * inv_freq
        angles = torch.cat((angles, angles), dim=-1)
        cos = angles.cos() * self.attention_scaling
        sin = angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + d/2]) of ``x`` [B, heads, T, d] by its position's angle.

    ``cos`` and ``sin`` are [B, 1, T, d].
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def eager_attention_forward(
    module: MiniMindAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention in plain matrix products, which shows the weights.

    The query heads of a group stand below each other, [g·T, d], and meet their key head in one
    product: no key or value is repeated.

    Args:
        module: the attention layer (its training mode).
        query: [B, H, T, d].
        key: [B, K, S, d], S tokens including the cached ones; H = K·g.
        value: [B, K, S, d].
        attention_mask: broadcastable to [B, 1, T, S]; bool (True: may see) or added to the scores.
        scaling: factor of the scores.
        dropout: dropout probability of the weights.

    Returns:
        The output [B, T, H, d] and the weights [B, H, T, S].
    """
    batch, heads, length, size = query.shape
    key_heads, seen = key.shape[1:3]
    grouped = query.reshape(batch, key_heads, -1, size)
    scores = (grouped @ key.transpose(-1, -2)).view(batch, heads, length, seen).float() * scaling
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = torch.where(attention_mask, scores, -torch.inf)
        else:
            scores = scores + attention_mask
    weights = scores.softmax(dim=-1).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    output = weights.view(batch, key_heads, -1, seen) @ value
    return output.view(batch, heads, length, size).transpose(1, 2).contiguous(), weights


def blockwise_attention_forward(
    module: MiniMindAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Eager attention in which a block of queries meets only the keys up to its own end.

    Of a row of 512 tokens it leaves out a quarter of the scores, all hidden by a causal mask.

    Args:
        attention_mask: causal, [B or 1, 1, T, T].

    The others are those of :func:`eager_attention_forward`, without cached tokens.

    Returns:
        The output [B, T, H, d], and no weights.
    """
    length = query.shape[2]
    outputs = []
    for start in range(0, length, ATTENTION_BLOCK):
        end = min(start + ATTENTION_BLOCK, length)
        output, _ = eager_attention_forward(
            module,
            query[:, :, start:end],
            key[:, :, :end],
            value[:, :, :end],
            attention_mask[:, :, start:end, :end],
            scaling,
            dropout,
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


ALL_ATTENTION_FUNCTIONS.register("blockwise", blockwise_attention_forward)
ALL_MASK_ATTENTION_FUNCTIONS.register("blockwise", eager_mask)


class MiniMindAttention(nn.Module):
    """Grouped-query attention (arXiv:2305.13245) with normalised queries and keys."""

    def __init__(self, config: MiniMindConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        query_size = config.num_attention_heads * self.head_dim
        key_size = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = MiniMindRMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = MiniMindRMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Any | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Output [B, T, D] for ``hidden_states`` [B, T, D], and the weights where there are any."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_norm(self.q_proj(hidden_states).view(heads)).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_states).view(heads)).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)

        cos, sin = (part.unsqueeze(1) for part in position_embeddings)
        query, key = apply_rotary(query, cos, sin), apply_rotary(key, cos, sin)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            **kwargs,
        )
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights


class MiniMindMLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: MiniMindConfig, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def _define_grouped_linear_ops() -> None:
    """Register ``minimind::grouped_linear``, the grouped matmul as torch.compile can take it.

    torch 2.13 compiles ``F.grouped_mm`` in bfloat16 only (its shape function refuses the rest),
    though its kernels run every floating dtype. These operators are those kernels under a shape
    function that does not ask for a dtype.
    """

    @library.custom_op("minimind::grouped_linear", mutates_args=())
    def grouped_linear_op(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        return F.grouped_mm(x, weight.transpose(-1, -2), offs=ends)

    @grouped_linear_op.register_fake
    def _(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        return x.new_empty(x.shape[0], weight.shape[1])

    @library.custom_op("minimind::grouped_linear_weight_grad", mutates_args=())
    def weight_grad_op(grad_output: Tensor, x: Tensor, ends: Tensor) -> Tensor:
        return F.grouped_mm(grad_output.transpose(0, 1), x, offs=ends)

    @weight_grad_op.register_fake
    def _(grad_output: Tensor, x: Tensor, ends: Tensor) -> Tensor:
        return x.new_empty(ends.shape[0], grad_output.shape[1], x.shape[1])

    def save_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, ends = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        return (
            grouped_linear_op(grad_output, weight.transpose(-1, -2), ends),
            weight_grad_op(grad_output, x, ends),
            None,
        )

    grouped_linear_op.register_autograd(backward, setup_context=save_inputs)


# A saved folder's copy of this file may meet the package's in one process.
if not hasattr(torch.ops.minimind, "grouped_linear"):
    _define_grouped_linear_ops()


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Apply one linear map to each group of consecutive rows.

    Args:
        x: [M, in], rows sorted by group; in and out must be multiples of 16 bytes.
        weight: [E, out, in], of the dtype of ``x``.
        ends: int32 [E], the row at which each group ends; a group may be empty.

    Returns:
        [M, out].
    """
    if torch.compiler.is_compiling() and x.dtype != torch.bfloat16:
        return torch.ops.minimind.grouped_linear(x, weight, ends)
    return F.grouped_mm(x, weight.transpose(-1, -2), offs=ends)


def load_balancing_loss(
    router_probs: Tensor, assigned: Tensor, token_mask: Tensor | None
) -> Tensor:
    """How unevenly tokens load the experts: E · Σ_e load_e · mean probability_e.

    It is 1 for an even load. load_e is the fraction of routed assignments that go to expert e
    (Switch Transformer, arXiv:2101.03961, equations 4–6).

    Args:
        router_probs: float32 [N, E].
        assigned: float32 [N, E], 1 where a token goes to an expert.
        token_mask: [N], True for the tokens that count; None if all do.

    Returns:
        Scalar; 0 if no token counts.
    """
    if token_mask is not None:
        real = token_mask[:, None].to(router_probs.dtype)
        router_probs, assigned = router_probs * real, assigned * real
        tokens = real.sum()
    else:
        tokens = router_probs.new_tensor(router_probs.shape[0])
    load = assigned.sum(0) / assigned.sum().clamp(min=1)
    return router_probs.shape[1] * (load * router_probs.sum(0) / tokens.clamp(min=1)).sum()


class MiniMindSparseMoeBlock(nn.Module):
    """A mixture of SwiGLU experts: each token goes to the k experts that the router prefers.

    Each expert keeps its own 2-D matrices, as checkpoints and matrix optimisers want them; they
    are stacked in the forward pass, and all experts run in two grouped matmuls.
    """

    def __init__(self, config: MiniMindConfig) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.top_k = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(
            MiniMindMLP(config, config.moe_intermediate_size) for _ in range(config.num_experts)
        )
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor, token_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output [B, T, D] and the scaled load-balancing loss of ``hidden_states`` [B, T, D].

        ``token_mask`` is bool [B, T]: the tokens that the loss counts (None: all).
        """
        x = hidden_states.flatten(0, -2)
        logits = self.gate(x)
        probs = logits.softmax(dim=-1, dtype=torch.float32)
        weights, chosen = probs.topk(self.top_k, dim=-1)
        if self.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)

        assigned = torch.zeros_like(probs).scatter(1, chosen, 1.0)
        ends = assigned.sum(0).to(torch.int32).cumsum(0, dtype=torch.int32)
        order = chosen.flatten().argsort(stable=True)
        # autocast does not know the grouped matmul; the router's logits show the dtype it wants.
        rows = x.to(logits.dtype).index_select(0, order // self.top_k)
        outputs = self._run_experts(rows, ends)
        places = torch.arange(len(order), device=order.device)
        place = torch.empty_like(order).scatter_(0, order, places)
        outputs = outputs.index_select(0, place).view(len(x), self.top_k, -1)
        combined = (outputs * weights.to(outputs.dtype)[..., None]).sum(1)

        flat_mask = None if token_mask is None else token_mask.flatten()
        aux_loss = self.router_aux_loss_coef * load_balancing_loss(probs, assigned, flat_mask)
        return combined.view_as(hidden_states), aux_loss

    def _run_experts(self, x: Tensor, ends: Tensor) -> Tensor:
        """SwiGLU of rows ``x`` [N·k, D], sorted by expert; expert e's rows end at ``ends[e]``."""
        experts = cast("list[MiniMindMLP]", self.experts)
        gate_up = torch.stack(
            [
                matrix.to(x.dtype)
                for expert in experts
                for matrix in (expert.gate_proj.weight, expert.up_proj.weight)
            ]
        ).view(self.num_experts, -1, x.shape[-1])
        down = torch.stack([expert.down_proj.weight.to(x.dtype) for expert in experts])
        gate, up = grouped_linear(x, gate_up, ends).chunk(2, dim=-1)
        return grouped_linear(self.act_fn(gate) * up, down, ends)


class MiniMindDecoderLayer(GradientCheckpointingLayer):
    """Pre-norm attention and SwiGLU (or mixture of experts), each added to the residual stream."""

    def __init__(self, config: MiniMindConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = MiniMindAttention(config, layer_idx)
        self.mlp: MiniMindMLP | MiniMindSparseMoeBlock
        if config.use_moe:
            self.mlp = MiniMindSparseMoeBlock(config)
        else:
            self.mlp = MiniMindMLP(config, config.intermediate_size)
        self.input_layernorm = MiniMindRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = MiniMindRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.dropout = config.dropout

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any | None = None,
        token_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream [B, T, D] after the layer, and a MoE's scaled load-balancing loss."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), attention_mask=attention_mask, **kwargs
        )
        hidden_states = hidden_states + F.dropout(attended, self.dropout, self.training)
        normed = self.post_attention_layernorm(hidden_states)
        aux_loss = None
        if isinstance(self.mlp, MiniMindSparseMoeBlock):
            transformed, aux_loss = self.mlp(normed, token_mask)
        else:
            transformed = self.mlp(normed)
        return hidden_states + F.dropout(transformed, self.dropout, self.training), aux_loss


class MiniMindPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of MiniMind to initialise, save, load and shard it."""

    config_class = MiniMindConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MiniMindDecoderLayer"]  # noqa: RUF012 (the base class's own shape)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": MiniMindDecoderLayer,
        "attentions": MiniMindAttention,
    }


def create_packed_mask(config: MiniMindConfig, inputs_embeds: Tensor, document_ids: Tensor) -> Any:
    """The mask of rows that hold several documents: causal, and block-diagonal by document.

    A token attends to itself and to earlier tokens with its own document id. Padding carries the
    id −1, so it attends to padding, and no row of the mask is empty (an empty one would be NaN).

    Args:
        config: its attention implementation decides the form of the mask.
        inputs_embeds: [B, T, D], for its shape and device.
        document_ids: whole numbers [B, T].

    Returns:
        For ``flex_attention`` a BlockMask; else bool [B, 1, T, T], True where attention is allowed.

    Raises:
        ValueError: for an attention implementation that takes no such mask.
    """
    implementation = config._attn_implementation
    if implementation == "flex_attention":

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (document_ids[batch, query] == document_ids[batch, key]) & (query >= key)

        # transformers' own would warn in the middle, which no graph can hold.
        rows, length = document_ids.shape
        return create_block_mask(visible, rows, None, length, length, document_ids.device)
    if implementation not in ("sdpa", "eager", "blockwise"):
        raise ValueError(
            f"document_ids need attn_implementation 'sdpa', 'flex_attention', 'eager' or "
            f"'blockwise', not {implementation!r}"
        )
    # Written out, because transformers' own path for such masks takes several times as long.
    length = document_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=document_ids.device).tril()
    return (document_ids[:, None, :, None] == document_ids[:, None, None, :]) & causal


class MiniMindModel(MiniMindPreTrainedModel):
    """Token embedding, decoder layers and the final norm."""

    def __init__(self, config: MiniMindConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            MiniMindDecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = MiniMindRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = MiniMindRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        document_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> MiniMindModelOutput:
        """Run the decoder; see :meth:`MiniMindForCausalLM.forward` for the arguments."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if document_ids is not None and (
            attention_mask is not None or past_key_values is not None or use_cache
        ):
            raise ValueError("document_ids exclude attention_mask, past_key_values and use_cache")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and document_ids is None
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        length = inputs_embeds.shape[1]

        if document_ids is not None:
            mask = create_packed_mask(self.config, inputs_embeds, document_ids)
        else:
            # Without a mask to honour this is None, and attention takes its causal fast path.
            # transformers would search position_ids for packed documents, at a host sync a step.
            mask = create_causal_mask(
                config=self.config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
            )
        if token_mask is None:
            if document_ids is not None:
                token_mask = document_ids >= 0
            elif isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
                token_mask = attention_mask[:, -length:].bool()
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(length, device=inputs_embeds.device) + seen).unsqueeze(0)

        hidden_states = F.dropout(inputs_embeds, self.config.dropout, self.training)
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        aux_loss = torch.zeros((), dtype=torch.float32, device=hidden_states.device)
        for layer in self.layers[: self.config.num_hidden_layers]:
            hidden_states, layer_aux_loss = layer(
                hidden_states,
                attention_mask=mask,
                token_mask=token_mask,
                position_embeddings=position_embeddings,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
            if layer_aux_loss is not None:
                aux_loss = aux_loss + layer_aux_loss
        return MiniMindModelOutput(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
            aux_loss=aux_loss,
        )


class MiniMindForCausalLM(MiniMindPreTrainedModel, GenerationMixin):
    """MiniMind with its language-model head."""

    _tied_weights_keys = {  # noqa: RUF012 (the base class's own shape)
        "lm_head.weight": "model.embed_tokens.weight"
    }

    def __init__(self, config: MiniMindConfig) -> None:
        super().__init__(config)
        self.model = MiniMindModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        document_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> MiniMindCausalLMOutput:
        """Predict the next token at every position.

        Args:
            input_ids: whole numbers [B, T].
            attention_mask: [B, past + T], 0 for padding; or a mask that transformers prepared.
            position_ids: [B, T]; counted from the cache's length if None. Positions alone do not
                separate documents; ``document_ids`` do.
            past_key_values: keys and values of earlier tokens; extended in place.
            inputs_embeds: [B, T, D], in place of ``input_ids``.
            labels: [B, T]; position t+1 is the target of position t, −100 is ignored.
            use_cache: return ``past_key_values``; ``config.use_cache`` outside training if None.
            logits_to_keep: compute logits for the last so many positions (0: all), or for the
                positions of a 1-D index.
            document_ids: whole numbers [B, T] of rows that hold several documents: a token sees
                earlier tokens of its own document only. −1 is padding. Excludes
                ``attention_mask`` and caching.
            token_mask: bool [B, T], the tokens that the router's statistics count. If None: what
                ``document_ids`` or a 2-D ``attention_mask`` calls real, else all.
            **kwargs: ``shift_labels`` [B, T] (targets already aligned with the logits, in place
                of ``labels``) and ``num_items_in_batch`` (``loss`` becomes the sum over targets
                divided by this number, not the mean); ``output_hidden_states``,
                ``output_attentions``, ``return_dict``.

        Returns:
            ``logits`` [B, T, V]; ``loss``, the cross-entropy alone in float32 nats, if there are
            targets; ``aux_loss``, float32 scalar, 0 for a dense model.

        Raises:
            ValueError: for arguments that exclude each other.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            document_ids=document_ids,
            token_mask=token_mask,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        # 0 gives slice(0, None), every position.
        last = isinstance(logits_to_keep, int)
        kept = slice(-logits_to_keep, None) if last else logits_to_keep
        logits = self.lm_head(hidden_states[:, kept])

        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.vocab_size, **kwargs)
        return MiniMindCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            aux_loss=outputs.aux_loss,
        )
