import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.rundir import metrics
from minimind.rundir.metrics import MetricsLog, archive_previous, read_metrics


def point(global_step: int, **fields):
    return {"epoch": 1, "step": global_step * 8, "global_step": global_step, **fields}


def write_all(path: Path, records):
    log = MetricsLog(path)
    for record in records:
        log.write(record)
    log.close()


def strict(line: str):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    records = [point(1, loss=2.5), point(2, loss=2.0, note="中文\n二")]
    write_all(path, records[:1])
    write_all(path, records[1:])
    assert read_metrics(path) == records
    assert path.read_bytes().count(b"\n") == 2


def test_non_finite_numbers_are_strict_json_and_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_all(path, [point(1, loss=math.nan, grad_norm=math.inf, memory={"x": [-math.inf]})])
    assert strict(path.read_text()) == point(
        1, loss="NaN", grad_norm="Infinity", memory={"x": ["-Infinity"]}
    )
    (record,) = read_metrics(path)
    assert math.isnan(record["loss"])
    assert record["grad_norm"] == math.inf


def test_tensors_and_numpy_scalars_become_numbers(tmp_path):
    np = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    path = tmp_path / "metrics.jsonl"
    write_all(path, [point(1, a=np.float32(1.5), b=torch.tensor(2), c=torch.tensor(math.nan))])
    record = strict(path.read_text())
    assert (record["a"], record["b"], record["c"]) == (1.5, 2, "NaN")


def test_a_torn_last_line_is_skipped_and_never_glued_to_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_all(path, [point(1)])
    with path.open("ab") as file:
        file.write(b'{"global_step": 2, "lo')
    assert read_metrics(path) == [point(1)]
    write_all(path, [point(3)])
    assert read_metrics(path) == [point(1), point(3)]


def test_a_line_torn_within_a_character_and_foreign_lines_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"t": "\xe4\xb8\n\n[1]\n3\n' + json.dumps(point(1)).encode() + b"\n\xe4")
    assert read_metrics(path) == [point(1)]


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
    log = MetricsLog(path)
    log.write(point(1))
    with monkeypatch.context() as patch:
        full_after(5, patch)
        for step in (2, 3, 4):
            log.write(point(step))
        assert read_metrics(path) == [point(1)]
    log.write(point(5))
    assert read_metrics(path) == [point(step) for step in (1, 2, 3, 4, 5)]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2, "one as the outage begins, one as it ends"
    assert f"{path} cannot be written: No space left on device" in warnings[0]
    assert f"{path} is written again" in warnings[1]


def test_an_outage_holds_back_so_many_lines_and_no_more(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "MOST_WAITING", 3)
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    with monkeypatch.context() as patch:
        full_after(0, patch)
        for step in range(1, 6):
            log.write(point(step))
    log.write(point(6))
    assert read_metrics(path) == [point(4), point(5), point(6)]
    assert "3 lines are lost" in caplog.text


def test_lines_that_still_wait_at_the_end_are_tried_once_more(tmp_path, monkeypatch, caplog):
    path = tmp_path / "metrics.jsonl"
    first, second = MetricsLog(path), MetricsLog(path)
    with monkeypatch.context() as patch:
        full_after(0, patch)
        first.write(point(1))
        second.write(point(2))
        second.close()
        assert "1 lines are lost" in caplog.text
    first.close()
    assert read_metrics(path) == [point(1)]


def test_resume_takes_back_the_points_after_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    resumed = {"event": "resumed", "global_step": 20}
    write_all(
        path,
        [
            {"event": "started", "global_step": 0},
            point(10, loss=3.0),
            point(20, loss=2.0),
            point(20, eval_loss=2.2),
            point(30, loss=1.0),
            point(30, eval_loss=1.5),
            resumed,
            point(30, loss=1.0, second=True),
        ],
    )
    assert read_metrics(path) == [
        {"event": "started", "global_step": 0},
        point(10, loss=3.0),
        point(20, loss=2.0),
        point(20, eval_loss=2.2),
        resumed,
        point(30, loss=1.0, second=True),
    ]


def test_several_resumes_leave_every_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    steps = [1, 2, 3, 4, "resume 2", 3, 4, 5, 6, "resume 5", 6, 7, "resume 3", 4, 5, 6, 7, 8]
    write_all(
        path,
        [
            point(s) if isinstance(s, int) else {"event": "resumed", "global_step": int(s[7:])}
            for s in steps
        ],
    )
    points = [r["global_step"] for r in read_metrics(path) if "event" not in r]
    assert points == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_micro_step_logged_again_at_the_same_optimiser_step_counts_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    early = {"epoch": 1, "step": 20, "global_step": 2, "loss": 1.0}
    middle = {"epoch": 1, "step": 23, "global_step": 2, "loss": 1.1}
    resumed = {"event": "resumed", "global_step": 2}
    write_all(path, [early, middle, resumed, middle])
    assert read_metrics(path) == [early, resumed, middle]


def test_a_record_is_synced_before_write_returns(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_text()))
    write_all(path, [point(1), point(2)])
    assert [text.count("\n") for text in synced if text] == [1, 2]


def test_no_file_reads_as_nothing(tmp_path):
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_archive_never_overwrites(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert archive_previous(path) is None
    path.touch()
    assert archive_previous(path) is None
    for text in ("first", "second", "third"):
        path.write_text(text)
        archive_previous(path)
    assert not path.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.1.jsonl",
        "metrics.2.jsonl",
        "metrics.3.jsonl",
    ]
    assert (tmp_path / "metrics.1.jsonl").read_text() == "first"
    assert (tmp_path / "metrics.3.jsonl").read_text() == "third"


WRITER = """
import sys
from minimind.rundir.metrics import MetricsLog
log = MetricsLog(sys.argv[1])
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
        kept = [r["global_step"] for r in read_metrics(path) if r["epoch"] == start]
        assert kept in (acknowledged, [*acknowledged, under_way])
    torn = [line for line in path.read_bytes().split(b"\n") if line and not line.endswith(b'"}')]
    assert len(torn) <= 3
    assert all(record["pad"] == "x" * 2000 for record in read_metrics(path))
