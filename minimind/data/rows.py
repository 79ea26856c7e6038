"""Reads jsonl in bounded memory, and tells good rows from bad ones, which it counts and lists."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from minimind.data.inputs import reading
from minimind.errors import DataError

MAX_LINE_BYTES = 50_000_000
"""A longer line is a bad row; it is skipped without being held in memory."""

CHUNK_BYTES = 1 << 20
PREVIEW_CHARS = 80
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line (from 1), why, and how it begins."""

    line: int
    reason: str
    preview: str


@dataclass(frozen=True)
class Row:
    """A row that can be used: its line (from 1), the line's bytes without its end, its text."""

    line: int
    data: bytes
    text: str


@dataclass(frozen=True)
class Place:
    """Between two lines of a file: how many lines, and bytes once decompressed, lie before."""

    line: int = 0
    offset: int = 0


BEGINNING = Place()


@dataclass(frozen=True)
class Chunk:
    """Some whole lines of one file.

    ``position`` is how many bytes of the file on disk have been read so far; ``too_long``
    is a line that follows these and was left out; ``end`` is where the next chunk begins.
    """

    first_line: int
    data: bytes
    position: int
    too_long: BadRow | None = None
    end: Place = BEGINNING


def read_chunks(path: Path, start: Place = BEGINNING) -> Iterator[Chunk]:
    """Yield a file's lines from ``start`` on in chunks of about :data:`CHUNK_BYTES`.

    Raises:
        DataError: the file cannot be read, or is a damaged ``.gz`` or ``.zst``.
    """
    with reading(path) as (raw, file):
        _skip(file, start.offset)
        lines: list[bytes] = []
        size = 0
        number, offset = start.line, start.offset
        first = number + 1
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            offset += len(line)
            too_long = None
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                offset += _skip_line(file)
                too_long = BadRow(
                    number, f"line longer than {MAX_LINE_BYTES} bytes", _preview(line)
                )
            else:
                if number == 1:
                    line = line.removeprefix(_BOM)
                lines.append(line)
                size += len(line)
            if size >= CHUNK_BYTES or too_long:
                end = Place(number, offset)
                yield Chunk(first, b"".join(lines), raw.tell(), too_long, end)
                lines, size, first = [], 0, number + 1
        if lines:
            yield Chunk(first, b"".join(lines), raw.tell(), None, Place(number, offset))


def parse_rows(chunk_data: bytes, first_line: int, text_field: str) -> Iterator[str | BadRow]:
    """Yield the text of each row, or what is wrong with it. Blank lines are no rows."""
    for row in _parse_lines(chunk_data, first_line, text_field):
        yield row.text if isinstance(row, Row) else row


def read_rows(path: Path, text_field: str = "text") -> Iterator[Row | BadRow]:
    """Yield a file's good and bad rows one after the other.

    Raises:
        DataError: as :func:`read_chunks`.
    """
    for chunk in read_chunks(path):
        yield from _parse_lines(chunk.data, chunk.first_line, text_field)
        if chunk.too_long:
            yield chunk.too_long


def read_texts(path: Path, text_field: str = "text") -> Iterator[str | BadRow]:
    """Yield a file's texts and bad rows one after the other.

    Raises:
        DataError: as :func:`read_chunks`.
    """
    for row in read_rows(path, text_field):
        yield row.text if isinstance(row, Row) else row


def _parse_lines(chunk_data: bytes, first_line: int, text_field: str) -> Iterator[Row | BadRow]:
    for number, line in enumerate(chunk_data.split(b"\n"), first_line):
        if not line or line.isspace():
            continue
        try:
            yield Row(number, line, _text_of(line, text_field))
        except ValueError as error:
            yield BadRow(number, str(error), _preview(line))


def _text_of(line: bytes, text_field: str) -> str:
    """Return a row's text; raises ValueError with the reason why it has none."""
    try:
        row: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("invalid JSON: nested too deeply") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise ValueError(f"invalid JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"the row is {_kind(row)}, not an object")
    if text_field not in row:
        raise ValueError(f"no field {text_field!r}")
    text = row[text_field]
    if not isinstance(text, str):
        raise ValueError(f"field {text_field!r} is {_kind(text)}, not a string")
    if not text or text.isspace():
        raise ValueError(f"field {text_field!r} is empty")
    if "\0" in text:
        raise ValueError(f"field {text_field!r} contains a NUL byte")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"field {text_field!r} contains a lone surrogate at character {error.start}"
        ) from None
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def _preview(line: bytes) -> str:
    # Four bytes are the longest UTF-8 character.
    return line[: 4 * PREVIEW_CHARS].decode("utf-8", "replace").strip()[:PREVIEW_CHARS]


def _skip_line(file: IO[bytes] | io.BufferedIOBase) -> int:
    """Read to the end of a line; return how many bytes that was."""
    skipped = 0
    while part := file.readline(CHUNK_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _skip(file: IO[bytes] | io.BufferedIOBase, n_bytes: int) -> None:
    """Go on behind the first ``n_bytes`` of a file that is at its beginning."""
    if file.seekable():
        file.seek(n_bytes)
        return
    while n_bytes and (part := file.read(min(n_bytes, CHUNK_BYTES))):
        n_bytes -= len(part)


class RejectedRows:
    """Counts bad rows by reason and writes each as a line of JSON: file, line, reason, preview."""

    def __init__(self, listing: IO[str]) -> None:
        self._listing = listing
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self.first = ""
        """``FILE:LINE: reason`` of the first."""

    def add(self, path: Path, rows: Iterable[BadRow]) -> None:
        for row in rows:
            entry = {"file": str(path), **asdict(row)}
            self._listing.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._count(entry)

    def count_listed(self, lines: Iterable[str]) -> None:
        """Count rows that were listed before.

        Raises:
            ValueError, LookupError, TypeError: a line is no such row.
        """
        for line in lines:
            self._count(json.loads(line))

    def _count(self, entry: dict[str, Any]) -> None:
        place, reason = row_place(entry), str(entry["reason"])
        # Without the position, which differs from row to row.
        self.reasons[reason.partition(":")[0].partition(" at ")[0]] += 1
        self.first = self.first or place
        self.count += 1

    def to_dict(self, listing: Path) -> dict[str, Any]:
        """For ``--json``; ``listing`` is where the rows were listed."""
        return {
            "count": self.count,
            "reasons": dict(self.reasons),
            "first": self.first or None,
            "list": str(listing) if self.count else None,
        }

    def refuse_more_than(self, limit: int) -> None:
        """Raise DataError when there are more than ``--max_bad_rows`` (-1: never)."""
        refuse_more_than(limit, self.count, self.first)


def row_place(entry: dict[str, Any]) -> str:
    """``FILE:LINE: reason`` of a line in a list of rejected rows."""
    return f"{entry['file']}:{entry['line']}: {entry['reason']}"


def refuse_more_than(limit: int, count: int, first: str) -> None:
    """Raise DataError when ``count`` rows are more than ``--max_bad_rows`` (-1: never)."""
    if 0 <= limit < count:
        raise DataError(
            f"{count} unusable rows, more than --max_bad_rows {limit}; the first is {first}"
        )


def nothing_usable(files: Iterable[Path | str], count: int, first: str) -> DataError:
    """The error of files in which no row can be used: ``count`` are bad, the others blank."""
    names = ", ".join(map(str, files))
    if not count:
        return DataError(f"{names}: empty: no row of text in it")
    return DataError(f"{names}: none of the {count} rows is usable; the first is {first}")


def left_out(count: int, reasons: Mapping[str, int], first: str, listing: Path | str) -> str:
    """What to tell about rows that the work goes on without."""
    each = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    return f"{count} rows are unusable and left out ({each}); the first is {first}; see {listing}"
