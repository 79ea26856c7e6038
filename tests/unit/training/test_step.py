"""An optimiser step on its own: no epochs, no files."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.training.optimizer import Optimizers
from minimind.training.precision import make_scaler
from minimind.training.step import TrainStep

CPU = torch.device("cpu")


class Squares(nn.Module):
    """Its loss is the sum of what its targets say of one weight, squared."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.calls: list[str] = []

    def forward(self, x: Any, shift_labels: Any, num_items_in_batch: int) -> SimpleNamespace:
        scored = (shift_labels >= 0).to(x.dtype)
        loss = (self.weight * x * scored).square().sum()
        return SimpleNamespace(loss=loss, aux_loss=torch.zeros(()))

    @contextlib.contextmanager
    def no_sync(self):
        self.calls.append("no_sync")
        yield


def make(**flags: Any) -> tuple[Squares, TrainStep]:
    model = Squares()
    config = TrainConfig(**{"grad_clip": 0.0, **flags})
    world = World(rank=0, world_size=1, local_rank=0, device=CPU)
    optimizers = Optimizers(model, config)
    scaler = make_scaler(CPU, "float32")
    return model, TrainStep(config, world, model, optimizers, scaler, contextlib.nullcontext())


def batch(*values: float) -> dict[str, torch.Tensor]:
    return {"x": torch.tensor(values), "targets": torch.zeros(len(values), dtype=torch.int64)}


def test_the_gradient_is_a_mean_over_all_scored_tokens_of_the_step() -> None:
    model, step = make()
    step.forward_backward(batch(1.0, 2.0), scored=3, exchange=False)
    step.forward_backward(batch(3.0), scored=3, exchange=True)
    assert model.weight.grad is not None
    assert float(model.weight.grad) == pytest.approx(2 * 2.0 * (1 + 4 + 9) / 3)
    assert step.update(0)
    assert float(step.grad_norm) == pytest.approx(2 * 2.0 * 14 / 3)
    assert model.weight.grad is None
    assert step.meter.read().tolist() == [4.0 * 14, 0.0, 3.0]


def test_only_the_last_micro_batch_exchanges_gradients() -> None:
    _, step = make()
    replica: Any = Squares()
    step.replica = replica
    step.forward_backward(batch(1.0), scored=2, exchange=False)
    assert replica.calls == ["no_sync"]
    step.forward_backward(batch(1.0), scored=2, exchange=True)
    assert replica.calls == ["no_sync"]


def test_the_backward_pass_that_exchanges_gradients_is_not_this_ranks_own_time() -> None:
    """In it the ranks wait for the slowest: all take as long as that one."""
    _, step = make()
    replica: Any = Squares()
    step.replica = replica
    inside: list[bool] = []

    @contextlib.contextmanager
    def alone():
        inside.append(True)
        yield
        inside.pop()

    step.alone = alone
    seen: list[bool] = []
    replica.weight.register_hook(lambda gradient: seen.append(bool(inside)))
    step.forward_backward(batch(1.0), scored=2, exchange=False)
    step.forward_backward(batch(1.0), scored=2, exchange=True)
    assert seen == [True, False]


def test_a_step_that_is_not_finite_is_left_out() -> None:
    model, step = make(skip_nonfinite=1)
    step.forward_backward(batch(float("inf")), scored=1, exchange=True)
    assert not step.update(0)
    assert float(model.weight.detach()) == 2.0
    assert step.meter.read().tolist() == [0.0, 0.0, 0.0]
    step.forward_backward(batch(1.0), scored=1, exchange=True)
    assert step.update(1)
    assert float(model.weight.detach()) != 2.0
    assert step.first_nonfinite() is None


def test_where_judging_would_hold_up_the_device_the_first_bad_step_is_noted() -> None:
    _, step = make()
    step._judges_each = False
    for number, value in enumerate((1.0, float("nan"), float("nan"))):
        assert step.first_nonfinite() == (None if number < 2 else 1)
        step.forward_backward(batch(value), scored=1, exchange=True)
        assert step.update(number)
    assert step.first_nonfinite() == 1


def test_a_step_that_is_given_up_leaves_no_trace() -> None:
    model, step = make()
    before = step.meter.snapshot()
    step.forward_backward(batch(1.0), scored=2, exchange=False)
    step.give_up(before)
    assert model.weight.grad is None
    assert step.meter.read().tolist() == [0.0, 0.0, 0.0]
