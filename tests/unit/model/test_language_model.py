"""The plain network beside transformers' class: one model, to the bit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
KINDS = [
    pytest.param({}, id="dense"),
    pytest.param({"use_moe": True, "num_experts_per_tok": 2}, id="moe"),
    pytest.param({"num_key_value_heads": 4, "tie_word_embeddings": False}, id="untied, no groups"),
    pytest.param({"dropout": 0.2, "attention_dropout": 0.2}, id="dropout"),
]


def both(**more: Any) -> tuple[LanguageModel, MiniMindForCausalLM]:
    torch.manual_seed(0)
    plain = LanguageModel(Architecture(**{**SIZES, **more}))
    torch.manual_seed(0)
    return plain, MiniMindForCausalLM(MiniMindConfig(**{**SIZES, **more}))


def rows(packed: bool) -> dict[str, torch.Tensor]:
    """Two rows of 16 tokens: of two documents each, or of one; the second ends in padding."""
    ids = torch.randint(3, 97, (2, 16), generator=torch.Generator().manual_seed(1))
    positions, documents = torch.arange(16).repeat(2, 1), torch.zeros(2, 16, dtype=torch.int32)
    positions[:, 6:] -= 6 * packed
    documents[:, 6:] = 1
    documents[1, 12:] = -1
    targets = ids.roll(-1, 1).masked_fill(documents < 0, -100)
    batch = {"input_ids": ids, "position_ids": positions, "shift_labels": targets}
    return batch | {"token_mask": documents >= 0} | ({"document_ids": documents} if packed else {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_weights(kind: dict[str, Any]) -> None:
    plain, theirs = both(**kind)
    after = torch.get_rng_state()
    ours, other = plain.state_dict(), theirs.state_dict()
    assert list(ours) == list(other)
    assert all(torch.equal(ours[name], other[name]) for name in ours)
    assert [name for name, _ in plain.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]
    torch.manual_seed(0)
    LanguageModel(Architecture(**{**SIZES, **kind}))
    assert torch.equal(torch.get_rng_state(), after), "what is drawn next differs"


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "one document a row"])
@pytest.mark.parametrize("attention", ["sdpa", "eager", "blockwise"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_the_same(
    kind: dict[str, Any], attention: str, packed: bool
) -> None:
    found = []
    for model in both(**kind):
        model.set_attn_implementation(attention)
        torch.manual_seed(3)
        out = model.train()(**rows(packed), num_items_in_batch=7)
        (out.loss + out.aux_loss).backward()
        found.append([out.loss, out.logits, out.aux_loss, *(p.grad for p in model.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_both_configurations_have_the_same_fields() -> None:
    ours, theirs = Architecture(hidden_size=96), MiniMindConfig(hidden_size=96)
    assert {name: getattr(theirs, name) for name in asdict(ours)} == asdict(ours)
    assert ours.architecture_dict() == theirs.architecture_dict()
    assert ours.architecture_dict().items() <= theirs.to_dict().items()
    assert ours.rope_theta == theirs.rope_theta


def test_a_mistake_is_the_same_error() -> None:
    for kind in (Architecture, MiniMindConfig):
        with pytest.raises(ValueError, match=r"num_attention_heads \(8\) must be a multiple of"):
            kind(num_key_value_heads=3)
