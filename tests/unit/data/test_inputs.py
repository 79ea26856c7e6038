from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from minimind.data.inputs import Source, find_files
from minimind.data.rows import parse_rows, read_texts
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS, write_jsonl


def test_globs_are_sorted_and_files_count_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["b.jsonl", "a.jsonl", "c.jsonl"]
    for name in names:
        write_jsonl(tmp_path / name, TEXTS)
    (tmp_path / "d.jsonl").mkdir()
    found = find_files([str(tmp_path / "c.jsonl"), str(tmp_path / "*.jsonl")])
    assert [path.name for path in found] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert "more than once" in caplog.text


def test_a_file_name_may_look_like_a_glob(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a[1].jsonl", TEXTS)
    assert find_files([path]) == [Path(path)]


def compressed(path: Path, data: bytes) -> bytes:
    if path.suffix == ".gz":
        return gzip.compress(data)
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


ROWS = b"".join(json.dumps({"text": f"row {i} " + "abc" * i}).encode() + b"\n" for i in range(400))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_compressed_files_of_several_members(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(compressed(path, ROWS[:7000]) + compressed(path, ROWS[7000:]))
    assert list(read_texts(path)) == list(parse_rows(ROWS, 1, "text"))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut early", "cut late", "flipped", "rubbish after"])
def test_damaged_compressed_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    data = compressed(path, ROWS)
    middle = len(data) // 2
    path.write_bytes(
        {
            "cut early": data[:40],
            "cut late": data[:-2],
            "flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
            "rubbish after": data + b"rubbish that is no frame",
        }[damage]
    )
    with pytest.raises(DataError, match=rf"{name}: damaged or incomplete compressed file"):
        list(read_texts(path))


def test_empty_compressed_file_has_no_rows(tmp_path: Path) -> None:
    for name in ("a.jsonl.zst", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
        assert list(read_texts(tmp_path / name)) == []


def test_a_file_that_is_taken_away_while_it_is_read_is_named(tmp_path: Path) -> None:
    source = Source.of(Path(write_jsonl(tmp_path / "a.jsonl", TEXTS)))
    source.path.unlink()
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read: No such file"):
        source.refuse_change()
