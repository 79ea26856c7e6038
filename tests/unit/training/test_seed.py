from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from minimind.training.seed import rng_state, set_rng_state, setup_seed

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.normal()), float(torch.rand(()))


def test_seed_decides_all_generators() -> None:
    setup_seed(3)
    first = draw()
    setup_seed(3)
    assert draw() == first
    setup_seed(4)
    assert draw() != first


def test_state_survives_a_weights_only_file(tmp_path: Path) -> None:
    setup_seed(5)
    draw()
    torch.save(rng_state(CPU), tmp_path / "rng.pt")
    expected = [draw() for _ in range(3)]
    setup_seed(6)
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True), CPU)
    assert [draw() for _ in range(3)] == expected
