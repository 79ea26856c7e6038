"""The environment variables by which launcher and training tell each other what they need.

Standard library only.
"""

from __future__ import annotations

import os

from minimind.system import redact

EVENTS = "MINIMIND_EVENTS"
"""The event file that the training appends to."""
ATTEMPT = "LAUNCHER_ATTEMPT"
"""The number of the attempt that a rank belongs to, from 1."""
SECRETS = redact.VARIABLE
"""The names of the variables whose values are never shown, with commas between."""
RUNS = "MINIMIND_RUNS"
"""Where the launcher keeps its runs."""
RANK_STARTER = "MINIMIND_RANK_STARTER"
"""The process number of whoever started a rank with ``--procs``."""
CACHE = "MINIMIND_CACHE"
"""Where token stores are kept."""

RANK = "RANK"
WORLD_SIZE = "WORLD_SIZE"
LOCAL_RANK = "LOCAL_RANK"
LOCAL_WORLD_SIZE = "LOCAL_WORLD_SIZE"
MASTER_ADDR = "MASTER_ADDR"
MASTER_PORT = "MASTER_PORT"

PLACE = (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE)
"""torchrun's names for a rank's place."""

TORCHRUN_ID = "TORCHELASTIC_RUN_ID"
"""What torchrun alone sets."""


def attempt() -> int | None:
    """The number of the attempt that this process belongs to; None: no launcher started it."""
    text = os.environ.get(ATTEMPT, "")
    return int(text) if text.isdecimal() else None
