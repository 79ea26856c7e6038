"""The adversary of tests/chaos on ranks in containers."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.docker import layer_of
from tests.chaos.driver import Driver
from tests.chaos.target import training_flags
from tests.e2e.docker.engine import Engine

SEED = 192
"""Draws, for one rank: a launcher's command killed at a file call, a stale checkpoint, the client
of a container signalled."""


def test_in_containers(engine: Engine, image: str, tmp_path: Path) -> None:
    flags = training_flags(tmp_path / "data", epochs=4)
    with layer_of(tmp_path, engine, image, flags) as layer:
        layer.faults = (3, 3)
        driver = Driver(layer, tmp_path, SEED)
        assert driver.case(0), driver.report.losses
        assert driver.report.count >= 1, "nothing was hit"
