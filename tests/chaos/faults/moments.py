"""When a fault happens, and how a signal is sent."""

from __future__ import annotations

import contextlib
import os
import time
from random import Random
from typing import Any

from tests.chaos.target import wait_for

ATTEMPTS = 5
"""How many may end of what came before, until a fault makes do with none under way."""


def some_moment(run: Any, rng: Random) -> str:
    """Wait for a moment of an attempt, and say in words which it was."""
    for _ in range(ATTEMPTS):
        run.ensure_running()
        draw = rng.random()
        if draw < 0.3:
            time.sleep(rng.uniform(0, run.start_seconds))
        elif draw < 0.45:
            steps(run, 1)
        else:
            steps(run, run.steps() + rng.randint(1, 30))
        # What an earlier fault began may end the attempt only now: then it is the next one's turn.
        if run.is_running() or run.is_over():
            break
    done = run.steps()
    return "while starting" if not done else "at the first steps" if done < 3 else "in training"


def steps(run: Any, count: int) -> None:
    """Wait until the attempt under way has begun ``count`` micro-steps, or has ended."""
    wait_for(lambda: run.steps() >= count or not run.is_running(), f"step {count}")


def later(run: Any, rng: Random) -> None:
    """Wait for some steps of training."""
    run.ensure_running()
    steps(run, run.steps() + rng.randint(1, 30))


def send(pid: int, number: int) -> None:
    """Signal a process, which may be gone by now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
