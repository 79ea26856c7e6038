"""MiniMind computes what transformers' Qwen3 and Qwen3-MoE compute with the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from minimind.model import MiniMindForCausalLM

from .helpers import ARCHITECTURES, random_ids, small_model

SHARED_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
)
MOE_FIELDS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")


def qwen3_twin(model: MiniMindForCausalLM) -> PreTrainedModel:
    """Qwen3 or Qwen3-MoE with the same sizes and weights."""
    config, state = model.config, model.state_dict()
    fields = SHARED_FIELDS + (MOE_FIELDS if config.use_moe else ())
    values = {name: getattr(config, name) for name in fields}
    if not config.use_moe:
        twin: PreTrainedModel = Qwen3ForCausalLM(Qwen3Config(**values))
    else:
        twin = Qwen3MoeForCausalLM(Qwen3MoeConfig(**values))
        for layer in range(config.num_hidden_layers):
            experts = f"model.layers.{layer}.mlp.experts"
            parts: dict[str, list[torch.Tensor]] = {
                part: [
                    state.pop(f"{experts}.{expert}.{part}.weight")
                    for expert in range(config.num_experts)
                ]
                for part in ("gate_proj", "up_proj", "down_proj")
            }
            state[f"{experts}.gate_up_proj"] = torch.cat(
                [torch.stack(parts["gate_proj"]), torch.stack(parts["up_proj"])], dim=1
            )
            state[f"{experts}.down_proj"] = torch.stack(parts["down_proj"])
    twin.load_state_dict(state, strict=True)
    return twin.eval()


def assert_same_logits(model: MiniMindForCausalLM, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        ours = model(**inputs).logits
        theirs = qwen3_twin(model)(**inputs).logits
    assert theirs.abs().max() > 1  # else a tolerance of 1e-5 would say little
    keep = inputs.get("attention_mask", torch.ones(ours.shape[:2])).bool()
    torch.testing.assert_close(ours[keep], theirs[keep], rtol=0, atol=1e-5)
    return ours


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_qwen3(architecture):
    assert_same_logits(small_model(**architecture), input_ids=random_ids(3, 19))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_equal_qwen3_with_padding(architecture, side):
    mask = torch.ones(3, 12, dtype=torch.long)
    for row, padding in enumerate((0, 4, 9)):
        if padding:
            mask[row, slice(None, padding) if side == "left" else slice(-padding, None)] = 0
    assert_same_logits(
        small_model(**architecture), input_ids=random_ids(3, 12), attention_mask=mask
    )


def test_logits_equal_qwen3_where_top2_weights_are_not_normalised():
    model = small_model(use_moe=True, num_experts_per_tok=2, norm_topk_prob=False)
    assert_same_logits(model, input_ids=random_ids(2, 16))


def test_logits_equal_qwen3_with_free_head_dim_and_untied_embeddings():
    model = small_model(head_dim=16, tie_word_embeddings=False)
    assert_same_logits(model, input_ids=random_ids(2, 16))


def test_gradients_equal_qwen3():
    model = small_model()
    twin = qwen3_twin(model)
    ids = random_ids(2, 16)
    model(input_ids=ids, labels=ids).loss.backward()
    twin(input_ids=ids, labels=ids).loss.backward()
    expected = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6, msg=name
        )


def test_yarn_equals_qwen3_with_the_same_rope_parameters():
    """Past 2,048 positions, where extrapolation is for."""
    position_ids = torch.arange(3000, 3024).unsqueeze(0)
    inputs = {"input_ids": random_ids(1, 24), "position_ids": position_ids}
    sizes = {"head_dim": 64, "max_position_embeddings": 32768}
    plain = assert_same_logits(small_model(**sizes), **inputs)
    scaled_model = small_model(**sizes, inference_rope_scaling=True)
    twin_parameters = qwen3_twin(scaled_model).config.rope_parameters
    assert twin_parameters["rope_type"] == "yarn"
    scaled = assert_same_logits(scaled_model, **inputs)
    assert (scaled - plain).abs().max() > 0.01
