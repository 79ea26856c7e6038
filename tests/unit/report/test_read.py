from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minimind.errors import ConfigError
from minimind.report.read import read_run
from tests.unit.report.folders import (
    EVENTS,
    METRICS,
    START,
    evaluation,
    point,
    sample,
    write_done,
    write_lines,
    write_output,
    write_run,
)


def test_a_run_that_is_done(tmp_path: Path) -> None:
    run = read_run(write_done(tmp_path / "mine", samples=[sample(50), sample(100)]))
    assert (run.name, run.state, run.launched) == ("mine", "done", True)
    assert (run.step, run.total_steps) == (100, 100)
    # Steps 50 and 60 were trained twice and are shown once.
    assert [p["global_step"] for p in run.points] == list(range(10, 110, 10))
    assert run.last("eval_loss") == evaluation(100)["eval_loss"]
    assert run.typical("tokens_per_second") == 1000.0
    assert run.resumed_at == [40]
    assert [s["global_step"] for s in run.samples] == [50, 100]
    assert [(a.cause, a.lost_steps) for a in run.account.attempts] == [
        ("node_failure", 20),
        ("done", 0),
    ]
    assert run.submission == {"cluster": "slurm", "partition": "low", "nodes": 2}


def test_a_run_under_way_with_half_a_line_at_the_end(tmp_path: Path) -> None:
    root = write_run(tmp_path / "going", EVENTS[:4], METRICS[:5])
    for file in ("events.jsonl", "out/metrics.jsonl"):
        with open(root / file, "ab") as log:
            log.write(b'{"time": 18000000')
    run = read_run(root, clock=lambda: START + 72)
    assert (run.state, run.reason, run.step) == ("running", "", 50)
    assert run.account.total == pytest.approx(72)
    assert run.account.attempts[0].ended is None
    assert run.account.lost_steps == 0


def test_a_launched_run_without_a_sign_of_life_is_remarked_upon(tmp_path: Path) -> None:
    root = write_run(tmp_path / "silent", EVENTS[:4], METRICS[:5])
    run = read_run(root, clock=lambda: START + 70 + 3600)
    assert run.state == "running"
    assert "no sign of life for 1 h 0 min" in run.reason


def test_a_run_that_waits_has_nothing_but_its_submission(tmp_path: Path) -> None:
    write_lines(tmp_path / "events.jsonl", EVENTS[:1])
    run = read_run(tmp_path, clock=lambda: START + 30)
    assert (run.state, run.step, run.points, run.config) == ("waiting", 0, [], {})
    assert run.account.seconds("queue") == 30


def test_a_run_that_failed_before_its_first_step(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "events.jsonl",
        [
            *EVENTS[:2],
            {"time": START + 12, "event": "failed", "error": "DataError: no such file"},
            {"time": START + 13, "event": "attempt_ended", "attempt": 1, "cause": "config"},
            {"time": START + 13, "event": "run_ended", "cause": "config"},
        ],
    )
    (tmp_path / "STOPPED").write_text('{"cause": "config", "reason": "bad data"}')
    run = read_run(tmp_path)
    assert (run.state, run.reason, run.step) == ("failed", "bad data", 0)
    (attempt,) = run.account.attempts
    assert (attempt.error, attempt.trained) == ("DataError: no such file", False)
    assert run.account.goodput == 0.0


def test_without_a_launcher_the_lock_is_the_pulse(tmp_path: Path) -> None:
    out = write_output(tmp_path / "mine" / "out", METRICS[:6])
    assert read_run(out).state == "stopped"
    lock = tmp_path / "mine" / "checkpoints" / "pretrain_512.lock"
    lock.parent.mkdir()
    lock.touch()
    os.utime(lock, (START + 90, START + 90))
    going = read_run(out, clock=lambda: START + 100)
    assert (going.name, going.state, going.now) == ("mine", "running", START + 100)
    assert read_run(out, clock=lambda: START - 500).state == "stopped", "a lock from the future"
    killed = read_run(out, clock=lambda: START + 500)
    assert (killed.state, killed.now) == ("stopped", METRICS[5]["time"])
    write_lines(out / "metrics.jsonl", [point(100)])
    assert read_run(out, clock=lambda: START + 500).state == "done"


def test_the_folder_above_an_output_folder_will_do(tmp_path: Path) -> None:
    write_output(tmp_path / "mine" / "out", METRICS)
    assert read_run(tmp_path / "mine").step == 100
    assert read_run(tmp_path / "mine").name == "mine"


def test_a_run_that_died_before_its_first_point_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("starting\n")
    run = read_run(tmp_path)
    assert (run.state, run.points, run.account.spans) == ("stopped", [], [])


def test_save_dir_may_be_elsewhere(tmp_path: Path) -> None:
    out = write_output(tmp_path / "elsewhere", METRICS)
    root = tmp_path / "run"
    write_lines(root / "events.jsonl", EVENTS)
    (root / "spec.json").write_text(json.dumps({"save_dir": str(out)}))
    assert read_run(root).step == 100


def test_a_point_of_a_sweep_is_called_as_the_launcher_calls_it(tmp_path: Path) -> None:
    write_run(tmp_path / "rates" / "3")
    (tmp_path / "rates" / "sweep.json").write_text("{}")
    assert read_run(tmp_path / "rates" / "3").name == "rates/3"


def test_checkpoints_of_other_runs_in_the_folder_are_not_shown(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", METRICS, use_moe=1, hidden_size=64)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    names = ("pretrain_64_moe.pt", "pretrain_64_moe.step7.pt", "pretrain_64.pt", "other_64_moe.pt")
    for age, name in enumerate(names):
        (folder / name).write_bytes(b"12345")
        os.utime(folder / name, (START - age, START - age))
    (out / "pretrain_64_moe.pth").write_bytes(b"123")
    os.utime(out / "pretrain_64_moe.pth", (START + 9, START + 9))
    assert read_run(out).checkpoints == [
        ("pretrain_64_moe.pth", 3, START + 9),
        ("pretrain_64_moe.pt", 5, START),
        ("pretrain_64_moe.step7.pt", 5, START - 1),
    ]


def test_what_is_no_run_is_told_with_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no folder; name a run folder"):
        read_run(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"neither metrics\.jsonl nor events\.jsonl"):
        read_run(tmp_path)
    (tmp_path / "pretrain_512.pt").touch()
    with pytest.raises(ConfigError, match=r"holds checkpoints only"):
        read_run(tmp_path)
