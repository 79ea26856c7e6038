"""MiniMind as transformers knows it: its layers in transformers' model classes.

Shapes in this file: B rows, T tokens a row, D = hidden_size, V = vocab_size.

The file imports only its siblings, so that a folder written by ``save_pretrained`` carries all
the code that loading it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
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
from .layers import MiniMindAttention as PlainAttention
from .layers import MiniMindDecoderLayer as PlainDecoderLayer
from .layers import (
    MiniMindRMSNorm,
    blockwise_attention_forward,
    create_packed_mask,
    decode,
    eager_attention_forward,
)
from .layers import MiniMindRotaryEmbedding as PlainRotaryEmbedding

ALL_ATTENTION_FUNCTIONS.register("blockwise", blockwise_attention_forward)
ALL_MASK_ATTENTION_FUNCTIONS.register("blockwise", eager_mask)


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


class MiniMindRotaryEmbedding(PlainRotaryEmbedding):
    """Rotary position embedding, scaled as ``config.rope_parameters`` says."""

    def __init__(self, config: MiniMindConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        initialise = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = initialise(config)
        # transformers refills these two by name when a model is built on the meta device.
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, T, d] of ``position_ids`` [B, T], in the dtype of ``x``."""
        return super().forward(x, position_ids)


class MiniMindAttention(PlainAttention):
    """Attention by any function that transformers knows."""

    @staticmethod
    def attention_function(implementation: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
        """What computes attention under this name."""
        return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)


class MiniMindDecoderLayer(GradientCheckpointingLayer, PlainDecoderLayer):
    """A decoder layer whose activations transformers can have recomputed."""

    attention_class = MiniMindAttention


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

        hidden_states, aux_loss = decode(
            self,
            inputs_embeds,
            position_ids,
            mask,
            token_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return MiniMindModelOutput(
            last_hidden_state=hidden_states,
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
