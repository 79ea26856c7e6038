"""MiniMind in plain torch, as it trains on a CPU: transformers takes seconds to import."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .layers import (
    MiniMindDecoderLayer,
    MiniMindRMSNorm,
    MiniMindRotaryEmbedding,
    create_packed_mask,
    decode,
)


class Output(NamedTuple):
    """What a forward pass gives.

    Attributes:
        loss: cross-entropy summed over targets, divided by ``num_items_in_batch``; float32 nats.
        logits: [B, T, V].
        aux_loss: load-balancing loss of all layers, float32 scalar; 0 for a dense model.
    """

    loss: Tensor
    logits: Tensor
    aux_loss: Tensor


class KeyValueCache:
    """Keys and values [B, K, S, d] of the tokens so far, for each layer."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Add those of new tokens; return all."""
        if layer in self._layers:
            keys, values = self._layers[layer]
            key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        self._layers[layer] = key, value
        return key, value


class Decoder(nn.Module):
    """Token embedding, decoder layers and the final norm."""

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            MiniMindDecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = MiniMindRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = MiniMindRotaryEmbedding(config)


class LanguageModel(nn.Module):
    """The network of ``MiniMindForCausalLM``: same weights from a seed, same names, same numbers.

    It knows plain RoPE and no recomputing of activations: what needs more takes
    ``MiniMindForCausalLM``.
    """

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        # In transformers' order, so that a seed makes the same weights.
        self.model = Decoder(config).apply(self._initialize)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._initialize(self.lm_head)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def set_attn_implementation(self, name: str) -> None:
        """Compute attention by the function of this name in ``ATTENTION_FUNCTIONS``."""
        self.config._attn_implementation = name

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        token_mask: Tensor,
        shift_labels: Tensor,
        num_items_in_batch: int,
        document_ids: Tensor | None = None,
    ) -> Output:
        """Predict the next token at every position of a batch of rows.

        Args:
            input_ids: whole numbers [B, T].
            position_ids: [B, T], counted within each document.
            token_mask: bool [B, T], the tokens that are no padding.
            shift_labels: [B, T], the target of each position; −100 is ignored.
            num_items_in_batch: what the sum of the loss is divided by.
            document_ids: [B, T]; a token sees earlier tokens of its own document, −1 is padding.
                None: each row is one document.
        """
        embedded = self.model.embed_tokens(input_ids)
        mask = self._mask(embedded, document_ids)
        hidden_states, aux_loss = decode(self.model, embedded, position_ids, mask, token_mask)
        logits = self.lm_head(hidden_states)
        # As transformers computes it, to the bit.
        scores = logits.float().view(-1, self.config.vocab_size)
        nats = F.cross_entropy(scores, shift_labels.view(-1), reduction="sum")
        return Output(nats / num_items_in_batch, logits, aux_loss)

    def next_scores(self, ids: Tensor, real: Tensor, cache: KeyValueCache) -> Tensor:
        """Score the token that follows each row: float32 [B, V].

        Args:
            ids: whole numbers [B, T], the tokens that ``cache`` does not have yet.
            real: bool [B, S] of all tokens so far, False for padding on the left.
        """
        positions = (real.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        hidden_states, _ = decode(
            self.model,
            self.model.embed_tokens(ids),
            positions,
            self._cached_mask(real, ids.shape[1]),
            token_mask=None,
            past_key_values=cache,
        )
        return self.lm_head(hidden_states[:, -1]).float()

    def _cached_mask(self, real: Tensor, length: int) -> Tensor | None:
        """bool [B, 1, T, S] for the last ``length`` of S tokens."""
        if self.config._attn_implementation == "sdpa" and real.all():
            return None
        seen = real.shape[1]
        causal = torch.ones(length, seen, dtype=torch.bool, device=real.device).tril(seen - length)
        # Padding sees itself: a row of the mask must not be empty.
        itself = torch.eye(seen, dtype=torch.bool, device=real.device)[-length:]
        return ((causal & real[:, None, :]) | itself)[:, None]

    def _mask(self, embedded: Tensor, document_ids: Tensor | None) -> Tensor | None:
        if document_ids is not None:
            return create_packed_mask(self.config, embedded, document_ids)
        if self.config._attn_implementation == "sdpa":
            return None
        length = embedded.shape[1]
        return torch.ones(length, length, dtype=torch.bool, device=embedded.device).tril()[
            None, None
        ]
