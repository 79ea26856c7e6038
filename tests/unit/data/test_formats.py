"""Each format, right and wrong; Parquet and Arrow have a file of their own."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.data import chunks
from minimind.data.chunks import BadRow
from minimind.data.formats import json_values, plain_text
from minimind.data.formats.delimited import columns_of
from minimind.data.formats.registry import FORMATS, format_of
from minimind.data.rows import (
    parse_rows,
    read_chunks,
    read_rows,
    read_texts,
    refuse_unknown_field,
)
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS, chunks_from_anywhere

ROWS = [{"id": i, "text": text, "meta": {"n": [i, {"x": "]}"}]}} for i, text in enumerate(TEXTS)]


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def bad_rows(path: Path) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read_texts(path) if isinstance(row, BadRow)]


def good(path: Path, field: str = "text") -> list[str]:
    return [row for row in read_texts(path, field) if isinstance(row, str)]


def as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


JSON_FORMS = {
    "array": json.dumps(ROWS),
    "pretty array": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "an item a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "pretty objects": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "two arrays": json.dumps(ROWS[:2]) + "\n\ufeff" + json.dumps(ROWS[2:]),
    "mark in front": "\ufeff" + json.dumps(ROWS, indent=1),
}


@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "blob", "a.csv"])
@pytest.mark.parametrize("read_bytes", [1, 7, 1 << 18])
def test_json_that_is_no_jsonl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str, read_bytes: int
) -> None:
    monkeypatch.setattr(json_values, "READ_BYTES", read_bytes)
    path = written(tmp_path / name, JSON_FORMS[form])
    assert format_of(path).name == "json"
    assert list(read_texts(path)) == TEXTS
    assert [row.line for row in read_rows(path) if not isinstance(row, str)] == [1, 2, 3, 4, 5, 6]


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5)), min_size=1))
def test_items_are_cut_where_json_ends_them(tmp_path_factory: object, rows: list[object]) -> None:
    text = json.dumps(rows, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    scanner = json_values._Scanner(Path("a.json"), io.BytesIO(text))
    items = [item for item in scanner.items() if isinstance(item, bytes)]
    assert [json.loads(item.decode("utf-8", "surrogatepass")) for item in items] == rows


def test_a_damaged_item_of_an_array_is_one_bad_row(tmp_path: Path) -> None:
    big = "9" * 5000
    items = ['{"text": "a"}', '{"text": 3}', '{"text": "line\nend"}', "{bad}", '"str"', "4.5"]
    items += ['{"text": "\\ud800"}', f'{{"n": {big}, "text": "z"}}']
    path = written(tmp_path / "a.json", f"[{', '.join(items)}]")
    assert good(path) == ["a", "z"]
    reasons = dict(bad_rows(path))
    assert reasons[2] == "field 'text' is a number, not a string"
    assert reasons[3].startswith("invalid JSON: Invalid control character")
    assert reasons[4].startswith("invalid JSON")
    assert reasons[5] == "the row is a string, not an object"
    assert reasons[6] == "the row is a number, not an object"
    assert reasons[7] == "field 'text' contains a lone surrogate at character 0"


@pytest.mark.parametrize(
    "text", ['[{"text": "a"}, {"text": "b', '[{"text": "a"}', '[{"text": "a"} {"text": "b"}]']
)
def test_an_array_that_is_cut_off_is_named(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.json", text)
    with pytest.raises(DataError, match=r"a\.json: damaged or incomplete JSON: .* item 1|2"):
        list(read_texts(path))


@pytest.mark.parametrize("between", ["\f", "\v", "\0"])
def test_a_control_character_between_objects_is_passed(tmp_path: Path, between: str) -> None:
    path = written(tmp_path / "a.json", f'{{\n"text": "a"\n}}\n{between}\n{{\n"text": "b"\n}}\n')
    assert len(list(itertools.islice(read_chunks(path), 2))) == 1
    assert good(path) == ["a", "b"]


def test_an_item_that_is_too_long_is_skipped_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr(json_values, "READ_BYTES", 16)
    rows = [{"text": "a"}, {"text": "y" * 500}, {"text": "b"}]
    path = written(tmp_path / "a.json", json.dumps(rows))
    assert good(path) == ["a", "b"]
    (row,) = [row for row in read_texts(path) if isinstance(row, BadRow)]
    assert (row.line, row.reason) == (2, "line longer than 40 bytes")
    assert row.preview.startswith('{"text": "yyy')


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "cut\n{"text": "a"}\n',
        '{"a": 1,\n{"text": "a"}\n',
        '[{"text": "x"}]\n{"text": "a"}\n',
        '[1, 2\n{"text": "a"}\n',
        'rubbish\n{"text": "a"}\n',
        '{\n{"text": "a"}\n',
    ],
)
def test_a_bad_first_line_leaves_jsonl_jsonl(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.jsonl", text)
    assert list(read_texts(path)) == list(parse_rows(text.encode(), 1, "text"))
    assert good(path) == ["a"]
    assert bad_rows(path)[0][0] == 1


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.parquet", "a"])
def test_jsonl_is_jsonl_under_any_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(read_texts(path)) == TEXTS
    assert format_of(path).name == "jsonl"


def test_a_first_row_of_more_than_is_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", json.dumps({"text": "x" * 100_000}) + '\n{"text": "b"}\n')
    assert [len(text) for text in good(path)] == [100_000, 1]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.CSV.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimited_rows(tmp_path: Path, name: str, delimiter: str, mark: str) -> None:
    rows = [["id", "text"], *([str(i), text] for i, text in enumerate(TEXTS))]
    data = (mark + as_csv(rows, delimiter)).encode()
    path = written(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    assert list(read_texts(path)) == TEXTS


def test_bad_delimited_rows_have_the_lines_they_begin_on(tmp_path: Path) -> None:
    text = 'id,text\n1,"two\nlines"\n2,a,b\n3\n\n4,""\n5,"a"b\n6,\xff\n7,last\n'
    path = written(tmp_path / "a.csv", text.encode("latin-1"))
    assert good(path) == ["two\nlines", "last"]
    assert bad_rows(path) == [
        (4, "the row has 3 columns, not 2 as the first"),
        (5, "the row has 1 columns, not 2 as the first"),
        (7, "field 'text' is empty"),
        (8, "invalid CSV: ',' expected after '\"'"),
        (9, "invalid UTF-8 at byte 21"),
    ]


@pytest.mark.parametrize(
    "behind",
    ["", '4,"d"\n', '4,"d"x\n', '4,"d\ne"\n', f"4,{'x' * 900}\n" * 30],
    ids=["end of file", "next quote", "another fault", "two lines", "limit"],
)
def test_an_open_quote_costs_its_own_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 100_000)
    long = " within 10000 characters" if len(behind) > 10_000 else ""
    path = written(tmp_path / "a.csv", f'id,text\n1,a\n2,"b\n3,c\n{behind}')
    rest = written(tmp_path / "b.csv", f"id,text\n1,a\n3,c\n{behind}")
    assert good(path) == good(rest)
    assert bad_rows(path)[0] == (
        3,
        f"invalid CSV: a quote that opens on line 3 is not closed{long}",
    )
    assert bad_rows(path)[1:] == [(line + 1, reason) for line, reason in bad_rows(rest)]
    (first, *_) = (row for row in read_texts(path) if isinstance(row, BadRow))
    assert first.preview == '2,"b'


def test_many_open_quotes_are_read_in_linear_time(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,text\n" + '1,"a ""b"" c\n' * 20_000)
    assert len(bad_rows(path)) == 20_000


def test_a_field_longer_than_csv_takes_by_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", as_csv([["text"], ["x " * 150_000], ["b"]]))
    assert [len(text) for text in good(path)] == [300_000, 1]


def test_a_csv_without_a_header_is_refused_in_one_short_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit belongs to the process: an earlier test may have raised it.
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 300_000)
    csv.field_size_limit(1 << 17)
    path = written(tmp_path / "a.csv", as_csv([["1", "x " * 100_000], ["2", "b"]]))
    with pytest.raises(DataError, match=r"a\.csv: no field 'text'; there are '1', 'x x ") as raised:
        refuse_unknown_field([path], "text")
    assert len(str(raised.value)) < 500


def test_a_csv_that_is_one_endless_line_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 50)
    (name,) = columns_of(written(tmp_path / "a.csv", "x" * 500), "text")
    assert len(name) == 50


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    text = 'One\n\n\ttwo "three" \\ \r\nfour\n'
    assert list(read_texts(written(tmp_path / "a.txt", text))) == [text]
    assert list(read_texts(written(tmp_path / "b.TXT", "\ufeff" + text))) == [text]
    assert list(read_texts(written(tmp_path / "c.txt.gz", gzip.compress(text.encode())))) == [text]
    assert list(read_texts(tmp_path / "a.txt", "content")) == [text]
    assert bad_rows(written(tmp_path / "d.txt", b"")) == [(1, "field 'text' is empty")]
    assert bad_rows(written(tmp_path / "e.txt", b"a\xff"))[0][1].startswith("invalid UTF-8")


def test_a_text_file_longer_than_a_document_is_cut_after_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 200)
    monkeypatch.setattr(plain_text, "PART_BYTES", 50)
    for text in ("港口很安静。\n" * 30, "港口很安静。" * 60):
        path = written(tmp_path / "a.txt", text)
        parts = list(read_texts(path))
        assert len(parts) > 5
        assert "".join(map(str, parts)) == text
        assert all(len(str(part).encode()) <= 50 for part in parts)


def test_a_long_file_that_is_no_utf8_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 200)
    monkeypatch.setattr(plain_text, "PART_BYTES", 50)
    documents = plain_text._documents(io.BytesIO(b"\x80" * 210))
    assert [len(part) for part in itertools.islice(documents, 6)] == [50, 50, 50, 50, 10]


FILES = {
    "a.json": JSON_FORMS["pretty array"],
    "b.json": JSON_FORMS["pretty objects"],
    "a.csv": as_csv([["id", "text"], *([str(i), text] for i, text in enumerate(TEXTS)), ["x"]]),
    "a.txt": "line\n" * 100,
}


@pytest.mark.parametrize("name", FILES)
def test_reading_goes_on_where_a_chunk_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 20)
    monkeypatch.setattr(chunks, "MAX_LINE_BYTES", 200)
    monkeypatch.setattr(plain_text, "PART_BYTES", 50)
    path = written(tmp_path / name, FILES[name])
    assert len(chunks_from_anywhere(path)) > 3


def test_the_table_of_formats_is_the_registry() -> None:
    page = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
    for known in FORMATS:
        rows = [row for row in page.splitlines() if row.startswith(f"| {known.name} (")]
        assert len(rows) == 1, known.name
        assert all(f"`{suffix}`" in rows[0] for suffix in known.suffixes)
