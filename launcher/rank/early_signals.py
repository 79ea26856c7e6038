"""Stop signals that come before the training listens."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from minimind.system.signals import STOP_SIGNALS, heeded

POLL_SECONDS = 0.1


def hold_early_signals() -> None:
    """Keeps a stop signal that comes before the training listens, and hands it on when it does.

    Imports take seconds. submitit's own handlers would requeue the job from in here, and the
    default action would kill this rank while others already wait for it.
    """
    pending: list[signal.Signals] = []
    numbers = heeded(STOP_SIGNALS)

    def hold(signum: int, frame: FrameType | None) -> None:
        pending.append(signal.Signals(signum))

    def hand_on() -> None:
        while any(signal.getsignal(number) is hold for number in numbers):
            for number in [n for n in pending if signal.getsignal(n) is not hold]:
                pending.remove(number)
                os.kill(os.getpid(), number)
            time.sleep(POLL_SECONDS)
        for number in pending:
            os.kill(os.getpid(), number)

    for number in numbers:
        signal.signal(number, hold)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    threading.Thread(target=hand_on, name="early-signals", daemon=True).start()
