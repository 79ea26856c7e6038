"""Muon: momentum whose update is made orthogonal (Keller Jordan, 2024)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from minimind.distributed.device import has_bfloat16
from minimind.training.eager import EagerOptimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: Jordan's choice, which lifts small singular values fastest."""
ITERATIONS = 5
EPSILON = 1e-7

ADAMW_RMS = 0.2
"""Typical root mean square of AdamW's update, in learning rates (arXiv:2502.16982, section 2.2)."""


class Muon(EagerOptimizer):
    """Nesterov momentum, made orthogonal, in steps as large as AdamW's; decay as in AdamW.

    The same arithmetic as ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``, whose state it
    takes over, but all matrices of one shape in one product, and in float32 where bfloat16 is
    only emulated: there torch's takes seconds a step.

    Args:
        params: matrices only.
        lr: learning rate.
        weight_decay: a step takes ``lr · weight_decay`` of a weight away.
        momentum: decay rate of the momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; takes no closure."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[Any, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape, parameter.device].append(parameter)
            for (shape, device), alike in by_shape.items():
                rate = group["lr"] * ADAMW_RMS * math.sqrt(max(shape))
                updates = self._directions(alike, group["momentum"], product_dtype(device))
                torch._foreach_mul_(alike, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(alike, updates, alpha=-rate)

    def _directions(
        self, parameters: list[Tensor], momentum: float, dtype: torch.dtype
    ) -> list[Tensor]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        made = orthogonalize(torch.stack([update.to(dtype) for update in ahead]))
        return list(made.to(parameters[0].dtype).unbind())


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, whose precision is enough here, where the device has it in hardware."""
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values of ``matrices`` [n, A, B] near 1 by Newton-Schulz iteration.

    They end between 0.7 and 1.2, which trains as well as 1 does
    (https://kellerjordan.github.io/posts/muon/).
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    # Singular values above 1 would diverge.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
