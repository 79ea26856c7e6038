"""The optimiser: which algorithm updates which parameters, and which of them it decays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from minimind.config import TrainConfig
from minimind.training.eager import EagerOptimizer, unmarked
from minimind.training.muon import Muon


class AdamW(EagerOptimizer, torch.optim.AdamW):
    """torch's own, without its compiler."""

    step = torch.no_grad()(unmarked(torch.optim.AdamW.step))


class Optimizers:
    """AdamW alone, or Muon for the matrices of the layers with AdamW for the rest."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices: list[nn.Parameter] = []
        if config.optimizer == "muon":
            matrices = [p for n, p in named if p.dim() == 2 and ".layers." in n]
        taken = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in taken]
        self.members: list[torch.optim.Optimizer] = [_adamw(rest, config)]
        if matrices:
            self.members.append(
                Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay)
            )
        self.parameters = [p for _, p in named]
        self._scaled: Any = self.members[0] if len(self.members) == 1 else _Together(self.members)

    def set_learning_rate(self, rate: float) -> None:
        for optimizer in self.members:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def step(self, scaler: torch.amp.GradScaler) -> None:
        scaler.step(self._scaled)
        scaler.update()

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        scaler.unscale_(self._scaled)

    def zero_grad(self) -> None:
        for optimizer in self.members:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """AdamW's own state dict; with Muon, both under their names."""
        if len(self.members) == 1:
            return self.members[0].state_dict()
        return {type(o).__name__.lower(): o.state_dict() for o in self.members}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved moments, with the decays and rates of this run's own flags."""
        if len(self.members) == 1:
            _load(self.members[0], state)
            return
        for optimizer in self.members:
            _load(optimizer, state[type(optimizer).__name__.lower()])


class _Together:
    """What a gradient scaler takes for one optimiser, so that all members step or none does.

    It judges each optimiser by that one's own gradients: an overflow in AdamW's would not keep
    Muon from stepping with gradients that clipping has made zeros, or NaN.
    """

    def __init__(self, members: list[torch.optim.Optimizer]) -> None:
        self._members = members

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._members for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self._members:
            optimizer.step()


def _load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    # torch takes a group's settings from the state, too.
    ours = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, ours, strict=True):
        group.update(settings)


def _adamw(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    everything = list(parameters)
    groups = [
        {"params": [p for p in everything if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in everything if p.dim() < 2], "weight_decay": 0.0},
    ]
    return AdamW(
        [g for g in groups if g["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
