from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from minimind.data import chunks as reader
from minimind.data.chunks import BadRow, Place
from minimind.data.rows import parse_rows, read_chunks, read_texts, refuse_unknown_field
from minimind.errors import DataError


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


@pytest.mark.parametrize("sign", [b"", b"-"])
def test_a_number_too_long_for_python_in_another_field_costs_nothing(sign: bytes) -> None:
    assert list(parse_rows(b'{"n": ' + sign + b"9" * 5000 + b', "text": "a"}', 1, "text")) == ["a"]
    assert bad(b'{"text": ' + sign + b"9" * 5000 + b"}") == "field 'text' is a number, not a string"
    assert bad(b'{"text": ' + b"9" * 5000).startswith("invalid JSON: ")


def test_files_put_one_behind_the_other_keep_their_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    one, two = (b'\xef\xbb\xbf{"text": "%s"}\n' % text for text in (b"one", b"two"))
    path.write_bytes(one + two)
    assert list(read_texts(path)) == ["one", "two"]


def test_a_field_is_found_by_its_path_unless_one_has_that_name() -> None:
    assert list(parse_rows(b'{"a": {"b": "inner"}}', 1, "a.b")) == ["inner"]
    assert list(parse_rows(b'{"a": {"b": "inner"}, "a.b": "outer"}', 1, "a.b")) == ["outer"]
    for line in (b'{"a": {"c": "inner"}}', b'{"a": "text"}', b'{"a": null}'):
        (row,) = parse_rows(line, 1, "a.b")
        assert isinstance(row, BadRow)
        assert row.reason == "no field 'a.b'"


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


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_wrong_field_names_those_that_are_there_after_the_first_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 100)
    rows = [{"content": "x" * 90, "meta": {"id": i, "raw": {"text": "a"}}} for i in range(9)]
    path = jsonl(tmp_path / "a.jsonl", 3, *rows, {"late": 1})
    with pytest.raises(DataError) as raised:
        refuse_unknown_field([path], "text")
    assert str(raised.value) == (
        f"{path}: the first rows have no field 'text'; there are 'content', 'meta.id', "
        "'meta.raw.text'; --text_field names the text's"
    )
    refuse_unknown_field([path], "content")
    refuse_unknown_field([path], "meta.raw.text")


def test_one_file_with_the_field_is_enough(tmp_path: Path) -> None:
    other = jsonl(tmp_path / "a.jsonl", {"title": "a"})
    right = jsonl(tmp_path / "b.jsonl", {"title": "a"}, {"text": "a"})
    refuse_unknown_field([other, right], "text")
    empty = jsonl(tmp_path / "c.jsonl")
    refuse_unknown_field([empty, jsonl(tmp_path / "d.jsonl", 1, "x")], "text")


@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_conversations_are_called_so(tmp_path: Path, name: str) -> None:
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    path = jsonl(tmp_path / "a.jsonl", {name: talk})
    how = f"'--text_field {name} --render_chat' trains on them through the chat template"
    with pytest.raises(DataError, match=re.escape(how)):
        refuse_unknown_field([path], "text")
    with pytest.raises(DataError, match=rf"field '{name}' holds conversations.*--render_chat"):
        refuse_unknown_field([path], name)
    refuse_unknown_field([path], name, renders_chat=True)
