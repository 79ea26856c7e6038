"""Reads text in bounded memory, and tells good rows from bad ones, which it counts and lists."""

from __future__ import annotations

import contextlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from minimind.data.chunks import BEGINNING, BadRow, Chunk, Place, preview
from minimind.data.conversations import ChatTemplate
from minimind.data.fields import (
    has_field,
    how_to_render,
    is_conversation,
    names_of,
    unknown_field,
    value_of,
)
from minimind.data.formats.registry import format_of
from minimind.errors import DataError


@dataclass(frozen=True)
class Row:
    """A row that can be used: its line (from 1), the line's bytes without its end, its text."""

    line: int
    data: bytes
    text: str


def read_chunks(
    path: Path, start: Place = BEGINNING, text_field: str | None = None
) -> Iterator[Chunk]:
    """Yield the rows of a file of any format from ``start`` on in chunks of about ``CHUNK_BYTES``.

    Args:
        text_field: what is wanted of a row; None: all of it.

    Raises:
        DataError: the file cannot be read, is damaged, or holds no rows of text.
    """
    return format_of(path).read(path, start, text_field)


def parse_rows(
    chunk_data: bytes, first_line: int, text_field: str, chat: ChatTemplate | None = None
) -> Iterator[str | BadRow]:
    """Yield the text of each row, or what is wrong with it. Blank lines are no rows.

    Args:
        chat: renders the conversations that the field holds in place of texts.
    """
    for row in _parse_lines(chunk_data, first_line, text_field, chat):
        yield row.text if isinstance(row, Row) else row


def read_rows(
    path: Path,
    text_field: str = "text",
    *,
    whole: bool = False,
    chat: ChatTemplate | None = None,
) -> Iterator[Row | BadRow]:
    """Yield a file's good and bad rows in order.

    Args:
        chat: as in :func:`parse_rows`.
        whole: let ``data`` hold all fields of a row, in any format.

    Raises:
        DataError: as :func:`read_chunks`.
    """
    for chunk in read_chunks(path, BEGINNING, None if whole else text_field):
        rows = _parse_lines(chunk.data, chunk.first_line, text_field, chat)
        yield from heapq.merge(
            (_placed(row, chunk) for row in rows), chunk.rejected(()), key=lambda row: row.line
        )


def read_texts(path: Path, text_field: str = "text") -> Iterator[str | BadRow]:
    """Yield a file's texts and bad rows one after the other.

    Raises:
        DataError: as :func:`read_chunks`.
    """
    for row in read_rows(path, text_field):
        yield row.text if isinstance(row, Row) else row


def _parse_lines(
    chunk_data: bytes, first_line: int, text_field: str, chat: ChatTemplate | None
) -> Iterator[Row | BadRow]:
    for number, line in enumerate(chunk_data.split(b"\n"), first_line):
        if not line or line.isspace():
            continue
        try:
            yield Row(number, line, _text_of(line, text_field, chat))
        except ValueError as error:
            yield BadRow(number, str(error), preview(line))


def refuse_unknown_field(
    paths: Sequence[Path], text_field: str, *, renders_chat: bool = False
) -> None:
    """See that the first rows of some file have the field, before all of them are read.

    Raises:
        DataError: none has it, a file whose rows all have the same fields has not, or it holds
            conversations and ``renders_chat`` is not set.
    """
    for path in paths:
        if (columns := format_of(path).columns) is not None:
            _refuse_unknown_column(path, columns(path, text_field), text_field)
    seen: dict[str, None] = {}
    for path in paths:
        for row in _first_rows(path, text_field):
            if has_field(row, text_field):
                if not renders_chat and is_conversation(value_of(row, text_field)):
                    raise DataError(
                        f"{path}: field {text_field!r} holds conversations, not texts; "
                        f"{how_to_render(text_field)}"
                    )
                return
            seen |= dict.fromkeys(names_of(row))
    if seen:
        names = ", ".join(map(str, paths))
        raise DataError(f"{names}: the first rows have {unknown_field(text_field, seen)}")


def _refuse_unknown_column(path: Path, columns: Sequence[str], text_field: str) -> None:
    if not any(name == text_field or name.startswith(f"{text_field}.") for name in columns):
        raise DataError(f"{path}: {unknown_field(text_field, columns)}")


def _first_rows(path: Path, text_field: str) -> Iterator[dict[str, Any]]:
    """Those of the first chunk, as far as they are objects."""
    chunk = next(read_chunks(path, BEGINNING, text_field), None)
    for line in chunk.data.split(b"\n") if chunk else ():
        with contextlib.suppress(ValueError, RecursionError):
            row = _parse(line.decode("utf-8"))
            if isinstance(row, dict):
                yield row


def _placed(row: Row | BadRow, chunk: Chunk) -> Row | BadRow:
    return replace(row, row_group=chunk.row_group) if isinstance(row, BadRow) else row


def _text_of(line: bytes, text_field: str, chat: ChatTemplate | None) -> str:
    """Return a row's text; raises ValueError with the reason why it has none."""
    try:
        row: Any = _parse(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("invalid JSON: nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"the row is {_kind(row)}, not an object")
    try:
        text = value_of(row, text_field)
    except KeyError:
        raise ValueError(f"no field {text_field!r}") from None
    if chat is not None:
        text = _rendered(chat, text, text_field)
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


def _rendered(chat: ChatTemplate, conversation: Any, text_field: str) -> str:
    try:
        return chat.render(conversation)
    except ValueError as error:
        raise ValueError(f"field {text_field!r} holds no conversation: {error}") from None


def _parse(line: str) -> Any:
    """Parse a line; a number with more digits than Python converts is some other number."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(line, parse_int=float)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


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
            if row.row_group is None:
                del entry["row_group"]
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
    if group := entry.get("row_group"):
        return f"{entry['file']}: row group {group}, row {entry['line']}: {entry['reason']}"
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
