from __future__ import annotations

import signal

import pytest
import torch

from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.system.signals import StopFlag
from minimind.training.stop import STOP_PATIENCE_SECONDS, Outcome, StopDecision


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


def test_a_signal_outweighs_the_time(decision: StopDecision) -> None:
    decision.deadline = 0.0
    assert decision.poll(0, 1.0, writing=False) is Outcome.TIME_IS_UP
    decision.stop_flag.signal_number = signal.SIGUSR1
    assert decision.poll(0, 1.0, writing=False) is Outcome.STOPPED
