"""Token after token from the plain network, as transformers' ``generate`` chooses them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minimind.inference.sampling import Sampling
from minimind.model.language_model import KeyValueCache, LanguageModel


def continue_rows(
    model: LanguageModel,
    ids: Tensor,
    real: Tensor,
    sampling: Sampling,
    *,
    pad: int,
    end: int | None,
    on_tokens: Callable[[Tensor], None],
    goes_on: Callable[[], bool],
) -> Tensor:
    """Append tokens to each row until all have ended.

    Args:
        ids: whole numbers [B, T], padded on the left.
        real: bool [B, T], False for padding.
        pad: what follows the end of a row while others go on.
        end: the token that ends a row.
        on_tokens: is given ``ids``, then the new tokens [B] of each turn.
        goes_on: asked at each turn; False ends all rows there.

    Returns:
        [B, T + new tokens].
    """
    cache, unfinished = KeyValueCache(), torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    on_tokens(ids.cpu())
    seen = 0
    for _ in range(sampling.max_new_tokens):
        scores = model.next_scores(ids[:, seen:], real, cache)
        seen = ids.shape[1]
        chosen = choose(scores, ids, sampling).where(unfinished, pad)
        on_tokens(chosen.cpu())
        ids = torch.cat((ids, chosen[:, None]), dim=1)
        real = torch.nn.functional.pad(real, (0, 1), value=True)
        if end is not None:
            unfinished = unfinished & (chosen != end)
        if not goes_on() or not unfinished.any():
            break
    return ids


def choose(scores: Tensor, ids: Tensor, sampling: Sampling) -> Tensor:
    """The next token [B] by ``scores`` [B, V] after the tokens ``ids`` [B, T]."""
    if sampling.repetition_penalty != 1:
        before = scores.gather(1, ids)
        weaker = torch.where(
            before < 0, before * sampling.repetition_penalty, before / sampling.repetition_penalty
        )
        scores = scores.scatter(1, ids, weaker)
    if sampling.temperature == 0:
        return scores.argmax(dim=-1)
    scores = scores / sampling.temperature
    if sampling.top_k:
        least = scores.topk(min(sampling.top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p < 1:
        scores = scores.masked_fill(outside_nucleus(scores, sampling.top_p), -torch.inf)
    return torch.multinomial(scores.softmax(dim=-1), 1).squeeze(1)


def outside_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """True for the tokens that are not among the likeliest of total probability ``top_p``."""
    ascending, order = scores.sort(dim=-1)
    outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    outside[:, -1] = False  # the likeliest is always left
    return outside.scatter(1, order, outside)
