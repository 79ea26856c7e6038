"""MiniMind's own weight file: a flat state dict under upstream's names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from minimind.checkpoint.store import save_tensors
from minimind.export.target import new_file
from minimind.model import MiniMindForCausalLM
from minimind.weights.origin import UNKNOWN, Origin, with_origin


def write_pth(
    model: MiniMindForCausalLM, file: Path, dtype: torch.dtype, origin: Origin = UNKNOWN
) -> None:
    """Write the weights to ``file``; tied tensors stay one, under both names.

    Args:
        origin: what the file says of itself.

    Raises:
        ConfigError: the file cannot be written.
    """
    written: dict[int, torch.Tensor] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = written.setdefault(tensor.data_ptr(), tensor.to(dtype))
    new_file(file, partial(save_tensors, with_origin(state, origin)))
