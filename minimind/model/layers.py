"""The layers of MiniMind in plain torch: a Qwen3 (dense) or Qwen3-MoE decoder, top to bottom.

Shapes in this file: B rows, T tokens a row, D = hidden_size, H query heads, K key/value heads,
d = head_dim, E experts, k experts per token, N = B·T tokens in all.

The file imports only its siblings, so that a folder written by ``save_pretrained`` carries all
the code that loading it needs. And it imports nothing that takes long: neither transformers nor
torch's compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, library, nn

from .architecture import Architecture

ATTENTION_BLOCK = 256
"""Queries that blockwise attention takes at a time: half as many take half as long again to
compile, and win one per cent."""

FUSED_GQA_HEAD_SIZE = 256
"""Largest head for which the fused kernels take fewer key heads than query heads."""


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
    """Rotary position embedding (arXiv:2104.09864)."""

    inv_freq: Tensor

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        inv_freq, self.attention_scaling = self.compute_default_rope_parameters(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    @staticmethod
    def compute_default_rope_parameters(
        config: Any, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, float]:
        """Frequencies θ^(−2i/d) for i < d/2: float32 [d/2], and the scale of cos and sin (1)."""
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        # Not θ^(−x): the last bit counts at far positions, and Qwen3 divides.
        return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0

    @torch.no_grad()
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


def repeat_heads(x: Tensor, times: int) -> Tensor:
    """[B, K, S, d] → [B, K·times, S, d], each head beside its copies."""
    batch, heads, seen, size = x.shape
    repeated = x[:, :, None].expand(batch, heads, times, seen, size)
    return repeated.reshape(batch, heads * times, seen, size)


def sdpa_attention_forward(
    module: MiniMindAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in torch's fused kernel, called as transformers calls it.

    The arguments are those of :func:`eager_attention_forward`; without a mask it is causal.

    Returns:
        The output [B, T, H, d], and no weights.
    """
    shape, groups = query.shape, module.num_key_value_groups
    # With a mask the kernels that know of groups are the slow ones.
    grouped = attention_mask is None and module.head_dim <= FUSED_GQA_HEAD_SIZE
    if groups > 1 and not grouped and shape[2] == 1:
        # One query each: those of a group take the place of a row's.
        query = query.reshape(shape[0], -1, groups, shape[3])
    elif groups > 1 and not grouped:
        key, value = repeat_heads(key, groups), repeat_heads(value, groups)
    output = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=attention_mask is None and shape[2] > 1,
        enable_gqa=groups > 1 and grouped,
    )
    return output.reshape(shape).transpose(1, 2).contiguous(), None


ATTENTION_FUNCTIONS: dict[str, Callable[..., tuple[Tensor, Tensor | None]]] = {
    "eager": eager_attention_forward,
    "blockwise": blockwise_attention_forward,
    "sdpa": sdpa_attention_forward,
}


class MiniMindAttention(nn.Module):
    """Grouped-query attention (arXiv:2305.13245) with normalised queries and keys."""

    def __init__(self, config: Architecture, layer_idx: int) -> None:
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
        past_key_values: Any | None = None,
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

        attend = self.attention_function(self.config._attn_implementation)
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

    @staticmethod
    def attention_function(implementation: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
        """What computes attention under this name."""
        return ATTENTION_FUNCTIONS[implementation]


def activation(name: str) -> nn.Module:
    """The activation of this name; any but the usual one is transformers' to know."""
    if name == "silu":
        return nn.SiLU()
    from transformers.activations import ACT2FN

    return ACT2FN[name]


class MiniMindMLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: Architecture, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, config.hidden_size, bias=False)
        self.act_fn = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def define_grouped_linear_ops() -> None:
    """Register ``minimind::grouped_linear``, the grouped matmul as torch.compile can take it.

    Once a process, though a saved folder's copy of this file may meet the package's.

    torch 2.13 compiles ``F.grouped_mm`` in bfloat16 only (its shape function refuses the rest),
    though its kernels run every floating dtype. These operators are those kernels under a shape
    function that does not ask for a dtype.
    """
    if hasattr(torch.ops.minimind, "grouped_linear"):
        return

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

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        define_grouped_linear_ops()
        self.num_experts = config.num_experts
        self.top_k = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(
            MiniMindMLP(config, config.moe_intermediate_size) for _ in range(config.num_experts)
        )
        self.act_fn = activation(config.hidden_act)

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


class MiniMindDecoderLayer(nn.Module):
    """Pre-norm attention and SwiGLU (or mixture of experts), each added to the residual stream."""

    attention_class: type[MiniMindAttention] = MiniMindAttention

    def __init__(self, config: Architecture, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = self.attention_class(config, layer_idx)
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


def create_packed_mask(config: Any, inputs_embeds: Tensor, document_ids: Tensor) -> Any:
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

        from torch.nn.attention.flex_attention import create_block_mask

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


def decode(
    model: Any,
    inputs_embeds: Tensor,
    position_ids: Tensor,
    mask: Any | None,
    token_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """From embeddings to the final norm.

    Args:
        model: has ``config``, ``rotary_emb``, ``layers`` and ``norm``.
        inputs_embeds: [B, T, D].
        position_ids: [B, T].
        mask: what the attention function takes.
        token_mask: bool [B, T], the tokens that the router's statistics count; None: all.
        **kwargs: more for each layer.

    Returns:
        The last hidden state [B, T, D], and the load-balancing loss of all layers, a float32
        scalar.
    """
    hidden_states = F.dropout(inputs_embeds, model.config.dropout, model.training)
    position_embeddings = model.rotary_emb(hidden_states, position_ids)
    aux_loss = torch.zeros((), dtype=torch.float32, device=hidden_states.device)
    for layer in model.layers[: model.config.num_hidden_layers]:
        hidden_states, layer_aux_loss = layer(
            hidden_states,
            attention_mask=mask,
            token_mask=token_mask,
            position_embeddings=position_embeddings,
            position_ids=position_ids,
            **kwargs,
        )
        if layer_aux_loss is not None:
            aux_loss = aux_loss + layer_aux_loss
    return model.norm(hidden_states), aux_loss
