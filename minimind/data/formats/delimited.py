"""csv and tsv: the first row names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from minimind.data import chunks
from minimind.data.chunks import BadRow, Chunk, Place, Record, pack_records, preview
from minimind.data.compression import Content, reading
from minimind.data.formats.rows_to_json import to_line

DELIMITERS = ",\t;|"


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
        number = lines.read + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, BadRow(number, f"invalid CSV: {error}", lines.beginning)
            continue
        if not row:
            continue
        if len(row) != len(names):
            reason = f"the row has {len(row)} columns, not {len(names)} as the first"
            yield number, BadRow(number, reason, lines.beginning)
            continue
        yield number, to_line(dict(zip(names, row, strict=True)))


class _Lines:
    """Counts lines; the header was the first."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.read = 1
        self._last = ""

    @property
    def beginning(self) -> str:
        """Of the line that was read last."""
        return preview(self._last.encode("utf-8", "surrogateescape"))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._last = self._text.readline(chunks.MAX_LINE_BYTES)
        if not self._last:
            raise StopIteration
        self.read += 1
        return self._last
