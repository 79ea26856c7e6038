"""Optimisers that leave torch's compiler alone.

torch marks an optimizer's methods as not to be compiled, and importing the compiler for that, at
the first call, takes as long as importing torch. Our steps are never part of a compiled graph:
the methods below the marks do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MARKS = {("_compile.py", "inner"), ("optimizer.py", "_use_grad")}
"""Files of torch and the functions in them that wrap a method only to import the compiler."""


def unmarked(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method below torch's mark; ``method`` itself if nothing, or something else, wraps it."""
    code = getattr(method, "__code__", None)
    if code is None or (Path(code.co_filename).name, code.co_name) not in MARKS:
        return method
    return getattr(method, "__wrapped__", method)


class EagerOptimizer(torch.optim.Optimizer):
    """A base class before torch's own in the order of bases."""

    add_param_group = unmarked(torch.optim.Optimizer.add_param_group)
    state_dict = unmarked(torch.optim.Optimizer.state_dict)
    load_state_dict = unmarked(torch.optim.Optimizer.load_state_dict)
    zero_grad = unmarked(torch.optim.Optimizer.zero_grad)
