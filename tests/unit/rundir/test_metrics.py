import json
import math

import pytest

from minimind.rundir.metrics import archive_previous, points_at, read_metrics
from tests.jsonl import point, strict, write_all


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


def test_points_of_an_attempt_that_another_one_has_followed_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    mine = [point(n, loss=1.0, attempt=7) for n in (1, 2)]
    # A run of another name goes on in the same folder, with attempts of its own.
    resumed = {"event": "resumed", "global_step": 2, "attempt": 1, "time": 3.0}
    theirs = [point(n, loss=2.0, attempt=1) for n in (3, 4)]
    straggler = [point(n, loss=1.0, attempt=7) for n in (3, 9)]
    write_all(path, [*mine, resumed, theirs[0], *straggler, theirs[1]])
    assert read_metrics(path) == [*mine, resumed, *theirs]
    assert points_at(path, "loss", epoch=1, step=72, global_step=9) == []


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


@pytest.mark.parametrize("value", ['"NaN"', '"Infinity"', '"-Infinity"', "NaN", "Infinity"])
@pytest.mark.parametrize("field", ["loss", "tokens_per_second", "checkpoint_seconds", "grad_norm"])
def test_a_line_with_a_number_that_is_not_finite_is_kept(tmp_path, field, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"global_step": 1, "{field}": {value}}}\n')
    (record,) = read_metrics(path)
    assert not math.isfinite(record[field])


@pytest.mark.parametrize(
    "field",
    ['"time": NaN', '"step": "NaN"', '"step": 1.5', '"step": -1', '"loss": "low"', '"loss": true'],
)
def test_a_line_that_readers_cannot_compute_with_is_left_out(tmp_path, field):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"global_step": 1, {field}}}\n')
    assert read_metrics(path) == []
