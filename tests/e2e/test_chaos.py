"""The adversary of tests/chaos, for a few cases with fixed seeds: ``make chaos`` runs more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import local, nfs, plain
from tests.chaos.driver import Driver
from tests.chaos.slurm import SlurmLayer
from tests.chaos.target import training_flags
from tests.e2e.lab import Lab
from tests.nfs import available

PLAIN_SEED = 36
"""Draws, for two ranks: a full disk twice, the clock, vanished checkpoints, a second start, ranks
suspended, one stopped, a kill at a file call."""
NFS_SEED = 33
"""Draws, for two ranks: writes refused, a stop and a kill right after it, stale handles, a move to
other nodes, a kill at a file call."""
LOCAL_SEED = 19
"""Draws: a launcher's command killed at a file call, a rank stopped at one, a stale checkpoint, a
rank killed at a file call."""
SLURM_SEED = 109
"""Draws: vanished checkpoints, all ranks killed, the batch script signalled."""


def assert_whole(driver: Driver, faults: int) -> None:
    """A case was judged and found whole, and at least so many of its faults hit something.

    Not all do: a call on a file that never comes, or an attempt that has just ended.
    """
    assert driver.case(0), driver.report.losses
    assert driver.report.count >= faults


def test_ranks_alone(tmp_path: Path) -> None:
    with plain.layer(tmp_path / "plain") as layer:
        layer.faults = (8, 8)
        assert_whole(Driver(layer, tmp_path, PLAIN_SEED), faults=5)


@pytest.mark.skipif(not available(), reason="mounting needs root and /dev/fuse")
def test_ranks_on_nodes_with_a_network_file_system(tmp_path: Path) -> None:
    with nfs.layer(tmp_path / "nfs") as layer:
        layer.faults = (5, 5)
        assert_whole(Driver(layer, tmp_path, NFS_SEED), faults=3)


def test_under_the_local_executor(tmp_path: Path) -> None:
    with local.layer(tmp_path / "local") as layer:
        layer.faults = (4, 4)
        assert_whole(Driver(layer, tmp_path, LOCAL_SEED), faults=2)


def test_under_slurm(slurm: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    layer = SlurmLayer(slurm, training_flags(tmp_path / "data", epochs=4), has_namespaces=False)
    layer.faults = (3, 3)
    assert_whole(Driver(layer, tmp_path, SLURM_SEED), faults=2)
