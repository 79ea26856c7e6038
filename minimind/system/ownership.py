"""Whose is what lies under a name that others can guess? Standard library only.

In a folder that several users write, any of them can put a file, a link or a folder where a
program of ours will look for its own. So such a thing is used only if it is ours, and a link is
never followed to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
READ_AND_ENTER = 0o555


def user_on(folder: Path) -> int:
    """This process's user, as the file system of ``folder`` shows it.

    A server that squashes root, or a mount that maps users, shows other numbers than this
    process has: what it makes there belongs to whom it is there.

    Raises:
        OSError: nothing can be made in ``folder``.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".owner-") as probe:
        return os.fstat(probe.fileno()).st_uid


def is_ours(path: Path) -> bool:
    """Whether this process's user made what has the name; of a link, the link."""
    try:
        owner = os.lstat(path).st_uid
        return owner == os.geteuid() or owner == user_on(path.parent)
    except OSError:
        return False


def is_private(status: os.stat_result, user: int) -> bool:
    """Whether something is ``user``'s, and nobody else but root may write to it."""
    return status.st_uid == user and not status.st_mode & OTHERS_WRITE


def is_own_file(status: os.stat_result, user: int) -> bool:
    """Whether it is a plain file of ``user``'s, and has no other name.

    A second name could be that of a file which is not for us to write.
    """
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == user


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open a folder, for use as ``dir_fd``, unless ``path`` is a link to one.

    Raises:
        OSError: it is a link or no folder, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def holds_only_own_files(folder: Path, user: int) -> bool:
    """Whether ``folder`` is a real folder of ``user``'s alone, and so is every file in it.

    What nobody else can reach may have any mode. Other folders within it are not ours: we make
    none in one that is unfinished.

    Raises:
        OSError: it cannot be looked into.
    """
    if not is_private(os.lstat(folder), user):
        return False
    with opened_folder(folder) as descriptor:
        names = os.listdir(descriptor)
        found = (os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in names)
        inside = os.fstat(descriptor)
        reached = bool(inside.st_mode & OTHERS_ENTER)
        return is_private(inside, user) and all(
            is_own_file(status, user) and not (reached and status.st_mode & OTHERS_WRITE)
            for status in found
        )


def open_private(path: Path | str, flags: int, user: int, dir_fd: int | None = None) -> int:
    """``os.open`` for a file of our own, which is made with mode 0600 if ``flags`` say so.

    Give no ``O_TRUNC``: cut the file once it is known to be ours.

    Raises:
        PermissionError: the file of that name is another user's, or has another name too.
        OSError: a link has the name, or the file cannot be opened.
    """
    # Without O_NONBLOCK a pipe of that name would let us wait for ever.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600, dir_fd=dir_fd)
    if is_own_file(os.fstat(descriptor), user):
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "not this user's own file", str(path))


def create_anew(path: Path, mode: int = 0o666) -> int:
    """Open a new file for writing; whatever had its name is removed, and a link not followed.

    Raises:
        OSError: a folder has the name, or the place cannot be written.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def own_folder(path: Path) -> bool:
    """Make a folder of this user alone, or find it; False: others could change what is in it.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if lets_others_rename(path.parent.stat()):
        return False
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        return True
    status = os.lstat(path)
    return stat.S_ISDIR(status.st_mode) and is_private(status, os.geteuid())


def lets_others_rename(folder: os.stat_result) -> bool:
    """Whether others may put a folder of theirs in the place of one of ours: all, or a group
    that the folder was opened for. (A mode of 775 alone is what a umask of 002 makes of any.)
    """
    return not folder.st_mode & stat.S_ISVTX and (
        bool(folder.st_mode & stat.S_IWOTH) or is_open_to_group(folder)
    )


def is_open_to_group(folder: os.stat_result) -> bool:
    """Whether somebody has opened a folder for a group to work in: chmod g+ws."""
    return bool(folder.st_mode & stat.S_ISGID and folder.st_mode & stat.S_IWGRP)


def let_read(folder: Path, like: Path) -> None:
    """Let those read a finished ``folder`` of plain files who may read the folder ``like``.

    Whatever the umask: a group's cache is of no use to it if one of them keeps all to himself.
    Nobody but the owner may write.
    """
    mode = os.stat(like).st_mode
    for path in folder.iterdir():
        path.chmod(0o600 | mode & (stat.S_IRGRP | stat.S_IROTH))
    folder.chmod(0o700 | mode & (stat.S_ISGID | READ_AND_ENTER))
