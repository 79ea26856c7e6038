from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from minimind.system import durable
from minimind.system.durable import remove_temporaries, temporary_name, write_durably


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.touch()
    temporary_name(path).write_text("half")
    path.with_name(".a.json.elsewhere.7.tmp").write_text("half")
    temporary_name(other).write_text("another file's")
    remove_temporaries(path)
    assert set(tmp_path.iterdir()) == {path, temporary_name(other)}


def test_a_long_write_reaches_the_disk_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    sync_file = durable.sync_file

    def note(path: Path) -> None:
        sync_file(path)
        synced.set()

    def write(path: Path) -> None:
        path.write_text("the first half, ")
        synced.clear()
        assert synced.wait(60)
        path.write_text("the first half, the second")

    monkeypatch.setattr(durable, "sync_file", note)
    monkeypatch.setattr(durable, "FLUSH_SECONDS", 0.001)
    write_durably(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "the first half, the second"


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be advised")
def test_what_a_long_write_has_on_the_disk_leaves_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised = threading.Event()
    synced: list[int] = []
    sync_file, advise = durable.sync_file, os.posix_fadvise

    def note_sync(path: Path) -> None:
        sync_file(path)
        synced.append(path.stat().st_size)

    def note_advice(descriptor: int, offset: int, length: int, advice: int) -> None:
        advise(descriptor, offset, length, advice)
        assert advice == os.POSIX_FADV_DONTNEED
        assert (offset, length) == (0, 0), "not the whole file"
        if synced and synced[-1] == os.fstat(descriptor).st_size == 1 << 20:
            advised.set()

    def write(path: Path) -> None:
        path.write_bytes(bytes(1 << 20))
        assert advised.wait(60)

    monkeypatch.setattr(durable, "sync_file", note_sync)
    monkeypatch.setattr(os, "posix_fadvise", note_advice)
    monkeypatch.setattr(durable, "FLUSH_SECONDS", 0.001)
    write_durably(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == bytes(1 << 20)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be advised")
def test_a_file_system_that_takes_no_advice_fails_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()

    def refuse(*arguments: int) -> None:
        refused.set()
        raise OSError(errno.EINVAL, "Invalid argument")

    def write(path: Path) -> None:
        path.write_text("whole")
        assert refused.wait(60)

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    monkeypatch.setattr(durable, "FLUSH_SECONDS", 0.001)
    write_durably(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "whole"


def test_an_error_that_only_an_early_sync_was_told_of_fails_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("before")
    told = threading.Event()

    def sync_file(path: Path) -> None:
        if not told.is_set():
            told.set()
            raise OSError(errno.EIO, "Input/output error", str(path))

    def write(path: Path) -> None:
        path.write_text("lost")
        assert told.wait(60)

    monkeypatch.setattr(durable, "sync_file", sync_file)
    monkeypatch.setattr(durable, "FLUSH_SECONDS", 0.001)
    with pytest.raises(OSError, match="Input/output error"):
        write_durably(tmp_path / "a", write)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"
