"""Small models for the tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minimind.model import MiniMindConfig, MiniMindForCausalLM

ARCHITECTURES = [
    pytest.param({}, id="dense"),
    pytest.param({"use_moe": True, "num_experts_per_tok": 1}, id="moe-top1"),
    pytest.param({"use_moe": True, "num_experts_per_tok": 2}, id="moe-top2"),
]


def small_config(**overrides: Any) -> MiniMindConfig:
    """Two layers of width 32; large initial weights, so that differences would show in logits."""
    values: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "moe_intermediate_size": 24,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }
    return MiniMindConfig(**{**values, **overrides})


def small_model(seed: int = 0, **overrides: Any) -> MiniMindForCausalLM:
    torch.manual_seed(seed)
    return MiniMindForCausalLM(small_config(**overrides)).eval()


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 97, shape, generator=generator)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad.clone()
    return found
