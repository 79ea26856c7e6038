"""Every format that is read: how it is recognised, and its reader.

What a file begins with decides; only where that says nothing does the name that was given. A format
is one entry, of which docs/data.md has the row of a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minimind.data.chunks import Chunk, Place
from minimind.data.formats import arrow
from minimind.data.formats.delimited import columns_of, read_delimited
from minimind.data.formats.head import Head
from minimind.data.formats.json_values import read_values
from minimind.data.formats.lines import read_lines
from minimind.data.formats.plain_text import read_plain_text
from minimind.data.formats.refused import REFUSED
from minimind.errors import DataError

JSONL = "jsonl"

_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*[{\]]")

Reader = Callable[[Path, Place, str | None], Iterator[Chunk]]


@dataclass(frozen=True)
class Format:
    """A format of text files.

    Attributes:
        name: for the key of a store.
        suffixes: of names; a folder's files are chosen by these.
        recognised: whether a file is of this format, by its beginning and its name.
        read: yields a file's rows as chunks, from a place on; each with the field of that name at
            least, or (None) with all that it has. Raises DataError.
        columns: reads the fields that all rows have; None where each row has its own.
    """

    name: str
    suffixes: tuple[str, ...]
    recognised: Callable[[Head], bool]
    read: Reader
    columns: Callable[[Path, str], list[str]] | None = None


def format_of(path: Path) -> Format:
    """The format of a file.

    Raises:
        DataError: it cannot be read, or is known to hold no rows of text.
    """
    head = Head.of(path)
    for refused in REFUSED:
        if refused.recognised(head):
            raise DataError(f"{path}: is {refused.what}; {refused.remedy}")
    return next(known for known in FORMATS if known.recognised(head))


def _is_parquet(head: Head) -> bool:
    return head.compression is None and head.content.startswith(b"PAR1")


def _is_arrow_file(head: Head) -> bool:
    return head.compression is None and head.content.startswith(b"ARROW1\0\0")


def _is_arrow_stream(head: Head) -> bool:
    # A continuation mark and the length of a schema, which is a small positive number.
    marked = head.content.startswith(b"\xff\xff\xff\xff") and head.content[7:8] == b"\0"
    return head.compression is None and marked


def _begins_with_row(head: Head) -> bool:
    """Whether the first line is a whole JSON object: then it is jsonl, whatever its name says."""
    line, end, _ = head.text.partition(b"\n")
    if not line.startswith(b"{"):
        return False
    if not end and not head.is_whole:
        return line.startswith(b'{"')
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_array(head: Head) -> bool:
    """An array of objects that is not the first of several lines of jsonl."""
    if _ARRAY.match(head.text) is None:
        return False
    line, _, rest = head.text.partition(b"\n")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return not rest.strip() or _ARRAY.match(rest) is not None


def _is_object_over_lines(head: Head) -> bool:
    """An object whose first line ends where the next may begin with a name, and does."""
    found = re.match(rb'\{(?:[^"\n\r]|"(?:[^"\\\n\r]|\\.)*")*[\r\n]\s*["\[{}\]]', head.text)
    if found is None:
        return False
    line = head.text.partition(b"\n")[0].rstrip()
    follows = found[0][-1:]
    return line[-1:] in b"{[,:" and (follows in b'"[]}' or line[-1:] in b"[:")


def _is_named(*suffixes: str) -> Callable[[Head], bool]:
    return lambda head: head.name.endswith(suffixes)


FORMATS = (
    Format(
        "parquet",
        (".parquet",),
        _is_parquet,
        arrow.read_parquet,
        arrow.parquet_columns,
    ),
    Format(
        "arrow",
        (".arrow", ".feather"),
        _is_arrow_file,
        arrow.read_arrow_file,
        arrow.arrow_file_columns,
    ),
    Format(
        "arrow stream",
        (".arrow",),
        _is_arrow_stream,
        arrow.read_arrow_stream,
        arrow.arrow_stream_columns,
    ),
    Format(JSONL, (".jsonl", ".ndjson"), _begins_with_row, read_lines),
    Format("json", (".json",), _is_array, read_values),
    Format("json", (".json",), _is_object_over_lines, read_values),
    Format("csv", (".csv", ".tsv"), _is_named(".csv", ".tsv"), read_delimited, columns_of),
    Format("txt", (".txt",), _is_named(".txt"), read_plain_text),
    # Whatever it is, its lines are looked at.
    Format(JSONL, (), lambda head: True, read_lines),
)
"""In the order to look."""
