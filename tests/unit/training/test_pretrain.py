"""The moment when ranks begin to only note a stop."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from minimind.system.signals import StopFlag, StopRequested
from minimind.training.pretrain import meet_before_training


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
