import errno
import math
import os
import signal
import subprocess
import sys

import pytest

from minimind.system import jsonl
from minimind.system.jsonl import JsonLog, append_durably, read_objects
from minimind.system.terminal import json_text
from tests.jsonl import point, strict, write_all


def test_one_record_goes_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "events.jsonl"
    append_durably(path, point(1))
    with path.open("ab") as file:
        file.write(b'{"global_step": 2, "lo')
    append_durably(path, point(3))
    assert read_objects(path) == [point(1), point(3)]


def test_a_record_that_the_disk_refuses_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    full_after(0, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        append_durably(path, point(1))


def test_what_is_no_object_is_left_out_and_no_file_is_empty(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_objects(path) == []
    path.write_bytes(b'\n[1]\n3\n{"a": 1}\r\n\xff\n' + b"[" * 100_000 + b"\n")
    assert read_objects(path) == [{"a": 1}]
    with pytest.raises(IsADirectoryError):
        read_objects(tmp_path)


def test_what_commands_print_is_json_whatever_the_numbers(tmp_path):
    text = json_text({"loss": math.nan, "all": [math.inf], "path": tmp_path})
    assert strict(text) == {"loss": "NaN", "all": ["Infinity"], "path": str(tmp_path)}


def test_tensors_and_numpy_scalars_become_numbers(tmp_path):
    np = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    path = tmp_path / "metrics.jsonl"
    write_all(path, [point(1, a=np.float32(1.5), b=torch.tensor(2), c=torch.tensor(math.nan))])
    record = strict(path.read_text())
    assert (record["a"], record["b"], record["c"]) == (1.5, 2, "NaN")


def full_after(bytes_left, monkeypatch):
    """A disk on which so many bytes find room; more when the returned list is given more."""
    left, real_write = [bytes_left], os.write

    def write(fd, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real_write(fd, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    return left


def test_what_a_full_disk_refuses_waits_and_is_written_in_order(tmp_path, monkeypatch, caplog):
    path = tmp_path / "metrics.jsonl"
    log = JsonLog(path)
    log.write(point(1))
    with monkeypatch.context() as patch:
        full_after(5, patch)
        for step in (2, 3, 4):
            log.write(point(step))
        assert read_objects(path) == [point(1)]
    log.write(point(5))
    assert read_objects(path) == [point(step) for step in (1, 2, 3, 4, 5)]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2, "one as the outage begins, one as it ends"
    assert f"{path} cannot be written: No space left on device" in warnings[0]
    assert f"{path} is written again" in warnings[1]


def test_an_outage_holds_back_so_many_lines_and_no_more(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(jsonl, "MOST_WAITING", 3)
    path = tmp_path / "metrics.jsonl"
    log = JsonLog(path)
    with monkeypatch.context() as patch:
        full_after(0, patch)
        for step in range(1, 6):
            log.write(point(step))
    log.write(point(6))
    assert read_objects(path) == [point(4), point(5), point(6)]
    assert "3 lines are lost" in caplog.text


def test_lines_that_still_wait_at_the_end_are_tried_once_more(tmp_path, monkeypatch, caplog):
    path = tmp_path / "metrics.jsonl"
    first, second = JsonLog(path), JsonLog(path)
    with monkeypatch.context() as patch:
        full_after(0, patch)
        first.write(point(1))
        second.write(point(2))
        second.close()
        assert "1 lines are lost" in caplog.text
    first.close()
    assert read_objects(path) == [point(1)]


def test_lines_that_a_refused_sync_has_lost_are_written_again(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    log = JsonLog(path)
    log.write(point(1))

    def lose(descriptor):
        """As a network file system does, whose writes reach the server with the sync."""
        os.truncate(path, len(path.read_bytes().splitlines(keepends=True)[0]))
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lose)
        log.write(point(2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: refuse(errno.EIO))
        log.write(point(3))
    log.write(point(4))
    assert read_objects(path) == [point(step) for step in (1, 2, 3, 4)]


def refuse(code):
    raise OSError(code, os.strerror(code))


def test_a_file_that_has_become_stale_is_opened_anew(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    log = JsonLog(path)
    log.write(point(1))
    stale = log._file._descriptor
    write = os.write

    def write_unless_stale(descriptor, data):
        return refuse(errno.ESTALE) if descriptor == stale else write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_unless_stale)
        log.write(point(2))
    # The number may be another file's by now: it is not used again.
    log.write(point(3))
    log.close()
    assert read_objects(path) == [point(1), point(2), point(3)]


def test_a_file_that_others_append_to_is_not_kept_open(tmp_path):
    path = tmp_path / "events.jsonl"
    log = JsonLog(path, shared=True)
    log.write(point(1))
    os.rename(path, tmp_path / "away")
    append_durably(path, point(2))
    log.write(point(3))
    assert read_objects(path) == [point(2), point(3)]


def test_a_record_is_synced_before_write_returns(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_text()))
    write_all(path, [point(1), point(2)])
    assert [text.count("\n") for text in synced if text] == [1, 2]


WRITER = """
import sys
from minimind.system.jsonl import JsonLog
log = JsonLog(sys.argv[1])
step = 0
while True:
    step += 1
    log.write({"epoch": int(sys.argv[2]), "step": step, "global_step": step, "pad": "x" * 2000})
    print(step, flush=True)
"""


def test_every_acknowledged_record_survives_sigkill(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for start in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        finally:
            writer.send_signal(signal.SIGKILL)
            rest, _ = writer.communicate()
        acknowledged += [int(step) for step in rest.split()]
        # What was being written may be whole, torn or absent: nobody was told that it is there.
        under_way = acknowledged[-1] + 1
        kept = [r["global_step"] for r in read_objects(path) if r["epoch"] == start]
        assert kept in (acknowledged, [*acknowledged, under_way])
    torn = [line for line in path.read_bytes().split(b"\n") if line and not line.endswith(b'"}')]
    assert len(torn) <= 3
    assert all(record["pad"] == "x" * 2000 for record in read_objects(path))
