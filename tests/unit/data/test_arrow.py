"""Parquet, Arrow files, Arrow streams, and what ``datasets`` keeps."""

from __future__ import annotations

import builtins
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from minimind.data import chunks
from minimind.data.chunks import BadRow
from minimind.data.formats import arrow
from minimind.data.formats.registry import format_of
from minimind.data.inputs import find_files
from minimind.data.rows import read_rows, read_texts
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS, chunks_from_anywhere

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write_parquet(path: Path, table: Any, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def write_file(path: Path, table: Any, rows: int = 2) -> Path:
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=rows)
    return path


def write_stream(path: Path, table: Any, rows: int = 2) -> Path:
    with pa.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=rows)
    return path


WRITERS = {"parquet": write_parquet, "arrow": write_file, "arrow stream": write_stream}


def rows(texts: list[Any] = TEXTS) -> dict[str, list[Any]]:
    return {"id": list(range(len(texts))), "text": list(texts)}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.arrow", "blob"])
def test_texts_come_from_the_column(tmp_path: Path, kind: str, name: str) -> None:
    path = WRITERS[kind](tmp_path / name, pa.table(rows()))
    assert format_of(path).name == kind
    assert list(read_texts(path)) == TEXTS


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]
)
@pytest.mark.parametrize("packed", ["none", "zstd", "snappy"])
def test_texts_of_any_type(tmp_path: Path, kind: Any, packed: str) -> None:
    table = pa.table({"text": pa.array([text.encode() for text in TEXTS], pa.binary()).cast(kind)})
    path = write_parquet(tmp_path / "a", table, compression=packed)
    assert list(read_texts(path)) == TEXTS
    coded = pa.table({"text": pa.array(TEXTS).dictionary_encode()})
    assert list(read_texts(write_stream(tmp_path / "b", coded, 10))) == TEXTS


@pytest.mark.parametrize("kind", WRITERS)
def test_fields_inside_of_structs(tmp_path: Path, kind: str) -> None:
    inner = [{"raw": {"text": t, "n": 1}} for t in TEXTS[:4]] + [None, {"raw": None}]
    table = pa.table({"meta": inner, "other": TEXTS})
    path = WRITERS[kind](tmp_path / "a", table)
    found = list(read_texts(path, "meta.raw.text"))
    assert found[:4] == TEXTS[:4]
    assert [row.reason for row in found[4:] if isinstance(row, BadRow)] == [
        "field 'meta.raw.text' is null, not a string"
    ] * 2
    named = pa.table({"meta.raw.text": TEXTS, "meta": inner})
    assert list(read_texts(WRITERS[kind](tmp_path / "b", named), "meta.raw.text")) == TEXTS


def test_bad_rows_have_their_row_group(tmp_path: Path) -> None:
    texts = ["a", None, "b", "", "c", "x\0"]
    path = write_parquet(tmp_path / "a.parquet", pa.table(rows(texts)), row_group_size=2)
    found = [row for row in read_texts(path) if isinstance(row, BadRow)]
    assert [(row.line, row.row_group, row.reason) for row in found] == [
        (2, 1, "field 'text' is null, not a string"),
        (4, 2, "field 'text' is empty"),
        (6, 3, "field 'text' contains a NUL byte"),
    ]


@pytest.mark.parametrize("kind", WRITERS)
def test_text_that_is_no_utf8_is_one_bad_row(tmp_path: Path, kind: str) -> None:
    broken = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\x01\0\0\0\x03\0\0\0\x04\0\0\0"), pa.py_buffer(b"ab\xffc")
    )
    path = WRITERS[kind](tmp_path / "a", pa.table({"text": broken}))
    for whole in (False, True):
        found = list(read_rows(path, whole=whole))
        assert [row.line for row in found if isinstance(row, BadRow)] == [2]
        assert [row.text for row in found if not isinstance(row, BadRow)] == ["a", "c"]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    "shape",
    ["list", "large list", "list view", "large list view", "struct", "list of structs", "map"],
)
def test_nested_text_that_is_no_utf8_is_one_bad_row(tmp_path: Path, kind: str, shape: str) -> None:
    broken = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\x01\0\0\0\x03\0\0\0\x04\0\0\0"), pa.py_buffer(b"ab\xffc")
    )
    each = pa.array([0, 1, 2, 3], pa.int32())
    ones, wide = pa.array([1, 1, 1], pa.int32()), each.cast(pa.int64())
    nested = {
        "list": lambda: pa.ListArray.from_arrays(each, broken),
        "large list": lambda: pa.LargeListArray.from_arrays(wide, broken),
        "list view": lambda: pa.ListViewArray.from_arrays(each[:3], ones, broken),
        "large list view": lambda: pa.LargeListViewArray.from_arrays(
            wide[:3], ones.cast(pa.int64()), broken
        ),
        "struct": lambda: pa.StructArray.from_arrays([broken], ["a"]),
        "list of structs": lambda: pa.ListArray.from_arrays(
            each, pa.StructArray.from_arrays([broken], ["a"])
        ),
        "map": lambda: pa.MapArray.from_arrays(each, pa.array(["k"] * 3), broken),
    }[shape]()
    path = WRITERS[kind](tmp_path / "a", pa.table({"text": ["x", "y", "z"], "more": nested}))
    found = list(read_rows(path, whole=True))
    (bad,) = (row for row in found if isinstance(row, BadRow))
    assert bad.line == 2
    assert bad.reason.startswith("invalid UTF-8 at byte ")
    assert [row.text for row in found if not isinstance(row, BadRow)] == ["x", "z"]
    assert [row.line for row in read_rows(path, "more") if isinstance(row, BadRow)] == [1, 2, 3]


def test_whole_rows_keep_their_other_fields(tmp_path: Path) -> None:
    day = datetime.date(2026, 11, 30)
    table = pa.table({"text": ["a"], "day": [day], "n": [[{"b": b"\xff"}]], "raw": [b"ok"]})
    (row,) = read_rows(write_parquet(tmp_path / "a", table), whole=True)
    assert not isinstance(row, BadRow)
    assert json.loads(row.data) == {
        "text": "a", "day": "2026-11-30", "n": [{"b": "/w=="}], "raw": "ok"
    }  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_wrong_column_names_those_that_are_there(tmp_path: Path, kind: str) -> None:
    table = pa.table({"id": [1], "meta": [{"content": "a"}]})
    path = WRITERS[kind](tmp_path / "a", table)
    with pytest.raises(DataError, match=r"a: no field 'text'; there are 'id', 'meta.content'; "):
        list(read_texts(path))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, kind: str, part: float) -> None:
    table = pa.table(rows([f"{i} " * 50 for i in range(200)]))
    whole = WRITERS[kind](tmp_path / "a", table).read_bytes()
    path = tmp_path / "b"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(DataError, match=r"b: damaged or incomplete (Parquet|Arrow) file \("):
        list(read_texts(path))


@pytest.mark.parametrize("kind", ["arrow", "arrow stream"])
def test_values_that_cannot_be_are_damage(tmp_path: Path, kind: str) -> None:
    """A time of day of 27 hours: what pyarrow's own check finds is never looked at."""
    time = pa.array([100_000], pa.int32()).view(pa.time32("s"))
    path = WRITERS[kind](tmp_path / "a", pa.table({"text": ["one"], "time": time}))
    with pytest.raises(DataError, match=r"a: damaged or incomplete Arrow file \(.*100000"):
        list(read_rows(path, whole=True))


def test_a_stream_without_an_end_mark_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_stream(tmp_path / "a", pa.table(rows()))
    path.write_bytes(path.read_bytes()[:-8])
    assert list(read_texts(path)) == TEXTS
    assert "has no end mark" in caplog.text


@pytest.mark.parametrize("kind", WRITERS)
def test_reading_goes_on_where_a_chunk_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 60)
    monkeypatch.setattr(arrow, "BATCH_BYTES", 50)
    table = pa.table(rows([f"row {i}" if i % 7 else None for i in range(40)]))
    options = {"row_group_size": 15} if kind == "parquet" else {"rows": 15}
    path = WRITERS[kind](tmp_path / "a", table, **options)
    found = chunks_from_anywhere(path)
    assert len(found) > 5
    if kind == "parquet":
        assert {chunk.row_group for chunk in found} == {1, 2, 3}


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.table(rows()))
    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(DataError, match=r"pip install 'minimind-cluster\[data\]'"):
        list(read_texts(path))


def save_to_disk(folder: Path, parts: list[list[str]]) -> Path:
    """As ``datasets`` does."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(parts):05}.arrow" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        write_stream(folder / name, pa.table({"text": part}))
    (folder / "cache-0123.arrow").write_bytes(b"left over")
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": n} for n in names]})
    )
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_what_datasets_saved(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "saved", [TEXTS[:4], TEXTS[4:]])
    files = find_files([str(folder)])
    assert [text for file in files for text in read_texts(file)] == TEXTS
    files[1].unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00002.arrow: is missing; .*state.json"):
        find_files([str(folder)])


def test_splits_that_datasets_saved(tmp_path: Path) -> None:
    both = tmp_path / "both"
    for split in ("train", "test"):
        save_to_disk(both / split, [TEXTS])
    (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"has the splits 'train', 'test'; name one, e.g. .*/train"):
        find_files([str(both)])
    assert find_files([str(both / "train")])
    (both / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert find_files([str(both)])[0].parent.name == "train"
