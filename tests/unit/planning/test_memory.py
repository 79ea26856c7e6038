from __future__ import annotations

from typing import Any

import pytest
import torch

from minimind.config import TrainConfig
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel
from minimind.planning.memory import layer_bytes, memory_of, optimizer_bytes
from minimind.planning.parameters import count_parameters
from minimind.training.optimizer import Optimizers

ROWS, TOKENS = 2, 32


def kept_by_autograd(architecture: Architecture, half: bool) -> int:
    """Bytes of all tensors that a forward pass leaves for the backward pass, but weights."""
    model = LanguageModel(architecture)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, architecture.vocab_size, (ROWS, TOKENS))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        model(
            input_ids=ids,
            position_ids=torch.arange(TOKENS).expand(ROWS, TOKENS),
            token_mask=torch.ones(ROWS, TOKENS, dtype=torch.bool),
            shift_labels=ids,
            num_items_in_batch=1,
            document_ids=torch.zeros(ROWS, TOKENS, dtype=torch.int32),
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("moe", [False, True])
def test_a_layer_keeps_what_the_model_keeps(half: bool, moe: bool) -> None:
    def architecture(layers: int) -> Architecture:
        return Architecture(
            hidden_size=64, num_hidden_layers=layers, vocab_size=50, use_moe=moe, num_experts=2
        )

    one, two = architecture(1), architecture(2)
    measured = kept_by_autograd(two, half) - kept_by_autograd(one, half)
    # Copies of the weights for matrix products are counted apart.
    casts = count_parameters(two).matrices - count_parameters(one).matrices
    if half:
        measured -= 2 * casts
    elif moe:
        measured -= 4 * 2 * 3 * 64 * two.moe_intermediate_size
    counted = ROWS * TOKENS * layer_bytes(two, TOKENS, half=half, packed=True)
    assert counted == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_optimizer_has_as_many_moments(name: str) -> None:
    config = TrainConfig(optimizer=name, learning_rate=1e-3)
    architecture = Architecture(hidden_size=64, num_hidden_layers=1, vocab_size=50)
    model = LanguageModel(architecture)
    optimizers = Optimizers(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(torch.amp.GradScaler("cpu", enabled=False))
    moments = [
        value
        for member in optimizers.members
        for state in member.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.dim()
    ]
    kept = sum(tensor.nbytes for tensor in moments)
    assert kept == optimizer_bytes(count_parameters(architecture), name)


def memory(**changes: Any) -> Any:
    architecture = Architecture(hidden_size=64, num_hidden_layers=4, vocab_size=100)
    given: dict[str, Any] = {
        "rows": 4,
        "tokens": 32,
        "dtype": "bfloat16",
        "optimizer": "adamw",
        "device": "cuda",
        "recompute": False,
        "packed": True,
        "ranks": 1,
        "compiled": False,
        **changes,
    }
    return memory_of(architecture, **given)


def test_what_each_flag_changes() -> None:
    plain = memory()
    assert memory(rows=8).activations == 2 * plain.activations
    assert memory(rows=8).fixed == plain.fixed
    assert memory(recompute=True).activations < plain.activations / 2
    assert memory(optimizer="muon").optimizer < plain.optimizer
    assert memory(ranks=2).exchange == plain.gradients
    assert memory(dtype="float32").casts == 0


def test_a_checkpoints_copy_is_in_the_hosts_memory() -> None:
    plan = memory()
    assert plan.total("cpu") - plan.total("cuda") == plan.checkpoint
