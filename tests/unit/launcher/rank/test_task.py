"""What a rank does before the training runs in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.rank.task import report_step
from launcher.spec.run_folder import RunFolder


@pytest.mark.parametrize(("rank", "reported"), [("0", "3"), ("1", None)])
def test_the_first_rank_reports_its_step(
    rank: str, reported: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "2")
    report_step(run)
    assert run.reported_step(2) is None, "there is no such attempt"
    run.attempt_dir(2).mkdir(parents=True)
    report_step(run)
    assert run.reported_step(2) == reported


def test_a_rank_outside_slurm_reports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_PROCID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "2")
    run = RunFolder(tmp_path)
    run.attempt_dir(2).mkdir(parents=True)
    report_step(run)
    assert not run.step_file(2).exists()
