"""A rank that waits tells those who get on from those who do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minimind.distributed.pulse import Sign, Watch, raise_of_leavers
from minimind.errors import LostRankError
from minimind.system.awake import AwakeClock
from minimind.system.signals import StopRequested


class Wait:
    """Rank 0 waits for ranks 1 and 2, whose signs it reads every five seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pulse: Any = SimpleNamespace(patience=120.0, interval=5.0, looks=0, seen={})
        self.watch = Watch(self.pulse, AwakeClock(10.0, now=lambda: self.now))

    def look(self, *signs: Sign, seconds: float = 5.0) -> None:
        self.now += seconds
        self.pulse.looks += 1
        self.pulse.seen = dict(enumerate(signs, 1))
        self.watch.check()


def test_a_rank_that_gets_on_is_waited_for_as_long_as_it_does() -> None:
    wait = Wait()
    for beats in range(1000):
        wait.look(Sign("n1", beats), Sign("n2", beats))


def test_one_that_does_not_is_named_after_two_minutes() -> None:
    wait = Wait()
    for beats in range(25):
        wait.look(Sign("n1", beats), Sign("n2", 7, "compiling"))
    assert wait.now == 125
    with pytest.raises(
        LostRankError, match=r"^rank 2 on n2 has shown no progress for 120 s while compiling; look"
    ):
        wait.look(Sign("n1", 25), Sign("n2", 7, "compiling"))


def test_time_in_which_this_rank_could_not_run_does_not_count() -> None:
    wait = Wait()
    signs = Sign("n1", 1), Sign("n2", 1)
    for _ in range(10):
        wait.look(*signs)
    wait.look(*signs, seconds=3600.0)
    wait.look(Sign("n1", 2), Sign("n2", 2))


def test_a_store_that_does_not_answer_is_rank_0_s() -> None:
    wait = Wait()
    wait.look(Sign("n1", 1), Sign("n2", 1))
    for _ in range(24):
        wait.now += 5.0
        wait.watch.check()
    wait.now += 5.0
    with pytest.raises(LostRankError, match=r"^rank 0, where the ranks meet, has not answered"):
        wait.watch.check()


def test_why_another_rank_has_left_is_raised_here() -> None:
    raise_of_leavers({1: Sign("n1"), 2: Sign("n2")})
    with pytest.raises(StopRequested, match="SIGUSR1"):
        raise_of_leavers({1: Sign("n1", left="StopRequested: SIGUSR1", stop="SIGUSR1")})
    with pytest.raises(LostRankError, match=r"^rank 2 on n2 has ended: no space left$") as raised:
        raise_of_leavers({1: Sign("n1"), 2: Sign("n2", left="no space left", code=2)})
    assert raised.value.exit_code == 2
