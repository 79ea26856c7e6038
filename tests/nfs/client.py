"""``python -m tests.nfs.client SERVER PLACE CONTROL``: one mount, until it is unmounted.

Follows what Linux' NFS client does, version 3 over ``nolock``: names under a folder are believed
as long as the folder's remembered attributes are; opening a file or listing a folder asks the
server; own changes are known at once. The handle of a file is its inode: whatever name led to it,
the file is the one that had that name when it was asked for.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.nfs.protocol import STATFS, Server, attributes, entry, listing, mount

ROOT = 1
FLUSH_SECONDS = 0.3
"""How long what was written may be known to this client alone."""
THREADS = 8
MODE, UID, GID, SIZE, ATIME, MTIME, ATIME_NOW, MTIME_NOW = 1, 2, 4, 8, 16, 32, 128, 256


@dataclass
class Node:
    """A file or a folder that the client has a handle of."""

    number: int
    descriptor: int
    """Of the path: it keeps the inode's number from being given to another file."""
    epoch: int
    status: os.stat_result
    expires: float = 0.0
    names: dict[bytes, int | None] = field(default_factory=dict)
    """A folder's; None: it is known to have no such name."""
    dirty: list[tuple[int, bytes]] = field(default_factory=list)
    """What was written and has not reached the server: offset, bytes."""
    dirty_since: float = 0.0
    error: int = 0
    """What became of writes that were sent on by nobody's call."""
    removed_here: bool = False
    """The client itself removed the last name: it keeps the file under a name of its own."""

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.descriptor}"

    @property
    def size(self) -> int:
        ends = [offset + len(data) for offset, data in self.dirty]
        return max([self.status.st_size, *ends])


class Client:
    """The operations; raises OSError with what the call is to answer."""

    def __init__(self, server: str, control: str) -> None:
        self._control = control
        self._read_at = 0
        self._behaviour: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._nodes: dict[int, Node] = {}
        self._by_inode: dict[tuple[int, int], Node] = {}
        self._handles: dict[int, int] = {}
        self._listings: dict[int, list[tuple[int, int, bytes]]] = {}
        self._next = ROOT
        self._known(os.open(server, os.O_PATH | os.O_DIRECTORY))
        threading.Thread(target=self._flush_now_and_then, daemon=True).start()

    # What the mount does just now.

    def _behave(self, name: str) -> Any:
        changed = os.stat(self._control).st_mtime_ns
        if changed != self._read_at:
            with open(self._control) as file:
                self._behaviour, self._read_at = json.load(file), changed
        return self._behaviour[name]

    def _wait_for_the_server(self) -> None:
        while self._behave("silent"):
            time.sleep(0.02)

    # Nodes and what is remembered of them.

    def _known(self, descriptor: int) -> Node:
        """The node of an inode, which a new descriptor leads to."""
        status = os.fstat(descriptor)
        key = (status.st_dev, status.st_ino)
        node = self._by_inode.get(key)
        epoch = self._behave("epoch")
        if node is None or (node.epoch != epoch and node.number != ROOT):
            node = Node(self._next, descriptor, epoch, status)
            self._next += 1
            self._nodes[node.number] = self._by_inode[key] = node
        else:
            os.close(descriptor)
        self._remember(node, status)
        return node

    def _remember(self, node: Node, status: os.stat_result) -> None:
        """Take fresh attributes over; a folder that has changed may have other names in it."""
        if stat.S_ISDIR(status.st_mode) and _version(status) != _version(node.status):
            node.names.clear()
        node.status, node.expires = status, time.monotonic() + self._behave("seconds")

    def _node(self, number: int) -> Node:
        """
        Raises:
            OSError: the server does not know the handle any more.
        """
        self._wait_for_the_server()
        node = self._nodes[number]
        if node.number != ROOT and node.epoch != self._behave("epoch"):
            raise OSError(errno.ESTALE, "an old handle")
        return node

    def _ask(self, node: Node) -> None:
        """Ask the server for a node's attributes.

        Raises:
            OSError: somebody else has removed it.
        """
        status = os.fstat(node.descriptor)
        if status.st_nlink == 0 and not node.removed_here:
            for folder in self._nodes.values():
                gone = [name for name, number in folder.names.items() if number == node.number]
                for name in gone:
                    del folder.names[name]
            raise OSError(errno.ESTALE, "removed by another client")
        self._remember(node, status)

    def _revalidate(self, node: Node) -> None:
        if time.monotonic() > node.expires:
            self._ask(node)

    def _attributes(self, node: Node) -> bytes:
        return attributes(node.status, node.size)

    def _changes(self, folder: Node) -> None:
        """Before this client changes a folder: the answer will tell whether others have, too."""
        self._ask(folder)

    def _changed(self, folder: Node) -> None:
        """After it did: its own change does not make it doubt what it knows."""
        folder.status = os.fstat(folder.descriptor)
        folder.expires = time.monotonic() + self._behave("seconds")

    # Names.

    def lookup(self, parent: int, name: bytes) -> bytes:
        with self._lock:
            folder = self._node(parent)
            self._revalidate(folder)
            if name in folder.names:
                number = folder.names[name]
                if number is None:
                    raise FileNotFoundError(errno.ENOENT, "remembered")
                node = self._nodes[number]
                if node.epoch == self._behave("epoch"):
                    self._revalidate(node)
                    return entry(node.number, self._attributes(node))
            return self._entry(folder, name)

    def _entry(self, folder: Node, name: bytes) -> bytes:
        """Ask the server for a name."""
        try:
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder.descriptor)
        except FileNotFoundError:
            folder.names[name] = None
            raise
        node = self._known(found)
        folder.names[name] = node.number
        return entry(node.number, self._attributes(node))

    def _make(self, parent: int, name: bytes, make: Any) -> bytes:
        folder = self._node(parent)
        self._changes(folder)
        make(folder.descriptor)
        self._changed(folder)
        return self._entry(folder, name)

    def mknod(self, parent: int, name: bytes, mode: int, device: int) -> bytes:
        with self._lock:
            return self._make(parent, name, lambda at: os.mknod(name, mode, device, dir_fd=at))

    def mkdir(self, parent: int, name: bytes, mode: int) -> bytes:
        with self._lock:
            return self._make(parent, name, lambda at: os.mkdir(name, mode, dir_fd=at))

    def symlink(self, parent: int, name: bytes, target: bytes) -> bytes:
        with self._lock:
            return self._make(parent, name, lambda at: os.symlink(target, name, dir_fd=at))

    def create(self, parent: int, name: bytes, flags: int, mode: int) -> bytes:
        with self._lock:
            how = os.O_CREAT | os.O_WRONLY | flags & os.O_EXCL

            def make(at: int) -> None:
                os.close(os.open(name, how, mode & 0o7777, dir_fd=at))

            found = self._make(parent, name, make)
            number = int.from_bytes(found[:8], "little")
            handle = self._open(self._nodes[number], flags)
            return found + handle.to_bytes(8, "little") + bytes(8)

    def link(self, parent: int, name: bytes, number: int) -> bytes:
        with self._lock:
            if not self._behave("links"):
                raise OSError(errno.EOPNOTSUPP, "no hard links")
            node = self._node(number)
            self._flush(node)
            path = node.path
            return self._make(
                parent, name, lambda at: os.link(path, name, dst_dir_fd=at, follow_symlinks=True)
            )

    def unlink(self, parent: int, name: bytes) -> bytes:
        with self._lock:
            folder = self._node(parent)
            self._changes(folder)
            self._removes(folder, name)
            os.unlink(name, dir_fd=folder.descriptor)
            self._changed(folder)
            folder.names[name] = None
            return b""

    def rmdir(self, parent: int, name: bytes) -> bytes:
        with self._lock:
            folder = self._node(parent)
            self._changes(folder)
            os.rmdir(name, dir_fd=folder.descriptor)
            self._changed(folder)
            folder.names[name] = None
            return b""

    def _removes(self, folder: Node, name: bytes) -> None:
        """A file of which this client is about to take a name away stays usable to it."""
        node = self._nodes.get(folder.names.get(name) or 0)
        if node is not None:
            node.removed_here = True
            node.expires = 0.0

    def rename(self, parent: int, new_parent: int, old: bytes, new: bytes) -> bytes:
        with self._lock:
            source, target = self._node(parent), self._node(new_parent)
            self._changes(source)
            self._changes(target)
            self._removes(target, new)
            os.rename(old, new, src_dir_fd=source.descriptor, dst_dir_fd=target.descriptor)
            self._changed(source)
            self._changed(target)
            source.names[old] = None
            target.names.pop(new, None)
            self._entry(target, new)
            return b""

    def readlink(self, number: int) -> bytes:
        with self._lock:
            return os.readlink(b"", dir_fd=self._node(number).descriptor)

    # Attributes.

    def getattr(self, number: int) -> bytes:
        with self._lock:
            node = self._node(number)
            self._revalidate(node)
            return self._attributes(node)

    def setattr(self, number: int, valid: int, _: int, handle: int, size: int, *rest: int) -> bytes:
        _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = rest
        with self._lock:
            node = self._node(number)
            self._flush(node)
            if valid & SIZE:
                os.truncate(node.path, size)
            if valid & MODE:
                os.chmod(node.path, mode & 0o7777)
            if valid & (UID | GID):
                os.chown(node.path, uid if valid & UID else -1, gid if valid & GID else -1)
            if valid & (ATIME | MTIME):
                now = time.time_ns()
                times = (
                    _time(valid, ATIME, ATIME_NOW, now, (atime, atime_ns), node.status.st_atime_ns),
                    _time(valid, MTIME, MTIME_NOW, now, (mtime, mtime_ns), node.status.st_mtime_ns),
                )
                os.utime(node.path, ns=times)
            self._ask(node)
            return self._attributes(node)

    def statfs(self) -> bytes:
        found = os.statvfs(self._nodes[ROOT].path)
        return STATFS.pack(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_bsize,
            255,
            found.f_frsize,
            0,
        )

    # Contents.

    def open(self, number: int, flags: int) -> int:
        with self._lock:
            node = self._node(number)
            self._ask(node)
            return self._open(node, flags)

    def _open(self, node: Node, flags: int) -> int:
        # The kernel says where each write goes, also in a file that is appended to.
        how = os.O_RDWR if flags & os.O_ACCMODE else os.O_RDONLY
        handle = os.open(node.path, how)
        self._handles[handle] = node.number
        return handle

    def read(self, number: int, handle: int, offset: int, size: int) -> bytes:
        with self._lock:
            node = self._node(number)
            self._flush(node)
            if os.fstat(handle).st_nlink == 0:
                self._ask(node)
            return os.pread(handle, size, offset)

    def write(self, number: int, handle: int, offset: int, data: bytes) -> int:
        with self._lock:
            node = self._node(number)
            self._refuse("write_error")
            if os.fstat(handle).st_nlink == 0:
                self._ask(node)
            if not node.dirty:
                node.dirty_since = time.monotonic()
            node.dirty.append((offset, data))
            return len(data)

    def _refuse(self, name: str) -> None:
        if code := self._behave(name):
            raise OSError(code, os.strerror(code))

    def _flush(self, node: Node, refusal: str = "") -> None:
        """Let the server have what was written.

        Raises:
            OSError: it does not take it, now or as it was sent on before; that is lost.
        """
        written, node.dirty = node.dirty, []
        try:
            if written and not self._behave("loses"):
                self._refuse("sync_error")
                if refusal:
                    self._refuse(refusal)
                descriptor = os.open(node.path, os.O_WRONLY)
                try:
                    for offset, data in written:
                        os.pwrite(descriptor, data, offset)
                finally:
                    os.close(descriptor)
                status = os.fstat(node.descriptor)
                node.status = status
        except OSError as error:
            node.error = 0
            raise OSError(error.errno, "lost") from None
        if node.error:
            code, node.error = node.error, 0
            raise OSError(code, os.strerror(code))

    def _flush_now_and_then(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            if self._behave("silent"):
                continue
            with self._lock:
                before = time.monotonic() - FLUSH_SECONDS
                for node in [n for n in self._nodes.values() if n.dirty]:
                    if node.dirty_since < before and not self._behave("close_error"):
                        try:
                            self._flush(node)
                        except OSError as error:
                            node.error = error.errno or errno.EIO

    def fsync(self, number: int, handle: int) -> bytes:
        self._wait_for_the_server()
        time.sleep(self._behave("sync_seconds"))
        with self._lock:
            self._flush(self._node(number))
            return b""

    def flush(self, number: int, handle: int) -> bytes:
        self._wait_for_the_server()
        with self._lock:
            node = self._nodes[number]
            # With nothing to send the server is not asked, and cannot say that it knows no such.
            self._flush(self._node(number) if node.dirty else node, "close_error")
            return b""

    def release(self, number: int, handle: int) -> bytes:
        with self._lock:
            self._handles.pop(handle, None)
            os.close(handle)
            return b""

    def opendir(self, number: int) -> int:
        with self._lock:
            node = self._node(number)
            self._ask(node)
            kinds = {True: stat.S_IFDIR >> 12, False: stat.S_IFREG >> 12}
            with os.scandir(node.path) as found:
                entries = [
                    (e.inode(), kinds[e.is_dir(follow_symlinks=False)], os.fsencode(e.name))
                    for e in found
                ]
            handle = os.open(node.path, os.O_RDONLY)
            self._listings[handle] = entries
            return handle

    def readdir(self, number: int, handle: int, offset: int, size: int) -> bytes:
        return listing(self._listings[handle], offset, size)

    def releasedir(self, number: int, handle: int) -> bytes:
        with self._lock:
            self._listings.pop(handle, None)
            os.close(handle)
            return b""


def _version(status: os.stat_result) -> tuple[int, int]:
    """What a folder has another of once a name in it has changed."""
    return status.st_mtime_ns, status.st_ctime_ns


def _time(valid: int, given: int, now: int, this: int, told: tuple[int, int], before: int) -> int:
    if valid & now:
        return this
    return told[0] * 10**9 + told[1] if valid & given else before


def main(server: str, place: str, control: str) -> None:
    """Serve one mount."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    client = Client(server, control)
    Server(mount(place), client).serve(THREADS)


if __name__ == "__main__":
    main(*sys.argv[1:])
