"""The adversary of tests/chaos, for a few cases with fixed seeds: ``make chaos`` runs more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import local, plain
from tests.chaos.driver import Driver
from tests.chaos.slurm import SlurmLayer
from tests.chaos.target import training_flags
from tests.e2e.lab import Lab

# With these seeds, the faults are:
PLAIN_SEED = 1
LOCAL_SEED = 8
"""The supervisor signalled, a kill at a file call, the supervisor again, all ranks stopped."""
SLURM_SEED = 5
"""The batch script's supervisor signalled, all ranks killed, the supervisor again."""


def assert_whole(driver: Driver, cases: int, faults: int) -> None:
    """All cases were judged and found whole, and they were interfered with so often."""
    for case in range(cases):
        assert driver.case(case), driver.report.losses
    assert driver.report.count >= faults


def test_ranks_alone(tmp_path: Path) -> None:
    with plain.layer(tmp_path / "plain") as layer:
        assert_whole(Driver(layer, tmp_path, PLAIN_SEED), cases=2, faults=12)


def test_under_the_local_executor(tmp_path: Path) -> None:
    with local.layer(tmp_path / "local") as layer:
        layer.faults = (3, 4)
        assert_whole(Driver(layer, tmp_path, LOCAL_SEED), cases=1, faults=3)


def test_under_slurm(slurm: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    layer = SlurmLayer(slurm, training_flags(tmp_path / "data", epochs=20), has_namespaces=False)
    layer.faults = (3, 3)
    assert_whole(Driver(layer, tmp_path, SLURM_SEED), cases=1, faults=3)
