"""What of the time after a rank's death went into what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.restart import _parts


def test_every_second_from_the_death_to_the_next_step_has_its_part(tmp_path: Path) -> None:
    events, points = tmp_path / "events.jsonl", tmp_path / "metrics.jsonl"
    starts = {"imports": 4.0, "ranks": 1.0}
    log = [
        {"time": 0, "event": "attempt_started"},
        {"time": 5, "event": "started", "seconds": starts},
        {"time": 20, "event": "checkpointed", "step": 10},
        {"time": 33, "event": "attempt_ended"},
        {"time": 34, "event": "attempt_started"},
        {"time": 40, "event": "started", "seconds": starts},
    ]
    events.write_text("".join(json.dumps(event) + "\n" for event in log))
    steps = [*((2.0 * n, n) for n in range(5, 16)), (42.0, 11)]
    lines = [json.dumps({"time": t, "global_step": n, "loss": 1.0}) for t, n in steps]
    points.write_text("\n".join([*lines, '{"time": 43, "glo']))
    parts = _parts(points, events, died_at=31.0)
    assert parts["total"] == pytest.approx(11.0)
    seen = ("end of the others", "queue", "launch", "imports", "ranks", "first step")
    assert [parts[name] for name in seen] == pytest.approx([2.0, 1.0, 1.0, 4.0, 1.0, 2.0])
    assert parts["lost steps"] == pytest.approx(5 * 2.0)
    assert parts["ledger"] == pytest.approx(21.0)
