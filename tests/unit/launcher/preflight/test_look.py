"""The look itself: real processes on this machine, with a stand-in for srun."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launcher.preflight import look as looking
from launcher.preflight import node
from launcher.preflight.judge import Seen, judge
from launcher.preflight.look import look
from launcher.spec.run_folder import RunFolder

SRUN = """#!/bin/sh
# Runs a program as a step of one task on n1 and on n2 would: on this machine.
while [ "${1#-}" != "$1" ]; do shift; done
SLURMD_NODENAME=n1 "$@"
SLURMD_NODENAME=n2; export SLURMD_NODENAME
"""
ANSWERS = 'exec "$@"'
ENDS = "echo 'srun: error: n2: task 1: Exited with exit code 1' >&2"
HANGS = "exec sleep 600"


def look_at_two(folder: Path, second: str, limit: float = 60) -> Seen:
    srun = folder / "srun"
    srun.write_text(SRUN + second)
    srun.chmod(0o755)
    return look(RunFolder(folder), ["n1", "n2"], [str(srun), "--nodes=2"], "127.0.0.1", limit=limit)


def test_every_node_reports_what_it_sees(tmp_path: Path) -> None:
    seen = look_at_two(tmp_path, ANSWERS)
    assert {*seen.reports} == {"n1", "n2"}
    assert (seen.silent, seen.problem) == ([], "")
    for report in seen.reports.values():
        assert (report.folder, report.reach, report.late) == ("", "", ())
        assert report.shared_memory is not None
        assert report.clock is not None
        assert abs(report.clock) <= report.clock_within
    assert judge(seen, on_gpus=False).unfit == {}
    assert [path.name for path in tmp_path.iterdir()] == ["srun"]


def test_a_program_that_ends_there_without_a_report_is_a_problem_and_no_silence(
    tmp_path: Path,
) -> None:
    seen = look_at_two(tmp_path, ENDS)
    assert {*seen.reports} == {"n1"}
    assert seen.silent == []
    said = "n2 could not be looked at: srun: error: n2: task 1: Exited with exit code 1"
    assert seen.problem == said


def test_a_node_that_does_not_answer_in_time_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    read = looking.read_report
    monkeypatch.setattr(looking, "read_report", lambda line: answered.set() or read(line))
    # Its time begins when the other one has answered.
    monkeypatch.setattr(looking, "_wait", lambda done, seconds: not answered.wait(60))
    seen = look_at_two(tmp_path, HANGS)
    assert (seen.silent, seen.problem) == (["n2"], "")


def test_without_srun_nothing_is_known(tmp_path: Path) -> None:
    seen = look(RunFolder(tmp_path), ["n1", "n2"], [str(tmp_path / "srun")], "127.0.0.1")
    assert seen.reports == {}
    assert seen.problem == "the nodes could not be looked at: No such file or directory"


def test_the_only_node_looks_at_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    seen = look(RunFolder(tmp_path / "gone"), ["n7"], ["srun"], "n7")
    assert seen.reports["n7"].folder_code == "ENOENT"
    assert "No such file or directory" in judge(seen, on_gpus=False).everywhere


def test_a_batch_host_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with looking.Clock() as port:
        pass
    words = [sys.executable, *looking.NODE, str(tmp_path / "x"), "[]", "", "127.0.0.1", str(port)]
    answer = json.loads(subprocess.run(words, capture_output=True, text=True).stdout)
    assert answer["reach"] == f"127.0.0.1 port {port}: Connection refused"
    assert "clock" not in answer


def test_a_check_that_is_held_up_is_late_and_holds_up_no_other() -> None:
    over = threading.Event()

    def waits() -> dict[str, int]:
        over.wait()
        return {"never": 1}

    found = node.look({"folder": waits, "gpus": lambda: {"gpus": 2}}, 0.2)
    over.set()
    assert found == {"gpus": 2, "late": ["folder"]}
