"""Random number generators: seeding them, and carrying their state across a resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from minimind.distributed.device import make_deterministic, random_state, set_random_state


def setup_seed(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch (CPU and every accelerator)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        make_deterministic()


def rng_state(device: torch.device) -> dict[str, Any]:
    """The state of all generators of this rank, in types that weights-only loading allows."""
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": numpy_state,
        "torch": torch.get_rng_state(),
        **random_state(device),
    }


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    generator = dict(state["numpy"])
    key = generator["state"]["key"].numpy().astype(np.uint32)
    generator["state"] = {**generator["state"], "key": key}
    np.random.set_state(generator)
    torch.set_rng_state(state["torch"])
    set_random_state(state, device)
