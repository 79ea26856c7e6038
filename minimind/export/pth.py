"""MiniMind's own weight file: a flat state dict under upstream's names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from minimind.errors import ConfigError
from minimind.model import MiniMindForCausalLM
from minimind.training.checkpoint import save_tensors
from minimind.training.durable import write_durably


def write_pth(model: MiniMindForCausalLM, file: Path, dtype: torch.dtype) -> None:
    """Write the weights to ``file``; tied tensors stay one, under both names.

    Raises:
        ConfigError: the file cannot be written.
    """
    written: dict[int, torch.Tensor] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = written.setdefault(tensor.data_ptr(), tensor.to(dtype))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, partial(save_tensors, state))
    except OSError as error:
        raise ConfigError(f"--out {file} cannot be written: {error.strerror}") from None
