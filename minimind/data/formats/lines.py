"""jsonl: a JSON object on each line, and the only format that is read by the byte."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minimind.data import chunks
from minimind.data.chunks import BadRow, Chunk, Place, too_long
from minimind.data.compression import reading
from minimind.data.formats.head import BOM


def read_lines(path: Path, start: Place, _: str | None) -> Iterator[Chunk]:
    """Yield a file's lines from ``start`` on in chunks of about ``CHUNK_BYTES``."""
    with reading(path) as (raw, file):
        _skip(file, start.offset)
        lines: list[bytes] = []
        size = 0
        number, offset = start.line, start.offset
        first = number + 1
        while line := file.readline(chunks.MAX_LINE_BYTES + 1):
            number += 1
            offset += len(line)
            bad: tuple[BadRow, ...] = ()
            if len(line) > chunks.MAX_LINE_BYTES and not line.endswith(b"\n"):
                offset += _skip_line(file)
                bad = (too_long(number, line),)
            else:
                # Where files were put one behind the other, a mark can be in the middle.
                line = line.removeprefix(BOM)
                lines.append(line)
                size += len(line)
            if size >= chunks.CHUNK_BYTES or bad:
                end = Place(number, offset)
                yield Chunk(first, b"".join(lines), raw.tell(), bad, end)
                lines, size, first = [], 0, number + 1
        if lines:
            yield Chunk(first, b"".join(lines), raw.tell(), (), Place(number, offset))


def _skip_line(file: IO[bytes] | io.BufferedIOBase) -> int:
    """Read to the end of a line; return how many bytes that was."""
    skipped = 0
    while part := file.readline(chunks.CHUNK_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _skip(file: IO[bytes] | io.BufferedIOBase, n_bytes: int) -> None:
    """Move behind the first ``n_bytes`` of a file that is at its beginning."""
    if file.seekable():
        file.seek(n_bytes)
        return
    while n_bytes and (part := file.read(min(n_bytes, chunks.CHUNK_BYTES))):
        n_bytes -= len(part)
