from __future__ import annotations

import copy

import pytest
import torch

from minimind.distributed import device
from minimind.training import muon
from minimind.training.muon import Muon, orthogonalize, product_dtype

SHAPES = [(8, 16), (16, 8), (8, 16), (12, 12), (8, 16)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1}


def matrices() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def set_gradients(parameters: list[torch.nn.Parameter], seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)


def reference(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Muon(parameters, adjust_lr_fn="match_rms_adamw", **SETTINGS)


def pair(make_ours, make_theirs, steps: int = 4):
    ours, theirs = matrices(), matrices()
    optimizers = make_ours(ours), make_theirs(theirs)
    for step in range(steps):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            set_gradients(parameters, step + 1)
            optimizer.step()
    return ours, theirs


def test_it_computes_what_torch_does(monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.bfloat16)
    ours, theirs = pair(lambda p: Muon(p, **SETTINGS), reference)
    for mine, other, start in zip(ours, theirs, matrices(), strict=True):
        assert (mine - start).abs().max() > 0.01
        # Products of a batch may be added up in another order.
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-3)


def test_in_float32_it_does_so_within_the_precision_of_bfloat16(monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.float32)
    ours, theirs = pair(lambda p: Muon(p, **SETTINGS), reference, steps=1)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=5e-3)


def test_it_takes_over_the_state_of_torchs(monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.bfloat16)
    parameters = matrices()
    theirs = reference(parameters)
    set_gradients(parameters, 1)
    theirs.step()
    mine = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    ours = Muon(mine, **SETTINGS)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for optimizer, held in ((ours, mine), (theirs, parameters)):
        set_gradients(held, 2)
        optimizer.step()
    for a, b in zip(mine, parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def test_a_parameter_without_a_gradient_stays():
    parameters = matrices()
    before = parameters[2].detach().clone()
    set_gradients(parameters, 1)
    parameters[2].grad = None
    Muon(parameters, **SETTINGS).step()
    assert torch.equal(parameters[2], before)


@pytest.mark.parametrize("shape", [(3, 8, 32), (3, 32, 8), (1, 16, 16)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    found = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert found.min() > 0.6
    assert found.max() < 1.3


def test_a_zero_gradient_moves_nothing():
    assert torch.equal(orthogonalize(torch.zeros(2, 4, 8)), torch.zeros(2, 4, 8))


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_emulated_bfloat16_is_avoided(monkeypatch, has, dtype):
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: has)
    assert product_dtype(torch.device("cpu")) == dtype
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert product_dtype(torch.device("cuda")) == dtype
