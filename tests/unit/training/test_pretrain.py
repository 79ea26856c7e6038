"""What is checked before training, and the moment when ranks begin to only note a stop."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.system.signals import StopFlag, StopRequested
from minimind.training.pretrain import make_folders, meet_before_training


class DesertedWorld:
    """A peer has left while we waited for it."""

    def barrier(self) -> None:
        raise RuntimeError("Connection closed by peer")


def test_a_rank_told_to_stop_whose_peers_have_left_stops() -> None:
    world: Any = DesertedWorld()
    told = StopFlag()
    told.signal_number = signal.SIGUSR2
    with pytest.raises(StopRequested, match="SIGUSR2"):
        meet_before_training(world, told)


def test_a_rank_that_was_not_told_fails_with_its_peers() -> None:
    world: Any = DesertedWorld()
    with pytest.raises(RuntimeError, match="closed by peer"):
        meet_before_training(world, StopFlag())


def test_a_full_disk_is_found_before_anything_starts(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: an empty file can still be made."""
    config = TrainConfig(save_dir=str(tmp_path / "out"), checkpoint_dir=str(tmp_path / "saved"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(ConfigError, match=r"--save_dir .* cannot be written: File too large"):
            make_folders(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob(".*"))


def test_what_a_killed_start_left_is_removed(tmp_path: Path) -> None:
    config = TrainConfig(save_dir=str(tmp_path), checkpoint_dir=str(tmp_path))
    (tmp_path / ".probe").touch()
    make_folders(config)
    assert not list(tmp_path.iterdir())
