"""Plain text: a file is one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minimind.data import chunks
from minimind.data.chunks import Chunk, Place, Record, pack_records
from minimind.data.compression import Content, reading
from minimind.data.formats.head import BOM
from minimind.data.formats.rows_to_json import to_line

PART_BYTES = 1_000_000
"""A file that is longer than a document may be is cut into such parts, each after a line's end."""


def read_plain_text(path: Path, start: Place, field: str | None) -> Iterator[Chunk]:
    """Yield a file's text as one row; a file of more than ``MAX_LINE_BYTES`` as several."""
    with reading(path) as (raw, content):
        records = (
            Record(number, to_line({field or "text": text}), raw.tell())
            for number, text in enumerate(_documents(content), 1)
        )
        yield from pack_records(records, start)


def _documents(content: Content) -> Iterator[bytes]:
    # JSON may need two bytes for one.
    longest = chunks.MAX_LINE_BYTES // 2
    text = content.read(longest + 1).removeprefix(BOM)
    if len(text) <= longest:
        yield text
        return
    begin = 0
    while begin < len(text):
        if len(text) - begin < PART_BYTES and (more := content.read(PART_BYTES)):
            text, begin = text[begin:] + more, 0
        end = text.rfind(b"\n", begin, begin + PART_BYTES) + 1
        end = end or _whole_characters(text, begin + PART_BYTES)
        yield text[begin:end]
        begin = end


def _whole_characters(text: bytes, end: int) -> int:
    """The last place up to ``end`` that is not inside of a character; ``end`` if none is near."""
    if end >= len(text):
        return len(text)
    # No character has more bytes: what goes on for longer is no UTF-8.
    places = range(end, end - 4, -1)
    return next((place for place in places if text[place] & 0xC0 != 0x80), end)
