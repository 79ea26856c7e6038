"""What every format of text becomes: chunks of JSON lines, whose numbers are places in its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

MAX_LINE_BYTES = 50_000_000
"""A longer line is a bad row; it is skipped without being held in memory."""

CHUNK_BYTES = 1 << 20
PREVIEW_CHARS = 80


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line (from 1), why, and how it begins.

    What ``line`` counts is the format's: lines, or items of a JSON array, or rows of Parquet,
    whose ``row_group`` (from 1) is given, too.
    """

    line: int
    reason: str
    preview: str
    row_group: int | None = None


@dataclass(frozen=True)
class Place:
    """Between two lines of a file: how many lines, and bytes once decompressed, lie before."""

    line: int = 0
    offset: int = 0


BEGINNING = Place()


@dataclass(frozen=True)
class Chunk:
    """Some rows of one file, each a line of JSON; a blank line is no row.

    Attributes:
        first_line: the number of the first line.
        position: how many bytes of the file on disk have been read so far.
        bad: rows of it that never became JSON, in order.
        end: where the next chunk begins.
        row_group: which row group of a Parquet file all rows are of (from 1).
    """

    first_line: int
    data: bytes
    position: int
    bad: tuple[BadRow, ...] = ()
    end: Place = BEGINNING
    row_group: int | None = None

    def rejected(self, found: Iterable[BadRow]) -> list[BadRow]:
        """All bad rows in order: ``found`` in the lines, and those that are no lines."""
        rows = sorted([*found, *self.bad], key=lambda row: row.line)
        return [replace(row, row_group=self.row_group) for row in rows]


@dataclass(frozen=True)
class Record:
    """One row of a file: its number (from 1) and its line of JSON, or what is wrong with it."""

    number: int
    line: bytes | BadRow
    position: int
    row_group: int | None = None


def pack_records(records: Iterable[Record], start: Place) -> Iterator[Chunk]:
    """Make chunks of the records behind ``start``; their numbers rise, maybe with gaps."""
    lines: list[bytes] = []
    bad: list[BadRow] = []
    size, first, last = 0, start.line + 1, None
    for record in records:
        if record.number <= start.line:
            continue
        new_group = last is not None and record.row_group != last.row_group
        if last is not None and (new_group or size >= CHUNK_BYTES):
            yield _chunk(first, lines, bad, last)
            lines, bad, size, first = [], [], 0, last.number + 1
        # Blank lines, so that the next has its number.
        lines += [b""] * (record.number - first - len(lines))
        line = _short_enough(record)
        lines.append(b"" if isinstance(line, BadRow) else line)
        if isinstance(line, BadRow):
            bad.append(line)
        size += len(lines[-1]) + 1
        last = record
    if last is not None and lines:
        yield _chunk(first, lines, bad, last)


def _short_enough(record: Record) -> bytes | BadRow:
    if isinstance(record.line, BadRow) or len(record.line) <= MAX_LINE_BYTES:
        return record.line
    return too_long(record.number, record.line)


def _chunk(first: int, lines: list[bytes], bad: list[BadRow], last: Record) -> Chunk:
    data = b"".join(line + b"\n" for line in lines)
    return Chunk(first, data, last.position, tuple(bad), Place(last.number), last.row_group)


def too_long(number: int, beginning: bytes) -> BadRow:
    """The row at ``number``, which nobody holds in memory."""
    return BadRow(number, f"line longer than {MAX_LINE_BYTES} bytes", preview(beginning))


def preview(line: bytes) -> str:
    """How a row begins."""
    # Four bytes are the longest UTF-8 character.
    return line[: 4 * PREVIEW_CHARS].decode("utf-8", "replace").strip()[:PREVIEW_CHARS]
