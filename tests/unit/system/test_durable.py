from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from minimind.system import durable
from minimind.system.durable import (
    folder_when_done,
    remove_abandoned,
    remove_temporaries,
    sync_folder,
    temporary_name,
    write_durably,
    write_text_durably,
)


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.touch()
    temporary_name(path).write_text("half")
    path.with_name(".a.json.elsewhere.7.tmp").write_text("half")
    others = temporary_name(other)
    others.write_text("another file's")
    remove_temporaries(path)
    assert set(tmp_path.iterdir()) == {path, others}


def test_only_what_nobody_writes_any_more_is_abandoned(tmp_path: Path) -> None:
    path, host = tmp_path / "a.json", os.uname().nodename
    mine, young = temporary_name(path), tmp_path / ".a.json.other.host.7.00ff00ff.tmp"
    old, dead = young.with_suffix(".2.tmp"), tmp_path / f".a.json.{host}.{2**30}.00ff00ff.tmp"
    folder = dead.with_name(dead.name.replace("00ff", "11ff"))
    for half in (mine, young, old, dead):
        half.write_text("half")
    (folder / "inside").mkdir(parents=True)
    os.utime(old, (0, 0))
    remove_abandoned(path)
    assert set(tmp_path.iterdir()) == {mine, young}


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


def refuse(code: int) -> Callable[..., None]:
    def refused(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return refused


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_text_that_could_not_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "config.toml"
    write_text_durably(path, "epochs = 7\n")
    monkeypatch.setattr(os, call, refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write_text_durably(path, "epochs = 8\n")
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]
    assert path.read_text() == "epochs = 7\n"


def test_a_secret_text_is_closed_from_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_text_durably(tmp_path / "secrets.json", "{}", mode=0o600)
    assert modes[0] == 0o600
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_short_text_starts_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", refuse(errno.EAGAIN))
    write_text_durably(tmp_path / "a", "short")
    assert (tmp_path / "a").read_text() == "short"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folders_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", refuse(code))
    sync_folder(tmp_path)


def test_a_folder_that_the_disk_refuses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_a_folder_takes_its_name_when_all_in_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync_file = durable.sync_file
    monkeypatch.setattr(durable, "sync_file", lambda p: (synced.append(p.name), sync_file(p)))
    with folder_when_done(tmp_path / "model", lambda: synced.append("now")) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "deep").write_text("deep")
        (folder / "top").write_text("top")
        assert not (tmp_path / "model").exists()
    assert sorted(synced[:2]) == ["deep", "top"]
    assert synced[2:] == ["now"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "inner" / "deep").read_text() == "deep"


def test_a_folder_that_could_not_be_filled_leaves_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with contextlib.suppress(ValueError), folder_when_done(tmp_path / "model") as folder:
        (folder / "a").write_text("half")
        raise ValueError
    assert [p.name for p in tmp_path.rglob("*")] == ["model"]
