"""When training stops before its end: a signal, or the time that it was given."""

from __future__ import annotations

import enum
import time

from minimind.config import TrainConfig
from minimind.distributed.stop_consensus import Agreement
from minimind.distributed.world import World
from minimind.errors import LostRankError
from minimind.system.signals import StopFlag, StopRequested

STOP_PATIENCE_SECONDS = 5.0
"""A stop waits this long for the optimiser step under way; otherwise that step is given up.

A given-up step costs its micro-steps again after the resume and nothing else: weights and
optimiser have not changed since the boundary before it.
"""


class Outcome(enum.IntEnum):
    """How training ended. Ranks agree on the largest."""

    DONE = 0
    TIME_IS_UP = 1
    STOPPED = 2


class StopDecision:
    """Lets all ranks stop at the same micro-step."""

    def __init__(self, config: TrainConfig, world: World, stop_flag: StopFlag) -> None:
        self.stop_flag = stop_flag
        self.deadline = float("inf")
        """``time.monotonic()`` at which --max_minutes is over."""
        if config.max_minutes:
            self.deadline = time.monotonic() + config.max_minutes * 60
        self.writing = False
        """Whether rank 0 is writing a checkpoint, as all ranks know alike."""
        self._asked_at = float("inf")
        self._agreement = Agreement(world.world_size)

    def poll(self, micro_steps: int, micro_seconds: float, *, writing: bool) -> Outcome:
        """Ask all ranks; a stop between boundaries waits for the next if it is near.

        What it has waited already counts, in case the micro-steps take longer than expected.

        Args:
            micro_steps: as many are left to the next boundary.
            micro_seconds: how long one is expected to take.
            writing: whether this rank is writing a checkpoint.
        """
        wish, wait = self._ask(micro_steps * micro_seconds, writing)
        if micro_steps > 0 and wait <= STOP_PATIENCE_SECONDS:
            return Outcome.DONE
        return wish

    def is_asked(self, *, writing: bool) -> bool:
        """Ask all ranks whether a signal wants them to leave what is no training.

        Time that is up does not: such a run ends with an evaluation and samples.
        """
        return self._ask(0.0, writing)[0] is Outcome.STOPPED

    def is_asked_by_now(self, *, writing: bool) -> bool:
        """The same, but as all ranks know it at this moment: they wait for each other."""
        return self.is_asked(writing=writing) or self.is_asked(writing=writing)

    def _ask(self, wait: float, writing: bool) -> tuple[Outcome, float]:
        """The strongest wish of all ranks, and the longest wait."""
        wish, now = Outcome.DONE, time.monotonic()
        if self.stop_flag.signal_number:
            wish = Outcome.STOPPED
        elif now > self.deadline:
            wish = Outcome.TIME_IS_UP
        if wish is not Outcome.DONE:
            self._asked_at = min(self._asked_at, now)
            wait += now - self._asked_at
        agreed_wish, agreed_wait, agreed_writing = self._agreement.poll(
            float(wish), wait, float(writing)
        )
        self.writing = agreed_writing > 0
        return Outcome(int(agreed_wish)), agreed_wait

    def settle(self) -> None:
        """Wait until all ranks have said what the last poll asked them."""
        self._agreement.settle()

    def drain(self) -> None:
        """Let no rank leave a reduction half done."""
        self._agreement.drain()


def meet_before_training(world: World, stop_flag: StopFlag) -> None:
    """Let no rank train before every rank only takes note of a stop.

    From then on a rank that shows no progress is waited for as long as in any other exchange.

    Raises:
        StopRequested: this rank was asked to stop, and one that was still preparing has gone.
    """
    try:
        world.barrier()
    except (RuntimeError, LostRankError) as error:
        if stop_flag.signal_name is None:
            raise
        raise StopRequested(stop_flag.signal_name) from error
    world.begin_training()
