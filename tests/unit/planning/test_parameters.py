from __future__ import annotations

import pytest
import torch

from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel
from minimind.planning.parameters import count_parameters

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}


@pytest.mark.parametrize(
    "more",
    [{}, {"head_dim": 10}, {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2}],
    ids=["dense", "wide heads", "experts"],
)
def test_as_many_as_the_model_has(more: dict[str, int]) -> None:
    architecture = Architecture(**SIZES, **more)
    with torch.device("meta"):
        model = LanguageModel(architecture)
    named = dict(model.named_parameters())
    counted = count_parameters(architecture)
    assert counted.total == sum(p.numel() for p in named.values())
    matrices = [p for name, p in named.items() if p.dim() == 2 and ".layers." in name]
    assert counted.matrices == sum(p.numel() for p in matrices)


def test_a_token_meets_the_experts_that_it_visits() -> None:
    counted = count_parameters(Architecture(**SIZES, use_moe=True, num_experts=4))
    expert = 3 * 64 * 256
    assert counted.total - counted.active == 2 * 3 * expert
    dense = count_parameters(Architecture(**SIZES))
    assert dense.total == dense.active
