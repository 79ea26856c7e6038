"""A run's folders: made, logged into, and held against other runs."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path

from minimind.checkpoint.run_lock import FolderLock
from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.errors import ConfigError
from minimind.rundir.layout import OutputPaths, lock_of
from minimind.system.ownership import create_anew
from minimind.telemetry.console import logging_to_file


def claim_folders(config: TrainConfig, world: World, stack: contextlib.ExitStack) -> FolderLock:
    """Make the folders and hold them: one run at a time may use a checkpoint, and a save_dir.

    Args:
        stack: lets go of them. The log stays open as long, and so tells why a folder is refused.

    Returns:
        The checkpoint's lock. Only rank 0 holds it.

    Raises:
        ConfigError: a folder cannot be written, or another run holds it.
    """
    out = OutputPaths(config.save_dir)
    world.on_main(partial(make_folders, config))
    stack.enter_context(logging_to_file(out.folder, world.rank))
    lock = FolderLock(lock_of(config.checkpoint_file))
    for held in (lock, FolderLock(out.records_lock, flag="save_dir")):
        world.on_main(held.acquire)
        if world.is_main:
            stack.callback(held.release)
    return lock


def make_folders(config: TrainConfig) -> None:
    """Create the output folders.

    Raises:
        ConfigError: one of them cannot be made or written.
    """
    for flag in ("save_dir", "checkpoint_dir"):
        folder = Path(getattr(config, flag))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_probe(folder / ".probe")
        except OSError as error:
            raise ConfigError(f"--{flag} {folder} cannot be written: {error.strerror}") from None


def _write_probe(path: Path) -> None:
    """See that a file can be written, under one name: the next start removes a killed one's."""
    try:
        with os.fdopen(create_anew(path), "wb") as file:
            # Not empty: on a full disk a file can often still be made.
            file.write(bytes(1 << 12))
    finally:
        path.unlink(missing_ok=True)
