"""JSON that is no jsonl: arrays of objects, and objects over several lines, of any length.

Only borders are looked for here; each item goes to the reader of rows as it was written. So a
damaged item is one bad row, as a damaged line is, and nothing in it is converted on the way. (What
parsers that stream make of a lone surrogate or of a number of 5,000 digits is another matter.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimind.data import chunks
from minimind.data.chunks import BadRow, Chunk, Place, Record, pack_records, too_long
from minimind.data.compression import reading
from minimind.data.formats.head import BOM
from minimind.errors import DataError

READ_BYTES = 1 << 18

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRUCTURE = re.compile(rb'["\[\]{}]')
_SCALAR = re.compile(rb"[^,\[\]{} \t\r\n]+")
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.S)


def read_values(path: Path, start: Place, _: str | None) -> Iterator[Chunk]:
    """Yield the items of a file's arrays, and the objects beside them, in chunks.

    Raises:
        DataError: the file ends within an array, or holds something else between its items.
    """
    with reading(path) as (raw, content):
        items = _Scanner(path, content).items()
        records = (Record(number, line, raw.tell()) for number, line in enumerate(items, 1))
        yield from pack_records(records, start)


class _Scanner:
    """Cuts a stream of bytes into the JSON values that it holds."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        self._content = content
        self._buffer = b""
        self._place = 0
        self._number = 0

    def items(self) -> Iterator[bytes | BadRow]:
        """Yield each item, as a line."""
        while (byte := self._next()) is not None:
            if byte == b"[":
                self._place += 1
                yield from self._array()
            else:
                yield self._item(byte)

    def _array(self) -> Iterator[bytes | BadRow]:
        while True:
            byte = self._next()
            if byte == b"]":
                self._place += 1
                return
            if byte == b",":
                self._place += 1
                continue
            yield self._item(byte)
            if self._next() not in (b",", b"]"):
                raise self._damage(self._next())

    def _next(self) -> bytes | None:
        """The first byte that is no white space; None: the file ends."""
        while True:
            found = _SPACE.match(self._buffer, self._place)
            assert found is not None
            self._place = found.end()
            rest = self._buffer[self._place : self._place + len(BOM)]
            if rest == BOM:
                self._place += len(BOM)
            elif rest and (len(rest) == len(BOM) or not BOM.startswith(rest)):
                return rest[:1]
            elif not self._read():
                return rest[:1] or None

    def _read(self) -> bool:
        """Read on; what lies before the place is forgotten."""
        more = self._content.read(READ_BYTES)
        self._buffer = self._buffer[self._place :] + more
        self._place = 0
        return bool(more)

    def _item(self, byte: bytes | None) -> bytes | BadRow:
        if byte is None or byte in b",]}:":
            raise self._damage(byte)
        self._number += 1
        parts = _Parts()
        if byte in b'[{"':
            self._nested(parts)
        else:
            self._run(parts, _SCALAR)
        if parts.size > chunks.MAX_LINE_BYTES:
            return too_long(self._number, parts.beginning)
        # No string may hold a line's end, nor a tab: what is wrong stays wrong.
        return parts.joined().replace(b"\n", b"\t")

    def _nested(self, parts: _Parts) -> None:
        """Take all until brackets and quotes are closed."""
        depth = 0
        while True:
            found = _STRUCTURE.search(self._buffer, self._place)
            if found is None:
                self._take(parts, len(self._buffer))
                self._must_read()
                continue
            self._take(parts, found.end())
            byte = found[0]
            if byte == b'"':
                self._string(parts)
            else:
                depth += 1 if byte in b"[{" else -1
            if depth <= 0:
                return

    def _string(self, parts: _Parts) -> None:
        """Take a string that has begun, and the quote at its end."""
        while True:
            self._run(parts, _STRING)
            rest = self._buffer[self._place : self._place + 2]
            if rest.startswith(b'"'):
                self._take(parts, self._place + 1)
                return
            # The buffer ends here, or in the middle of an escape.
            self._must_read()

    def _run(self, parts: _Parts, pattern: re.Pattern[bytes]) -> None:
        """Take what matches, over as many reads as it needs."""
        while True:
            found = pattern.match(self._buffer, self._place)
            self._take(parts, found.end() if found else self._place)
            if self._place < len(self._buffer) or not self._read():
                return

    def _take(self, parts: _Parts, end: int) -> None:
        parts.add(self._buffer[self._place : end])
        self._place = end

    def _must_read(self) -> None:
        if not self._read():
            raise self._damage(None)

    def _damage(self, byte: bytes | None) -> DataError:
        found = "its end" if byte is None else repr(byte.decode("latin-1"))
        where = f"at or after item {self._number}" if self._number else "at its beginning"
        return DataError(f"{self._path}: damaged or incomplete JSON: {found} {where}")


class _Parts:
    """The bytes of one item; of one that is too long only the beginning is kept."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    @property
    def beginning(self) -> bytes:
        return b"".join(self._parts[:100])[: 4 * chunks.PREVIEW_CHARS]

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size > chunks.MAX_LINE_BYTES:
            self._parts = [self.beginning]
        elif part:
            self._parts.append(part)

    def joined(self) -> bytes:
        return b"".join(self._parts)
