from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from minimind.config import TrainConfig
from minimind.system.signals import StopFlag
from minimind.training import announce
from minimind.training.result import RunResult
from minimind.training.stop import Outcome


def test_a_stop_does_not_wait_long_for_the_loss_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(announce, "PICTURE_SECONDS_AFTER_STOP", 0.0)
    monkeypatch.setattr(announce, "plot_loss_curve", lambda *files: release.wait())
    result = RunResult.of(TrainConfig(save_dir=str(tmp_path)), stopped=True, global_step=3)
    with caplog.at_level("INFO"):
        announce.announce_end(result, Outcome.STOPPED, StopFlag())
    release.set()
    assert "no loss curve drawn: it took longer than 0 s after a stop" in caplog.text
    assert "stopped by another rank at optimiser step 3" in caplog.text


def test_any_other_end_draws_it_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(announce, "run_with_timeout", lambda work, limit: limits.append(limit))
    result = RunResult.of(TrainConfig(save_dir=str(tmp_path)), stopped=False, global_step=3)
    announce.announce_end(result, Outcome.DONE, StopFlag())
    announce.announce_end(result, Outcome.TIME_IS_UP, StopFlag())
    assert limits == [None, None]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_run_that_is_not_done_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outcome: Outcome,
) -> None:
    monkeypatch.setattr(announce, "plot_loss_curve", lambda *files: None)
    result = RunResult.of(TrainConfig(save_dir=str(tmp_path)), stopped=False, global_step=3)
    with caplog.at_level("INFO"):
        announce.announce_end(result, outcome, StopFlag())
    said = "go on with the same command and --from_resume 1" in caplog.text
    assert said == (outcome is not Outcome.DONE)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({}, "--recipe fast: --optimizer muon --warmup_ratio 0.05"),
        (
            {"optimizer": "adamw", "warmup_ratio": 0.2},
            "--recipe fast: sets nothing; but --optimizer adamw instead of muon, --warmup_ratio "
            "0.2 instead of 0.05, --learning_rate 0.0005 instead of 0.005",
        ),
    ],
)
def test_what_goes_against_a_recipe_is_named(flags: dict[str, Any], says: str) -> None:
    assert announce.recipe_line(TrainConfig(recipe="fast", **flags)) == says
