"""``minimind report`` on a real run: while it goes on, after it was killed, and when it is done."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from minimind.cli.report import main
from minimind.report.read import read_run
from minimind.rundir.events import SILENT_SECONDS
from tests.runs import Run, wait_until


def test_a_run_is_reported_at_every_stage_of_its_life(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("mine", sample_interval=6)
    metrics = run.save_dir / "metrics.jsonl"

    def report() -> dict[str, Any]:
        assert main([str(run.folder), "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["runs"]
        return found

    checkpoint = run.checkpoint_dir / "pretrain_32.pt"
    processes = run.start(held_at=12)
    # Without a checkpoint the next attempt would be the first of another run.
    wait_until(
        lambda: (
            (checkpoint.exists() and metrics.read_bytes().count(b"\n") >= 9)
            or not processes[0].is_alive()
        ),
        "nine points and a checkpoint",
    )
    going = report()
    assert (going["run"], going["state"]) == ("mine", "running")
    assert 0 < going["step"] < going["total_steps"]
    processes[0].kill()
    assert run.finish(processes) == [-signal.SIGKILL]

    killed = read_run(run.folder, clock=lambda: time.time() + 2 * SILENT_SECONDS)
    assert killed.state == "stopped"
    run.complete()
    done = report()
    assert (done["state"], done["step"]) == ("done", done["total_steps"])
    first, second = done["attempts"]
    # Saved every fourth micro-step at the latest boundary; a step is three of them.
    assert first["furthest_step"] == killed.step
    assert second["first_step"] == first["saved_step"] <= killed.step
    assert done["ledger"]["lost_steps"] == killed.step - second["first_step"]
    assert done["loss"] == pytest.approx(run.losses()[max(run.losses())][0])
    assert done["samples"] > 0
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "hidden_size</dt><dd>32<" in page
    assert "今天天气" in page
