"""The kernel's side of FUSE: requests from ``/dev/fuse``, answers to it (``linux/fuse.h``).

Version 7.31. Nothing is remembered by the kernel for longer than a call, so that it is our client
alone who decides what is stale.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable
from typing import Any

NOSUID, NODEV = 2, 4
MINOR = 31
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
LONGEST_WRITE = 1 << 20
BUFFER = LONGEST_WRITE + (1 << 16)

HEADER = struct.Struct("<IIQQIIII")
ANSWER = struct.Struct("<IiQ")
INIT = struct.Struct("<IIIIHHIIHHI28x")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
READ = struct.Struct("<QQIIQII")
DIRENT = struct.Struct("<QQII")
STATFS = struct.Struct("<QQQQQIIII24x")
NANO = 10**9

FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
SILENT = (FORGET, INTERRUPT, BATCH_FORGET)
"""What is not answered."""


def mount(place: str) -> int:
    """Mount a file system whose requests come from the descriptor that is returned."""
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={descriptor},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    words = (b"nfs-like", os.fsencode(place), b"fuse", NOSUID | NODEV, options.encode())
    if libc.mount(*words[:3], ctypes.c_ulong(words[3]), words[4]):
        raise OSError(ctypes.get_errno(), "mount", place)
    return descriptor


def attributes(status: os.stat_result, size: int) -> bytes:
    """``struct fuse_attr``."""
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return ATTRIBUTES.pack(
        status.st_ino,
        size,
        (size + 511) // 512,
        *(time // NANO for time in times),
        *(time % NANO for time in times),
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        0,
        1 << 16,
        0,
    )


def entry(number: int, found: bytes) -> bytes:
    """``struct fuse_entry_out`` that is valid for this call alone."""
    return ENTRY.pack(number, 0, 0, 0, 0, 0) + found


def listing(entries: list[tuple[int, int, bytes]], offset: int, size: int) -> bytes:
    """``struct fuse_dirent`` of (inode, type, name) from ``offset`` on, as many as fit."""
    answer = b""
    for index, (inode, kind, name) in enumerate(entries[offset:], offset + 1):
        one = DIRENT.pack(inode, index, len(name), kind) + name
        one += bytes(-len(one) % 8)
        if len(answer) + len(one) > size:
            break
        answer += one
    return answer


class Server:
    """Answers requests with a few threads, by the method of ``client`` for each operation."""

    def __init__(self, descriptor: int, client: Any) -> None:
        self._descriptor = descriptor
        self._calls: dict[int, Callable[[int, bytes], bytes]] = {
            1: lambda n, b: client.lookup(n, name(b)),
            3: lambda n, b: bytes(16) + client.getattr(n),
            4: lambda n, b: bytes(16) + client.setattr(n, *SETATTR.unpack_from(b)),
            5: lambda n, b: client.readlink(n),
            6: lambda n, b: client.symlink(n, *names(b)),
            8: lambda n, b: client.mknod(n, name(b[16:]), *struct.unpack_from("<II", b)),
            9: lambda n, b: client.mkdir(n, name(b[8:]), *struct.unpack_from("<I", b)),
            10: lambda n, b: client.unlink(n, name(b)),
            11: lambda n, b: client.rmdir(n, name(b)),
            12: lambda n, b: client.rename(n, *struct.unpack_from("<Q", b), *names(b[8:])),
            13: lambda n, b: client.link(n, name(b[8:]), *struct.unpack_from("<Q", b)),
            14: lambda n, b: opened(client.open(n, *struct.unpack_from("<I", b))),
            15: lambda n, b: client.read(n, *READ.unpack_from(b)[:3]),
            16: lambda n, b: struct.pack(
                "<II", client.write(n, *READ.unpack_from(b)[:2], b[READ.size :]), 0
            ),
            17: lambda n, b: client.statfs(),
            18: lambda n, b: client.release(n, *struct.unpack_from("<Q", b)),
            20: lambda n, b: client.fsync(n, *struct.unpack_from("<Q", b)),
            25: lambda n, b: client.flush(n, *struct.unpack_from("<Q", b)),
            26: self._init,
            27: lambda n, b: opened(client.opendir(n)),
            28: lambda n, b: client.readdir(n, *READ.unpack_from(b)[:3]),
            29: lambda n, b: client.releasedir(n, *struct.unpack_from("<Q", b)),
            30: lambda n, b: b"",
            35: lambda n, b: client.create(n, name(b[16:]), *struct.unpack_from("<II", b)),
            45: lambda n, b: client.rename(n, *struct.unpack_from("<Q", b), *names(b[16:])),
        }

    def serve(self, n_threads: int) -> None:
        """Until it is unmounted."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while True:
            try:
                request = os.read(self._descriptor, BUFFER)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        _, operation, unique, node, *_ = HEADER.unpack_from(request)
        if operation in SILENT:
            return
        call, found, answer = self._calls.get(operation), 0, b""
        try:
            if call is None:
                raise OSError(errno.ENOSYS, str(operation))
            answer = call(node, request[HEADER.size :])
        except OSError as error:
            found = error.errno or errno.EIO
        # Whoever asked may be gone.
        with contextlib.suppress(OSError):
            size = ANSWER.size + len(answer)
            os.write(self._descriptor, ANSWER.pack(size, -found, unique) + answer)

    def _init(self, node: int, body: bytes) -> bytes:
        flags = BIG_WRITES | MAX_PAGES
        return INIT.pack(7, MINOR, 1 << 17, flags, 16, 12, LONGEST_WRITE, 1, 256, 0, 0)


def name(body: bytes) -> bytes:
    """The text up to the first zero."""
    return body.split(b"\0", 1)[0]


def names(body: bytes) -> tuple[bytes, bytes]:
    """Two such texts."""
    first, second, _ = body.split(b"\0", 2)
    return first, second


def opened(handle: int) -> bytes:
    """``struct fuse_open_out``: cached pages of an earlier opening are forgotten."""
    return struct.pack("<QII", handle, 0, 0)
