"""The same text is the same store in any format; and stores of jsonl keep their names."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from benchmarks.formats import WRITERS
from minimind.data.formats.head import Head
from minimind.data.inputs import Source
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenize.cache import store_folder
from minimind.data.tools.dedup import dedup
from tests.unit.data.helpers import TEXTS, write_jsonl


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    pytest.importorskip("pyarrow")
    found = [write_jsonl(tmp_path / "a.jsonl", TEXTS)]
    for name, (suffix, write) in WRITERS.items():
        if name != "txt":
            write(tmp_path / f"a{suffix}", TEXTS)
            found.append(str(tmp_path / f"a{suffix}"))
    (tmp_path / "txt").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "txt" / f"{number}.txt").write_text(text, encoding="utf-8")
    return [*found, str(tmp_path / "txt")]


def test_every_format_makes_the_same_store(
    files: list[str], tmp_path: Path, tokenizer_path: str
) -> None:
    stores = [
        open_corpus([file], tokenizer_path, cache_dir=str(tmp_path / "cache"), n_workers=1)
        for file in files
    ]
    assert len({store.path for store in stores}) == len(files)
    assert {store.content_hash for store in stores} == {stores[0].content_hash}
    assert {store.n_bytes for store in stores} == {stores[0].n_bytes}


def test_bad_rows_of_parquet_are_listed_with_their_row_group(
    tmp_path: Path, tokenizer_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", None, "c"]}), path, row_group_size=2)
    with caplog.at_level(logging.WARNING):
        store = open_corpus([str(path)], tokenizer_path, cache_dir=str(tmp_path / "cache"))
    reason = "field 'text' is null, not a string"
    row = {"line": 3, "reason": reason, "preview": '{"text": null}', "row_group": 2}
    assert list(store.rejected()) == [{"file": str(path), **row}]
    assert f"the first is {path}: row group 2, row 3: {reason}" in caplog.text


def test_the_key_of_a_store_of_jsonl_is_what_it_always_was(tmp_path: Path) -> None:
    blob = Path(write_jsonl(tmp_path / "0123", TEXTS)).resolve()
    link = tmp_path / "a.jsonl"
    link.symlink_to(blob)
    for path in (blob, link):
        found = blob.stat()
        files = [[str(blob), found.st_size, found.st_mtime_ns]]
        parts = json.dumps([2, files, "text", "print"])
        key = hashlib.sha256(parts.encode()).hexdigest()[:32]
        folder = store_folder(str(tmp_path), [Source.of(path)], "text", "print")
        assert folder == tmp_path / f"tokens-{key}"


def test_a_name_that_decides_the_format_is_in_the_key(tmp_path: Path) -> None:
    blob = tmp_path / "0123"
    blob.write_text("id,text\n1,a\n")
    folders = set()
    for name in ("a.csv", "a.txt", "a.jsonl"):
        (tmp_path / name).symlink_to(blob)
        folders.add(store_folder(str(tmp_path), [Source.of(tmp_path / name)], "text", "print"))
    assert len(folders) == 3


def test_dedup_writes_rows_of_any_format_as_jsonl(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "unique.jsonl"
    found = dedup(files, out)
    assert (found["kept"], found["rows"]) == (len(TEXTS), len(files) * len(TEXTS))
    found = dedup([files[1]], tmp_path / "columns.jsonl")
    rows: list[Any] = list(map(json.loads, (tmp_path / "columns.jsonl").read_text().splitlines()))
    assert rows == [{"id": i, "text": text} for i, text in enumerate(TEXTS)]


def test_dedup_writes_no_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minimind.data import chunks

    monkeypatch.setattr(chunks, "CHUNK_BYTES", 50)
    path = Path(write_jsonl(tmp_path / "a.jsonl", TEXTS))
    dedup([str(path)], tmp_path / "unique.jsonl")
    assert (tmp_path / "unique.jsonl").read_bytes() == path.read_bytes()


def test_a_finished_store_is_found_with_one_look_at_each_file(
    tmp_path: Path, tokenizer_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        write_jsonl(folder / f"{number}.jsonl", [f"text {number}"])
    cache = str(tmp_path / "cache")
    built = open_corpus([str(folder)], tokenizer_path, cache_dir=cache, n_workers=1)
    looked: list[str] = []
    of = Head.of
    monkeypatch.setattr(Head, "of", lambda path: looked.append(path.name) or of(path))
    found = open_corpus([str(folder)], tokenizer_path, cache_dir=cache, n_workers=1)
    assert found.path == built.path
    assert sorted(looked) == sorted(path.name for path in folder.iterdir())
