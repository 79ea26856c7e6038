"""Whose records a folder holds, and what becomes of them when another run begins."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from minimind.config import TrainConfig, write_config_file
from minimind.errors import MiniMindError
from minimind.training.audit import RowRecord, trim_row_records
from minimind.training.records import prepare_records

RECORDS = ("metrics.jsonl", "rows.rank0.jsonl", "rows.rank11.jsonl", "samples.jsonl")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """The flags of a run to step 5 that has left its records."""
    for name in RECORDS:
        (tmp_path / name).write_text('{"global_step": 4}\n')
    config = TrainConfig(save_dir=str(tmp_path))
    write_config_file(config, tmp_path / "config.toml")
    return config


def records(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jsonl"))


ARCHIVES = ["metrics.1.jsonl", "rows.rank0.1.jsonl", "rows.rank11.1.jsonl", "samples.1.jsonl"]


def test_the_same_run_goes_on_in_its_records(config: TrainConfig, tmp_path: Path) -> None:
    prepare_records(config, resumed_at=5)
    assert records(tmp_path) == sorted(RECORDS)


def test_a_fresh_run_archives_an_earlier_ones(config: TrainConfig, tmp_path: Path) -> None:
    prepare_records(config, resumed_at=None)
    assert records(tmp_path) == ARCHIVES
    assert all((tmp_path / name).read_text() for name in ARCHIVES)
    prepare_records(config, resumed_at=None)
    assert records(tmp_path) == ARCHIVES, "an archive is not archived again"


@pytest.mark.parametrize("theirs", [{"save_weight": "b"}, {"hidden_size": 64}, {"use_moe": 1}])
def test_a_resumed_run_archives_those_of_another(
    config: TrainConfig, tmp_path: Path, theirs: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    write_config_file(TrainConfig(**theirs), tmp_path / "config.toml")  # type: ignore[arg-type]
    prepare_records(config, resumed_at=5)
    assert records(tmp_path) == ARCHIVES
    assert f"{tmp_path} holds the records of another run" in caplog.text


@pytest.mark.parametrize("text", [None, "", "not = [toml", "epochs = 3\n"])
def test_records_of_which_nothing_is_known_are_gone_on_in(
    config: TrainConfig, tmp_path: Path, text: str | None
) -> None:
    (tmp_path / "config.toml").unlink()
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    prepare_records(config, resumed_at=5)
    assert records(tmp_path) == sorted(RECORDS)


def test_trimming_leaves_no_half_written_record(tmp_path: Path) -> None:
    record = tmp_path / "rows.rank1.jsonl"
    record.write_text('{"global_step": 0}\n{"global_step": 3}\n{"global_st')
    record.with_name(f".{record.name}.node.15920.tmp").write_text("half")
    trim_row_records(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == [record.name]
    assert record.read_text() == '{"global_step": 0}\n'


def test_a_record_with_nothing_to_drop_is_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "rows.rank0.jsonl"
    record.write_text('{"global_step": 0}\n')
    before = record.stat()
    trim_row_records(tmp_path, 3)
    assert record.stat().st_ino == before.st_ino


def test_a_row_record_without_room_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "rows.rank0.jsonl").symlink_to("/dev/full")
    record = RowRecord(tmp_path / "rows.rank0.jsonl")
    with pytest.raises(MiniMindError, match=r"rows.rank0.jsonl cannot be written: No space left"):
        record.write(epoch=0, step=1, global_step=0, rows=[1])
    record.close()


def test_a_row_record_that_is_refused_late_stops_the_run_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    record = RowRecord(tmp_path / "rows.rank0.jsonl")
    record.write(epoch=0, step=1, global_step=0, rows=[1])
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(MiniMindError, match=r"rows.rank0.jsonl cannot be written: Disk quota"):
        record.sync()
    RowRecord(None).sync()


def test_a_hole_in_an_audit_is_told(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a run that was not audited all the time."""
    audited = replace(config, record_rows=True)
    prepare_records(audited, resumed_at=5)
    prepare_records(config, resumed_at=9)
    assert "not on record" not in caplog.text
    prepare_records(audited, resumed_at=9)
    assert "rows of optimiser steps 5 to 8 are not on record" in caplog.text
