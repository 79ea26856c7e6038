"""Files and folders that are whole or absent, whatever dies in between. Standard library only.

A name is given last: what is written gets a hidden name beside its own, is forced to the disk,
takes the name in one step, and then the folder that holds the name is forced to the disk too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from minimind.system.process import is_alive

FLUSH_SECONDS = 0.1
"""How often what is there of a long write is sent on to the disk."""

PROBE_BYTES = 1 << 20
"""More than the end of a disk or of a quota that a refused write has left free."""

ABANDONED_SECONDS = 60.0
"""How old what another machine writes may become."""

NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)
"""What a file system says that cannot sync a folder, as some network file systems cannot."""


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(path: Path) -> OSError | None:
    """Why a file takes no more bytes, when another program only says that it does not; or None.

    It is full disk, quota or limit of a file's size that the next bytes meet again.
    """
    try:
        with path.open("ab") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def forget_pages(path: Path) -> None:
    """Let the system drop from its memory what of a file is on the disk.

    Nobody reads a checkpoint soon. Kept, its pages push out those that are read, like the token
    store's, and the next write needs fresh ones, which a virtual machine may have to ask its
    host for.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    # Only advice: a file system that does not take it has lost nothing.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Force a folder to the disk, and all that is in it."""
    for inside in path.iterdir():
        if inside.is_dir() and not inside.is_symlink():
            sync_tree(inside)
        elif inside.is_file():
            sync_file(inside)
    sync_folder(path)


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path``, on the same file system, that nobody else uses."""
    # Containers on one host may share its name, and have processes of the same number.
    unique = f"{os.uname().nodename}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.name}.{unique}.tmp")


def take_name(temporary: Path, path: Path) -> None:
    """Put a file, or a folder, whose bytes are on the disk in the place of ``path``, durably."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def remove_temporaries(path: Path) -> None:
    """Delete what killed writes of ``path`` left. Only while nobody else can be writing it."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Delete what writes of ``path`` left whose processes are gone; others may be writing it now.

    Nothing is known of the processes of another machine: after a minute they count as gone.
    """
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if not _is_being_written(temporary, path):
                remove = shutil.rmtree if temporary.is_dir() else os.unlink
                remove(temporary)


def _is_being_written(temporary: Path, path: Path) -> bool:
    host, pid = temporary.name[len(f".{path.name}.") :].rsplit(".", 3)[:2]
    if host == os.uname().nodename and pid.isdecimal():
        return is_alive(int(pid))
    return abs(time.time() - temporary.stat().st_mtime) < ABANDONED_SECONDS


def write_durably(
    path: Path, write: Callable[[Path], None], before_rename: Callable[[], None] | None = None
) -> None:
    """Let ``write`` fill a temporary file, then put it in the place of ``path`` atomically.

    Args:
        write: receives the temporary path and must leave a complete file there.
        before_rename: runs once the new bytes are on the disk, before they take the name.

    Raises:
        OSError: the disk is full, the folder read-only, …; ``path`` is as it was.
    """
    with _temporary_file(path) as temporary:
        with flushing(temporary):
            write(temporary)
        sync_file(temporary)
        if before_rename is not None:
            before_rename()
        take_name(temporary, path)


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """A name for a file beside ``path``, which is removed if the body fails."""
    temporary = temporary_name(path)
    try:
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def flushing(path: Path) -> Iterator[None]:
    """Send a file's bytes to the disk while it is being written.

    The system would keep a checkpoint's gigabytes in memory, and the disk idle, until the sync
    at the end.

    Raises:
        OSError: the disk refused some of them. The system says so once, so the sync at the end
            need not know.
    """
    done = threading.Event()
    errors: list[OSError] = []

    def flush() -> None:
        while not done.wait(FLUSH_SECONDS):
            try:
                sync_file(path)
                forget_pages(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                errors.append(error)
                return

    thread = threading.Thread(target=flush, name="flush")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if errors:
        raise errors[0]


def write_text_durably(path: Path, text: str, mode: int = 0o666) -> None:
    """Put a short text in the place of ``path`` atomically, in UTF-8.

    Args:
        mode: of the file, from its first byte on; the umask lowers it.

    Raises:
        OSError: as :func:`write_durably`.
    """
    write_bytes_durably(path, text.encode("utf-8"), mode)


def write_bytes_durably(path: Path, data: bytes, mode: int = 0o666) -> None:
    """As :func:`write_text_durably`, for bytes."""
    with _temporary_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        take_name(temporary, path)


@contextlib.contextmanager
def folder_when_done(path: Path, before_rename: Callable[[], None] | None = None) -> Iterator[Path]:
    """Yield a new folder to fill; once the body is done it takes the name ``path``, durably.

    Args:
        before_rename: runs once all is on the disk; must leave nothing, or an empty folder, at
            ``path``.

    Raises:
        OSError: the place cannot be written, or is not empty; nothing new has the name.
    """
    building = temporary_name(path)
    building.mkdir(parents=True)
    try:
        yield building
        sync_tree(building)
        if before_rename is not None:
            before_rename()
        take_name(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
