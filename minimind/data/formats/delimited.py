"""csv and tsv: the first row names the columns."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from minimind.data import chunks
from minimind.data.chunks import BadRow, Chunk, Place, Record, pack_records, preview
from minimind.data.compression import Content, reading
from minimind.data.formats.rows_to_json import to_line

DELIMITERS = ",\t;|"


def most_chars() -> int:
    """What a row may have that goes over several lines: 5,000,000 characters.

    The reader takes up to eight bytes for each while it looks for the end of a quote.
    """
    return chunks.MAX_LINE_BYTES // 10


def read_delimited(path: Path, start: Place, field: str | None) -> Iterator[Chunk]:
    """Yield the rows of a file with a header, numbered by the lines on which they begin."""
    with reading(path) as (raw, content), _text(content) as text:
        names, delimiter = _header(text, field)
        records = _records(text, names, delimiter)
        yield from pack_records((Record(n, line, raw.tell()) for n, line in records), start)


def columns_of(path: Path, field: str) -> list[str]:
    """The names in a file's first row."""
    with reading(path) as (_, content), _text(content) as text:
        return _header(text, field)[0]


def _text(content: Content) -> io.TextIOWrapper:
    # Bytes that are no UTF-8 go through, to be a bad row in the end.
    return io.TextIOWrapper(content, "utf-8-sig", "surrogateescape", newline="")  # type: ignore[arg-type]


def _header(text: io.TextIOWrapper, field: str | None) -> tuple[list[str], str]:
    """The names of the columns, and what is between them: what finds the field, or most names."""
    # Its own limit is 131,072 characters, for the whole process.
    csv.field_size_limit(chunks.MAX_LINE_BYTES)
    line = text.readline(chunks.MAX_LINE_BYTES)
    found = [(next(csv.reader([line], delimiter=d), []), d) for d in DELIMITERS]
    return max(found, key=lambda each: (field in each[0], len(each[0])))


def _records(
    text: io.TextIOWrapper, names: list[str], delimiter: str
) -> Iterator[tuple[int, bytes | BadRow]]:
    lines = _Lines(text)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.begin_row()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, lines.bad_row(number, error)
            continue
        if not row:
            continue
        if len(row) != len(names):
            reason = f"the row has {len(row)} columns, not {len(names)} as the first"
            yield number, BadRow(number, reason, lines.beginning)
            continue
        yield number, to_line(dict(zip(names, row, strict=True)))


class _Lines:
    """Counts lines, the header being the first, and gives those of a bad row again.

    A quote that nobody closes takes all lines up to the next quote, or :func:`most_chars`, for one
    field: only its own line is a bad row then, and those behind it are read as rows.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._read = 1
        self._row: list[str] = []
        self._size = 0
        self._again: deque[str] = deque()

    @property
    def beginning(self) -> str:
        """Of the row."""
        return preview(
            "".join(self._row[:1])[: 4 * chunks.PREVIEW_CHARS].encode("utf-8", "surrogateescape")
        )

    def begin_row(self) -> int:
        """The number of the line on which the next row begins."""
        self._row, self._size = [], 0
        return self._read + 1

    def bad_row(self, number: int, error: csv.Error) -> BadRow:
        """What the reader says against the row, whose other lines it then gets once more."""
        reason, others = f"invalid CSV: {error}", self._row[1:]
        if others:
            where = f"within {most_chars()} characters" if self._size > most_chars() else ""
            reason = f"invalid CSV: a quote that opens on line {number} is not closed {where}"
        self._again.extendleft(reversed(others))
        self._read -= len(others)
        return BadRow(number, reason.rstrip(), self.beginning)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._row and self._size > most_chars():
            raise csv.Error(f"more than {most_chars()} characters")
        line = self._again.popleft() if self._again else self._text.readline(chunks.MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        self._read += 1
        self._row.append(line)
        self._size += len(line)
        return line
