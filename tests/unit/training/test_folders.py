from __future__ import annotations

import contextlib
import logging
import resource
from pathlib import Path

import pytest
import torch

from minimind.checkpoint.run_lock import FolderLock
from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.errors import ConfigError
from minimind.training.folders import claim_folders, make_folders


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


def test_a_planted_probe_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".probe").symlink_to(tmp_path / "precious")
    make_folders(TrainConfig(save_dir=str(out), checkpoint_dir=str(out)))
    assert (tmp_path / "precious").read_text() == "precious"
    assert not list(out.iterdir())


def test_why_a_folder_is_refused_can_still_be_logged_in_it(tmp_path: Path) -> None:
    config = TrainConfig(save_dir=str(tmp_path), checkpoint_dir=str(tmp_path))
    world = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    other = FolderLock(tmp_path / "records.lock")
    other.acquire()
    with contextlib.ExitStack() as stack:
        with pytest.raises(ConfigError, match="in use by process"):
            claim_folders(config, world, stack)
        logging.getLogger("minimind").warning("the run failed")
    other.release()
    assert "the run failed" in (tmp_path / "train.log").read_text()
    assert not list(tmp_path.glob("*.lock"))
