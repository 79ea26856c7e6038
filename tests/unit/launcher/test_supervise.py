"""The supervisor of a Slurm job: what it reads from srun."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.supervise import StepRanks
from tests.e2e.lab import poll


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        ("srun: job 7 queued and waiting for resources", False),
        ("srun: error: n2: task 1: Exited with exit code 1", True),
        ("srun: error: n1: tasks 0-3: Killed", True),
        ("srun: error: n2: task 1: Exited with exit code 75", True),
    ],
)
def test_a_rank_that_has_left_is_seen(tmp_path: Path, said: str, broken: bool) -> None:
    log = tmp_path / "srun.log"
    ranks = StepRanks(["echo", said], {"PATH": "/usr/bin:/bin"}, log)
    poll(lambda: ranks.poll() is not None, "the end of echo")
    assert ranks.broken() is broken
