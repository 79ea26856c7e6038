"""Every folder that a crash can leave, from a record of what a process did to its files.

The model is harsher than any file system in use. What has not been synced may be there, be
missing, be cut short or be zeros, each write for itself; of the changes of a folder's names
that have not been synced any subset may have reached the disk, in whatever order.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ALL_SUBSETS = 7
"""With more changes of names pending than this, not all subsets of them are tried."""

MARK = "mark"


@dataclass(frozen=True)
class Operation:
    """One recorded call that succeeded, or a mark that the process set."""

    call: str
    inode: int
    offset: int
    path: str
    other: str

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.other)


def read_record(record: Path) -> list[Operation]:
    """The calls of a whole process, in order."""
    operations = []
    for line in record.read_text().splitlines():
        call, inode, offset, path, other = line.split("\t")
        operations.append(Operation(call, int(inode), int(offset), path, other))
    return operations


def set_mark(record: Path, text: str) -> None:
    """Put a mark between a process's calls: from here on it has promised something."""
    with record.open("a") as file:
        file.write(f"{MARK}\t0\t0\t{text}\t\n")


@dataclass
class _File:
    """A file's bytes: those that are safe, and the changes that are not."""

    safe: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data), or (size, None) for a change of size."""

    def contents(self) -> list[bytes]:
        """Every content that a crash can leave, without repetition."""
        n = len(self.pending)
        choices = [tuple(range(k)) for k in range(n + 1)]
        choices += [(*range(k), *range(k + 1, n)) for k in range(n)]
        choices += [(k,) for k in range(n)]
        found = [self._applied([self.pending[i] for i in chosen]) for chosen in choices]
        for k, (offset, data) in enumerate(self.pending):
            if data:
                for size in {1, len(data) // 2, len(data) - 1}:
                    found.append(self._applied([*self.pending[:k], (offset, data[:size])]))
        if n:
            whole = self._applied(self.pending)
            # The size has reached the disk, the bytes have not.
            found.append(self.safe[: len(whole)].ljust(len(whole), b"\0"))
        return list(dict.fromkeys(found))

    def _applied(self, changes: Sequence[tuple[int, bytes | None]]) -> bytes:
        content = bytearray(self.safe)
        for offset, data in changes:
            if data is None:
                del content[offset:]
                content.extend(bytes(offset - len(content)))
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
        return bytes(content)

    def sync(self) -> None:
        self.safe, self.pending = self._applied(self.pending), []


@dataclass(frozen=True)
class _Renaming:
    """A change of names, which happens as a whole: (folder, name, inode or None to remove)."""

    entries: tuple[tuple[int, str, int | None], ...]


class Disk:
    """A folder as it is in memory, and what of it is safe."""

    ROOT = 0

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._now: dict[int, dict[str, int]] = {self.ROOT: {}}
        self._safe: dict[int, dict[str, int]] = {self.ROOT: {}}
        self._pending: list[_Renaming] = []
        # Numbers of removed files are given out again: here every file gets its own.
        self._number: dict[int, int] = {}

    def apply(self, operation: Operation) -> None:
        """Let one call happen."""
        call, path = operation.call, operation.path
        if call in ("create", "mkdir"):
            self._number[operation.inode] = len(self._files) + len(self._now)
        inode = self._number.get(operation.inode, -1)
        if call == "create":
            self._files[inode] = _File()
            self._rename((path, inode))
        elif call == "mkdir":
            self._now[inode], self._safe[inode] = {}, {}
            self._rename((path, inode))
        elif call == "write":
            self._files[inode].pending.append((operation.offset, operation.data))
        elif call == "truncate":
            self._files[inode].pending.append((operation.offset, None))
        elif call == "link":
            self._rename((operation.other, inode))
        elif call == "rename":
            self._rename((path, None), (operation.other, self._find(path)))
        elif call == "unlink":
            self._rename((path, None))
        elif call == "fsync":
            self._sync(path, inode)
        elif call != MARK:
            raise ValueError(f"unknown call {call!r}")

    def _rename(self, *changes: tuple[str, int | None]) -> None:
        entries = []
        for path, inode in changes:
            folder, name = os.path.split(path)
            entries.append((self._find(folder), name, inode))
        change = _Renaming(tuple(entries))
        _apply(self._now, change)
        self._pending.append(change)

    def _find(self, path: str) -> int:
        inode = self.ROOT
        relative = os.path.relpath(path, self._root)
        for part in [] if relative == "." else relative.split(os.sep):
            inode = self._now[inode][part]
        return inode

    def _sync(self, path: str, inode: int) -> None:
        if inode in self._files:
            self._files[inode].sync()
            return
        folder = self._find(path)
        still = []
        for change in self._pending:
            if any(parent == folder for parent, _, _ in change.entries):
                _apply(self._safe, change)
            else:
                still.append(change)
        self._pending = still

    def crashes(self, unread: Callable[[str], bool]) -> Iterator[dict[str, bytes]]:
        """Every folder that a crash at this moment can leave: relative path → content.

        A path that ends with a slash is a folder, and its content empty.
        """
        for chosen in _subsets(self._pending):
            names = {folder: dict(entries) for folder, entries in self._safe.items()}
            for change in chosen:
                _apply(names, change)
            places = dict(_walk(names, self.ROOT, "", self._files))
            read = {inode for path, inode in places.items() if not unread(path)}
            inodes = sorted(set(places.values()) & self._files.keys())
            variants = [
                contents if inode in read else contents[-1:]
                for inode in inodes
                for contents in [self._files[inode].contents()]
            ]
            for contents in itertools.product(*variants):
                content = dict(zip(inodes, contents, strict=True))
                yield {path: content.get(inode, b"") for path, inode in places.items()}


def _apply(names: dict[int, dict[str, int]], change: _Renaming) -> None:
    for folder, name, inode in change.entries:
        if inode is None:
            names[folder].pop(name, None)
        else:
            names[folder][name] = inode


def _subsets(changes: list[_Renaming]) -> Iterator[Sequence[_Renaming]]:
    n = len(changes)
    if n <= ALL_SUBSETS:
        for size in range(n + 1):
            yield from itertools.combinations(changes, size)
        return
    for k in range(n + 1):
        yield changes[:k]
    for k in range(n):
        yield changes[:k] + changes[k + 1 :]
        yield changes[k : k + 1]


def _walk(
    names: dict[int, dict[str, int]], folder: int, prefix: str, files: dict[int, _File]
) -> Iterator[tuple[str, int]]:
    for name, inode in names[folder].items():
        if inode in files:
            yield prefix + name, inode
        elif inode in names:
            yield f"{prefix}{name}/", inode
            yield from _walk(names, inode, f"{prefix}{name}/", files)


@dataclass(frozen=True)
class Crash:
    """A folder that a crash can leave, and the marks that were set before it."""

    files: dict[str, bytes]
    marks: tuple[str, ...]
    after: int
    """How many of the recorded calls had returned."""

    def write(self, folder: Path) -> Path:
        """Make the folder for real."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            path = folder / name
            if name.endswith("/"):
                path.mkdir()
            else:
                path.write_bytes(content)
        return folder


def is_hidden(path: str) -> bool:
    """Whether a file is one that only the removal of leftovers looks at, by its name."""
    return any(part.startswith(".") for part in path.split("/"))


def crashes(
    operations: Sequence[Operation], root: Path, unread: Callable[[str], bool] = is_hidden
) -> Iterator[Crash]:
    """Every crash of a recorded process, each distinct result once for each set of marks.

    Results that differ only in files which are ``unread`` count as one.
    """
    disk = Disk(str(root))
    marks: list[str] = []
    seen = set()
    for after in range(len(operations) + 1):
        for files in disk.crashes(unread):
            read = tuple(sorted((n, c) for n, c in files.items() if not unread(n)))
            key = hash((len(marks), read, len(read) == len(files)))
            if key not in seen:
                seen.add(key)
                yield Crash(files, tuple(marks), after)
        if after < len(operations):
            operation = operations[after]
            disk.apply(operation)
            if operation.call == MARK:
                marks.append(operation.path)
