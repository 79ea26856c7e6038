"""The real training, which waits after a few steps for what a test does to it.

``HOLD_AFTER`` optimizer steps into each attempt every rank waits until it is told to stop, or until
the file ``HELD_UNTIL`` is there. So a run is as short as what happens to it, on any machine.
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


class Hold:
    """What the training calls before each micro-batch."""

    def __init__(self) -> None:
        self.first_step: int | None = None

    def __call__(self, trainer: Trainer) -> None:
        step = trainer.progress.global_step
        if self.first_step is None:
            self.first_step = step
        while step - self.first_step >= HOLD_AFTER and not HELD_UNTIL.exists():
            if trainer.stop.stop_flag.signal_number:
                break
            trainer.events.beat()
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(on_micro_batch=Hold()))
