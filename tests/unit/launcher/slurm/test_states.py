"""States and reasons as real controllers gave them, of jobs to which each thing was done.

The job's name says what. Slurm 22.05.8 (Debian bookworm), 24.11.5 (trixie), 26.05.5 (sid), in
November 2026.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.inspect import run_state as state
from launcher.slurm.parse import array_indices, parse_fields

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.txt"))
MEANT = {
    "requeuehold": state.HELD,
    "special": state.HELD,
    "held-then-requeued": state.HELD,
    "held-pending": state.HELD,
    "expedite": state.HELD,
    "held-running": state.RUNNING,
    "released": state.RUNNING,
    "suspended": state.RUNNING,
    "array": state.RUNNING,
}


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.stem)
def test_what_was_done_to_a_job_is_read_from_its_record(file: Path) -> None:
    seen = set()
    for line in file.read_text().splitlines():
        job = parse_fields(line)
        name = job["JobName"]
        if name in MEANT:
            now, reason, _ = state.slurm_state(job, started=True)
            assert now == MEANT[name], name
            assert ("after its next requeue" in reason) == (name == "held-running")
            seen.add(name)
        assert array_indices(job.get("ArrayTaskId", "")) or name != "array"
    assert seen >= MEANT.keys() - {"expedite"}


@pytest.mark.parametrize("reason", ["QOSUsageThreshold", "Priority", "Resources", "None"])
def test_what_only_sounds_like_a_hold_is_none(reason: str) -> None:
    assert state.slurm_state({"JobState": "PENDING", "Reason": reason}, False)[0] == state.PENDING


def test_a_job_that_slurm_starts_again_at_once_waits() -> None:
    assert state.slurm_state({"JobState": "EXPEDITING"}, started=True)[0] == state.REQUEUED
