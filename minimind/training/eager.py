"""Optimisers that leave torch's compiler alone.

torch marks an optimizer's methods as not to be compiled, and importing the compiler for that, at
the first call, takes as long as importing torch. Our steps are never part of a compiled graph:
the methods below the marks do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def undecorated(method: Callable[..., Any]) -> Callable[..., Any]:
    """What a decorator wraps; ``method`` itself, should torch no longer decorate it."""
    return getattr(method, "__wrapped__", method)


class EagerOptimizer(torch.optim.Optimizer):
    """A base class before torch's own in the order of bases."""

    add_param_group = undecorated(torch.optim.Optimizer.add_param_group)
    state_dict = undecorated(torch.optim.Optimizer.state_dict)
    load_state_dict = undecorated(torch.optim.Optimizer.load_state_dict)
    zero_grad = undecorated(torch.optim.Optimizer.zero_grad)
