from __future__ import annotations

from pathlib import Path

from minimind.training.durable import remove_temporaries, temporary_name
from minimind.training.row_record import trim_row_records


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.touch()
    temporary_name(path).write_text("half")
    path.with_name(".a.json.elsewhere.7.tmp").write_text("half")
    temporary_name(other).write_text("another file's")
    remove_temporaries(path)
    assert set(tmp_path.iterdir()) == {path, temporary_name(other)}


def test_trimming_leaves_no_half_written_record(tmp_path: Path) -> None:
    record = tmp_path / "rows.rank1.jsonl"
    record.write_text('{"global_step": 0}\n{"global_step": 3}\n{"global_st')
    record.with_name(f".{record.name}.node.15920.tmp").write_text("half")
    trim_row_records(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == [record.name]
    assert record.read_text() == '{"global_step": 0}\n'
