"""The real training, which crawls after a few steps until a test has done what it does to it.

``HOLD_AFTER`` optimizer steps into each attempt every rank takes its time over a step, until it is
told to stop or the file ``HELD_UNTIL`` is there. So a run is as short as what happens to it, on any
machine; and it still moves, since a rank that stood still would keep the others from stopping.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from minimind.train_pretrain import main
from minimind.training.trainer import Trainer

HOLD_AFTER = int(os.environ["HOLD_AFTER"])
HELD_UNTIL = Path(os.environ["HELD_UNTIL"])
STEP_SECONDS = 0.5


class Hold:
    """What the training calls before each micro-batch."""

    def __init__(self) -> None:
        self.first_step: int | None = None

    def __call__(self, trainer: Trainer) -> None:
        step = trainer.progress.global_step
        if self.first_step is None:
            self.first_step = step
        if step - self.first_step < HOLD_AFTER:
            return
        end = time.monotonic() + STEP_SECONDS
        while time.monotonic() < end and not HELD_UNTIL.exists():
            if trainer.stop.stop_flag.signal_number:
                break
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(on_micro_batch=Hold()))
