"""Files that are whole or absent, whatever dies in between."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

FLUSH_SECONDS = 0.1
"""How often what is there of a long write is sent on to the disk."""


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path``, on the same file system, unique to this process."""
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")


def remove_temporaries(path: Path) -> None:
    """Delete what killed writes of ``path`` left. Only while nobody else can be writing it."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


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
    temporary = temporary_name(path)
    try:
        with flushing(temporary):
            write(temporary)
        sync_file(temporary)
        if before_rename is not None:
            before_rename()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


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


def write_text_durably(path: Path, text: str) -> None:
    """Put a text file in the place of ``path``, in UTF-8; as :func:`write_durably`."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_durably(path, write)
