"""Is a run folder ours alone to write? Asked before anything in it is executed.

A job unpickles, imports and obeys what lies in its run folder. On a filesystem that is shared,
whoever can write there runs programs in the name of the job's owner. Standard library only.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from launcher.runs import RunFolder
from minimind.errors import ConfigError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH


def check_trusted(run: RunFolder) -> None:
    """Raises ConfigError when somebody else could have put into the folder what a job runs.

    The owner must be who this process is *on that filesystem*: a server that squashes root, and
    a container with user ids of its own, show other numbers than ``os.geteuid()``. So a file is
    made there, and its owner is the measure.
    """
    try:
        root = run.root.stat()
        me = _owner_of_new_files(run.root)
        if root.st_uid != me:
            raise ConfigError(
                f"{run.root} belongs to user {root.st_uid}, and this is user {me}: "
                "a run is continued by whom it belongs to"
            )
        for path, status in _executed(run, root):
            if status.st_uid not in (me, 0):
                raise ConfigError(
                    f"{path} belongs to user {status.st_uid}, and this is user {me}: "
                    f"nothing in it is run; remove it, or submit under another --name"
                )
            if stat.S_IMODE(status.st_mode) & OTHERS_WRITE:
                raise ConfigError(
                    f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):o}): "
                    f"nothing in it is run; if its contents are yours: chmod -R go-w {run.root}"
                )
    except OSError as error:
        raise ConfigError(f"{error.filename or run.root}: {error.strerror}") from None


def _owner_of_new_files(folder: Path) -> int:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".owner-") as probe:
        return os.fstat(probe.fileno()).st_uid


def _executed(run: RunFolder, root: os.stat_result) -> Iterator[tuple[Path, os.stat_result]]:
    """The folder, and what of it a job runs or obeys; what others cannot reach is left out."""
    yield run.root, root
    if not stat.S_IMODE(root.st_mode) & OTHERS_ENTER:
        return
    code = [path for path in run.code.rglob("*") if path.suffix == ".py" or path.is_dir()]
    pickles = [path for path in run.submitit.iterdir() if path.suffix in (".pkl", ".sh")]
    for path in (run.code, run.submitit, *code, *pickles, run.spec_file, run.secrets_file):
        if path.exists():
            yield path, path.stat()
