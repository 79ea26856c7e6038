from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from minimind.config import TrainConfig
from minimind.training.eager import EagerOptimizer, unmarked
from minimind.training.muon import Muon
from minimind.training.optimizer import AdamW, Optimizers
from minimind.training.precision import make_scaler


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {
                "embed": nn.Embedding(4, 4),
                "layers": nn.ModuleList([nn.Linear(4, 4, bias=False), nn.LayerNorm(4)]),
            }
        )

    def loss(self) -> torch.Tensor:
        embed, (linear, norm) = self.model["embed"], self.model["layers"]
        return norm(linear(embed.weight)).square().sum() + linear.weight.sum()


def test_only_matrices_decay() -> None:
    optimizers = Optimizers(Tiny(), TrainConfig(weight_decay=0.3))
    decays = {
        p.dim(): group["weight_decay"]
        for o in optimizers.members
        for group in o.param_groups
        for p in group["params"]
    }
    assert decays == {2: 0.3, 1: 0.0}


def test_muon_takes_the_matrices_of_the_layers_only() -> None:
    model = Tiny()
    adamw, muon = Optimizers(model, TrainConfig(optimizer="muon")).members
    assert isinstance(muon, Muon)
    assert [id(p) for g in muon.param_groups for p in g["params"]] == [
        id(model.model["layers"][0].weight)
    ]
    assert sum(len(g["params"]) for g in adamw.param_groups) == 3


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_travels(name: str) -> None:
    """Two steps equal one step, a save, a load and another step: bit for bit."""
    torch.manual_seed(0)
    config = TrainConfig(optimizer=name, learning_rate=0.1)
    model = Tiny()
    scaler = make_scaler(torch.device("cpu"), "float32")
    optimizers = Optimizers(model, config)

    def step(m: Tiny, o: Optimizers) -> None:
        m.loss().backward()
        o.set_learning_rate(0.05)
        o.step(scaler)
        o.zero_grad()

    step(model, optimizers)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    state = copy.deepcopy(optimizers.state_dict())
    other = Tiny()
    other.load_state_dict(weights)
    restored = Optimizers(other, config)
    restored.load_state_dict(state)
    before = other.model["layers"][0].weight.clone()
    step(model, optimizers)
    step(other, restored)
    assert not torch.equal(before, other.model["layers"][0].weight)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_run_has_its_own_decays_and_rates_of_decay(name: str) -> None:
    """What is saved is how far the moments are, not what the flags said then."""
    before = Optimizers(Tiny(), TrainConfig(optimizer=name))
    flags = {"weight_decay": 0.7, "beta1": 0.1, "beta2": 0.5, "learning_rate": 0.25}
    now = Optimizers(Tiny(), TrainConfig(optimizer=name, **flags))
    wanted = settings(now)
    assert settings(before) != wanted
    now.load_state_dict(copy.deepcopy(before.state_dict()))
    assert settings(now) == wanted


def settings(optimizers: Optimizers) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in group.items() if key != "params"}
        for member in optimizers.members
        for group in member.param_groups
    ]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("where", ["embed", "layers"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_overflow_anywhere_is_a_step_for_no_parameter(name: str, where: str, bad: float) -> None:
    model = Tiny()
    optimizers = Optimizers(model, TrainConfig(optimizer=name, weight_decay=0.5))
    scaler = make_scaler(torch.device("cpu"), "float16")
    before = copy.deepcopy(model.state_dict())
    struck = model.model["embed"] if where == "embed" else model.model["layers"][0]

    def step(overflows: bool) -> None:
        scaler.scale(model.loss()).backward()
        if overflows:
            struck.weight.grad[1, 2] = bad
        optimizers.unscale(scaler)
        nn.utils.clip_grad_norm_(optimizers.parameters, 1.0)
        optimizers.step(scaler)
        optimizers.zero_grad()

    step(overflows=True)
    assert scaler.get_scale() == 2.0**15
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    step(overflows=False)
    assert scaler.get_scale() == 2.0**15
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_adamw_is_torchs_to_the_bit() -> None:
    """Only what torch adds to its methods for its compiler is left out."""
    ours, theirs = (nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = [
        kind(model.parameters(), lr=0.1, fused=True)
        for kind, model in ((AdamW, ours), (torch.optim.AdamW, theirs))
    ]
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            model(torch.arange(5.0)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        optimizers[0].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


def test_torchs_marks_for_its_compiler_are_left_out() -> None:
    for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
        assert getattr(EagerOptimizer, name).__code__.co_name == name
    # Of a class that no test makes an optimizer of: torch then wraps its step once more.
    assert unmarked(torch.optim.RMSprop.step).__code__.co_name == "step"


def test_what_another_torch_wraps_around_a_method_is_kept() -> None:
    """Only the marks are known to be needless; without them there is nothing to take away."""

    def step() -> None:
        """As a torch that marks nothing has it."""

    @functools.wraps(step)
    def synchronised() -> None:
        step()

    methods: list[Callable[..., Any]] = [step, synchronised, len]
    for method in methods:
        assert unmarked(method) is method
