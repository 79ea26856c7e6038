from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.system.signals import StopFlag, StopRequested
from minimind.training import stop
from minimind.training.stop import (
    STOP_PATIENCE_SECONDS,
    Outcome,
    StopDecision,
    meet_before_training,
)


@pytest.fixture
def decision() -> StopDecision:
    world = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    return StopDecision(TrainConfig(), world, StopFlag())


def test_nobody_wants_to_stop(decision: StopDecision) -> None:
    assert decision.poll(0, 1.0, writing=True) is Outcome.DONE
    assert decision.writing


def test_a_stop_waits_for_a_near_boundary_only(decision: StopDecision) -> None:
    decision.stop_flag.signal_number = signal.SIGTERM
    assert decision.poll(1, STOP_PATIENCE_SECONDS, writing=False) is Outcome.DONE
    assert decision.poll(2, STOP_PATIENCE_SECONDS, writing=False) is Outcome.STOPPED
    assert decision.poll(0, STOP_PATIENCE_SECONDS, writing=False) is Outcome.STOPPED


def test_a_stop_does_not_wait_again_and_again(
    decision: StopDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-steps that were expected to take a second take four."""
    now = 100.0
    monkeypatch.setattr(stop, "time", SimpleNamespace(monotonic=lambda: now))
    decision.stop_flag.signal_number = signal.SIGTERM
    assert decision.poll(3, 1.0, writing=False) is Outcome.DONE
    now += 4.0
    assert decision.poll(2, 1.0, writing=False) is Outcome.STOPPED


def test_a_signal_outweighs_the_time(decision: StopDecision) -> None:
    decision.deadline = 0.0
    assert decision.poll(0, 1.0, writing=False) is Outcome.TIME_IS_UP
    decision.stop_flag.signal_number = signal.SIGUSR1
    assert decision.poll(0, 1.0, writing=False) is Outcome.STOPPED


def test_only_a_signal_cuts_an_evaluation_short(decision: StopDecision) -> None:
    decision.deadline = 0.0
    assert not decision.is_asked(writing=False)
    assert not decision.is_asked_by_now(writing=False)
    decision.stop_flag.signal_number = signal.SIGTERM
    assert decision.is_asked(writing=False)
    assert decision.is_asked_by_now(writing=False)


class DesertedWorld:
    """A peer has left while we waited for it."""

    def barrier(self) -> None:
        raise RuntimeError("Connection closed by peer")


def test_a_rank_told_to_stop_whose_peers_have_left_stops() -> None:
    world: Any = DesertedWorld()
    told = StopFlag()
    told.signal_number = signal.SIGUSR2
    with pytest.raises(StopRequested, match="SIGUSR2"):
        meet_before_training(world, told)


def test_a_rank_that_was_not_told_fails_with_its_peers() -> None:
    world: Any = DesertedWorld()
    with pytest.raises(RuntimeError, match="closed by peer"):
        meet_before_training(world, StopFlag())
