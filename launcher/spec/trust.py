"""Is a run folder ours alone to write? Asked before anything in it is executed.

A job unpickles, imports and obeys what lies in its run folder. On a filesystem that is shared,
whoever can write there runs programs in the name of the job's owner. Standard library only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from launcher.spec.run_folder import RunFolder
from minimind.errors import ConfigError
from minimind.system.ownership import OTHERS_ENTER, OTHERS_WRITE, user_on


def check_trusted(run: RunFolder) -> None:
    """For this user's own processes on a host: see that the run is theirs, and theirs alone.

    Raises:
        ConfigError: it belongs to somebody else, or :func:`check_unshared` says so.
    """
    check_unshared(run)
    owner = run.root.stat().st_uid
    if owner == os.geteuid():
        return
    try:
        me = user_on(run.root)
    except OSError as error:
        raise ConfigError(f"{run.root} belongs to user {owner}: {error.strerror}") from None
    if owner != me:
        raise ConfigError(
            f"{run.root} belongs to user {owner}, and this is user {me}: nothing in it is run; "
            f"to take the run over, look at what is in it, then: chown -R {me} {run.root}"
        )


def check_unshared(run: RunFolder) -> None:
    """See that nobody but the folder's owner, and root, can change what a job executes.

    Who the owner is, is not asked: in a container a rank may be another user than outside,
    and its supervisor has asked already.

    Raises:
        ConfigError: others can write there, or files in it are of others.
    """
    try:
        root = run.root.stat()
        link = run.root.lstat()
        if link.st_uid not in (root.st_uid, 0):
            raise ConfigError(
                f"{run.root} is a link of user {link.st_uid} to a folder of user {root.st_uid}: "
                "nothing in it is run; remove the link, or submit under another --name"
            )
        for path, status in _executed(run, root):
            if status.st_uid not in (root.st_uid, 0):
                raise ConfigError(
                    f"{path} belongs to user {status.st_uid}, and the run to user {root.st_uid}: "
                    "nothing in it is run; remove it, or submit under another --name"
                )
            mode = stat.S_IMODE(status.st_mode)
            if mode & OTHERS_WRITE:
                raise ConfigError(
                    f"{path} can be written by others (mode {mode:o}): nothing in it is run; "
                    f"if its contents are yours: chmod -R go-w {run.root}"
                )
    except OSError as error:
        raise ConfigError(f"{error.filename or run.root}: {error.strerror}") from None


def make_private(folder: Path) -> None:
    """Makes ``folder`` if it is not there, and lets nobody but its owner in.

    Whatever the umask and inherited ACLs say: with no rights for the group, an ACL's mask is
    empty. What others cannot reach may be made with any mode later.

    Raises:
        ConfigError: the filesystem keeps no modes.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o077)
    if folder.stat().st_mode & OTHERS_WRITE:
        raise ConfigError(
            f"the filesystem of {folder} keeps no modes: anybody could change what the job runs; "
            "name another folder by --runs-dir"
        )


def _executed(run: RunFolder, root: os.stat_result) -> Iterator[tuple[Path, os.stat_result]]:
    """The folder, and what of it a job runs or obeys; what others cannot reach is left out."""
    yield run.root, root
    if not root.st_mode & OTHERS_ENTER:
        return
    for folder in (run.code, run.submitit):
        try:
            status = folder.stat()
        except FileNotFoundError:
            continue
        yield folder, status
        if status.st_mode & OTHERS_ENTER:
            yield from _existing(folder.rglob("*"))
    yield from _existing([run.spec_file, run.secrets_file])


def _existing(paths: Iterator[Path] | list[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in paths:
        try:
            yield path, path.stat()
        except FileNotFoundError:
            # submitit renames its files while the job may run already.
            continue
