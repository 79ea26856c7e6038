"""Every command about runs, on run folders whose files are damaged or hostile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from launcher import cli
from launcher.slurm import client as slurm
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from minimind.errors import ConfigError
from tests.fuzz.damage import damaged_json, damaged_lines, fuzz, refused, say

SPEC: dict[str, Any] = {
    "name": "demo",
    "run_dir": "/r/demo",
    "workdir": "/w",
    "train_args": ["--epochs", "1"],
    "module": "minimind.train_pretrain",
    "cluster": "local",
    "nodes": 1,
    "gpus": 2,
    "request_gpus": False,
    "save_dir": "out",
    "partition": None,
    "time_minutes": 5,
    "sbatch": {"exclusive": True},
    "setup": ["module load x"],
    "image": None,
    "mounts": [{"source": "/a", "target": "/b", "read_only": True}],
    "env": {"A": "b"},
    "secret_env": ["TOKEN"],
    "max_restarts": 3,
    "hang_timeout": 1800,
}
EVENTS: list[Any] = [
    {"time": 1.0, "event": "submitted", "job_id": "5", "cluster": "local", "nodes": 1},
    {"time": 1.5, "event": "supervisor_started", "pid": 99, "host": "h", "began": "b 1"},
    {"time": 2.0, "event": "attempt_started", "attempt": 1, "nodes": ["n1"], "log_offset": 0},
    {"time": 3.0, "event": "started", "step": 0, "world_size": 2},
    {"time": 4.0, "event": "checkpointed", "step": 10, "stall_seconds": 0.1},
    {"time": 5.0, "event": "attempt_ended", "attempt": 1, "cause": "crash", "exit_code": 9,
     "step": 10, "progressed": True, "trained": True},
    {"time": 5.0, "event": "requeued", "attempt": 1, "by": "launcher", "cause": "crash"},
    {"time": 6.0, "event": "attempt_started", "attempt": 2, "nodes": ["n1", "n2"]},
    {"time": 7.0, "event": "resumed", "step": 10},
]  # fmt: skip
POINTS: list[Any] = [
    {"time": 3.0 + step, "epoch": 0, "step": step, "global_step": step, "total_steps": 100,
     "loss": 5.0 - step, "tokens_per_second": 10.0}
    for step in range(1, 4)
]  # fmt: skip
FINAL = {"cause": "crash", "exit_code": 9, "reason": "too many"}
LOG = b"hello\nTraceback (most recent call last):\n  File x\nValueError: no\n"


def write(folder: Path, spec: bytes, events: bytes, points: bytes, marker: bytes | None) -> None:
    run = folder / "demo"
    (run / "attempts" / "1").mkdir(parents=True)
    (run / "attempts" / "²").mkdir()
    (run / "attempts" / "1" / "rank-0.log").write_bytes(LOG)
    (folder / "out").mkdir()
    (folder / "out" / "metrics.jsonl").write_bytes(points)
    (run / "spec.json").write_bytes(spec)
    (run / "events.jsonl").write_bytes(events)
    if marker is not None:
        (run / "STOPPED").write_bytes(marker)


def with_folder(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**spec, "run_dir": str(folder / "demo"), "save_dir": str(folder / "out")}


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """No process outside of this one may ever be signalled: what would be, is noted."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(slurm, "available", lambda: False)
    return sent


@fuzz(data=st.data())
def test_commands_on_a_damaged_run(data: st.DataObject, signals: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = data.draw(st.sampled_from(["spec", "events", "points", "marker", "all"]))
        spec = with_folder(SPEC, folder)

        def drawn(own: str, valid: Any, damage: Callable[[Any], st.SearchStrategy[bytes]]) -> bytes:
            from tests.fuzz.damage import to_json

            if part in (own, "all"):
                return data.draw(damage(valid))
            return to_json(valid) if own != "events" and own != "points" else lines(valid)

        marker = drawn("marker", FINAL, damaged_json) if part in ("marker", "all") else None
        write(
            folder,
            drawn("spec", spec, damaged_json),
            drawn("events", EVENTS, damaged_lines),
            drawn("points", POINTS, damaged_lines),
            marker,
        )
        where = ["--runs-dir", name]
        for command in (["status"], ["status", "--json"], ["list"]):
            code, out, _ = say(cli.main, [*command, *where])
            assert code == 0, "one damaged run must not hide the others"
            assert "demo" in out
        for command in (["why", "demo"], ["logs", "demo"], ["status", "demo"], ["cancel", "demo"]):
            code, _, err = say(cli.main, [*command, *where])
            if code:
                refused(code, err)
    assert signals == [], "a process that is not its supervisor was signalled"


def lines(records: list[Any]) -> bytes:
    from tests.fuzz.damage import to_json

    return b"\n".join(map(to_json, records)) + b"\n"


@fuzz(text=damaged_json(SPEC))
def test_a_spec_is_read_whole_or_refused(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        run = RunFolder(name)
        run.spec_file.write_bytes(text)
        try:
            spec = run.spec()
        except ConfigError:
            return
        assert isinstance(spec, JobSpec)
        run.write_spec(spec)
        assert run.spec() == spec
