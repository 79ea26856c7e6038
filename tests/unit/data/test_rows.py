from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from minimind.data import rows as reader
from minimind.data.rows import BadRow, Place, parse_rows, read_chunks, read_texts


def bad(line: bytes) -> str:
    (row,) = parse_rows(line, 7, "text")
    assert isinstance(row, BadRow)
    assert row.line == 7
    return row.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "invalid JSON: Unterminated string starting at at column 10"),
        (b"not json", "invalid JSON: Expecting value at column 1"),
        (b'{"text": "a"} {"text": "b"}', "invalid JSON: Extra data at column 15"),
        (b'{"text": "\xff"}', "invalid UTF-8 at byte 10"),
        (b'{"content": "a"}', "no field 'text'"),
        (b'{"text": 3}', "field 'text' is a number, not a string"),
        (b'{"text": null}', "field 'text' is null, not a string"),
        (b'{"text": true}', "field 'text' is a boolean, not a string"),
        (b'{"text": ["a"]}', "field 'text' is a list, not a string"),
        (b'{"text": {"a": 1}}', "field 'text' is an object, not a string"),
        (b'["text"]', "the row is a list, not an object"),
        (b'"text"', "the row is a string, not an object"),
        (b"1.5", "the row is a number, not an object"),
        (b'{"text": ""}', "field 'text' is empty"),
        (b'{"text": " \\n\\t\\u3000"}', "field 'text' is empty"),
        (b'{"text": "a\\u0000b"}', "field 'text' contains a NUL byte"),
        (b"\0\0\0", "invalid JSON: Expecting value at column 1"),
        (b'{"text": "a\\ud800b"}', "field 'text' contains a lone surrogate at character 1"),
        (b"[" * 100_000, "invalid JSON: nested too deeply"),
    ],
)
def test_bad_rows_say_what_is_wrong(line: bytes, reason: str) -> None:
    assert bad(line) == reason


def test_a_number_too_long_for_python_is_a_bad_row() -> None:
    assert bad(b'{"n": ' + b"9" * 5000 + b', "text": "a"}').startswith("invalid JSON: ")


def test_surrogate_pairs_are_good() -> None:
    assert list(parse_rows(b'{"text": "\\ud83d\\ude42"}', 1, "text")) == ["🙂"]


def test_lines_are_numbered_over_blank_ones_and_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "one"}\r\n\n  \n{"text": "two"}\nbad\n{"text": "three"}\nworse'
    )
    assert len(list(read_chunks(path))) > 2
    rows = list(read_texts(path))
    assert [row for row in rows if isinstance(row, str)] == ["one", "two", "three"]
    assert [(row.line, row.preview) for row in rows if isinstance(row, BadRow)] == [
        (5, "bad"),
        (7, "worse"),
    ]


def test_a_line_that_is_too_long_is_skipped_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr(reader, "CHUNK_BYTES", 30)
    path = tmp_path / "a.jsonl"
    fits = json.dumps({"text": "x" * 27})
    long = json.dumps({"text": "y" * 500})
    assert len(fits) <= 40
    path.write_text(f"{fits}\n{long}\n{fits}\n{long}")
    rows = list(read_texts(path))
    assert rows[0] == rows[2] == "x" * 27
    assert [r.line for r in (rows[1], rows[3]) if isinstance(r, BadRow)] == [2, 4]
    assert isinstance(rows[1], BadRow)
    assert rows[1].reason == "line longer than 40 bytes"
    assert rows[1].preview.startswith('{"text": "yyy')


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_what_json_writes_is_read_back(texts: list[str]) -> None:
    texts = [text for text in texts if text and not text.isspace()]
    for ascii_only in (True, False):
        lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
        assert list(parse_rows("\n".join(lines).encode(), 1, "text")) == texts


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_reading_goes_on_where_a_chunk_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 20)
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 50)
    rows = [f'{{"text": "{i}"}}' for i in range(20)]
    rows[7:7] = ["", '{"text": "' + "x" * 100 + '"}']
    data = b"\xef\xbb\xbf" + "\n".join(rows).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(data))
    chunks = list(read_chunks(path))
    assert len(chunks) > 5
    assert chunks[-1].end == Place(len(rows), len(data))
    for number, chunk in enumerate(chunks, 1):
        assert list(read_chunks(path, chunk.end)) == chunks[number:]
