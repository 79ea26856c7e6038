"""Reads jsonl in bounded memory, plain or compressed, and tells good rows from bad ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
    with _naming(path), open(path, "rb") as raw, _decompressed(path, raw) as file:
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


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what goes wrong while reading into one line that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, _DamagedError) as error:
        raise DataError(f"{path}: damaged or incomplete compressed file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes] | io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(raw)
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdFile(raw), CHUNK_BYTES)
    return raw


class _DamagedError(Exception):
    pass


class _ZstdFile(io.RawIOBase):
    """Reads zstd frames, and unlike zstandard's own reader notices when the last is cut off."""

    # Small, because one compressed byte can stand for very many.
    INPUT_BYTES = 1 << 13

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._raw.read(self.INPUT_BYTES)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._decompress()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        if self._frame is None:
            self._frame = self._new_frame()
        try:
            self._output = memoryview(self._frame.decompress(self._input))
        except self._error as error:
            raise _DamagedError(str(error)) from None
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None
