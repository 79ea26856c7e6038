"""Fencing: a rank that a newer attempt has superseded leaves before it writes.

A rank on a node that Slurm lost lives on, and must not write where its successor does. So does
one whose local supervisor was killed: no signal is sure to reach it in a container or on another
machine, but it sees the run folder.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from launcher.spec.run_folder import RunFolder
from minimind.errors import EXIT_TERMINATED
from minimind.rundir import env

POLL_SECONDS = 2.0
FENCE_SECONDS = 3 * POLL_SECONDS
"""After this long every rank of an attempt before has seen that a newer one has begun."""
LAST_SAVE_SECONDS = 60.0
"""How long a rank whose run is over gets to save and leave."""
RUN_IS_OVER = "launcher: the run is over; this rank saves and stops\n"


def stand_back(run: RunFolder, *, local: bool) -> None:
    """Ends this process once a newer attempt has begun, and stops it once the run is over.

    ``local``: the run may be over and this rank live on. Slurm itself ends the ranks of its jobs.
    """
    attempt = env.attempt()

    def fence() -> None:
        over_at: float | None = None
        while True:
            if local and over_at is None and os.path.exists(run.stopped_marker):
                over_at = time.monotonic()
                os.write(2, RUN_IS_OVER.encode())
                os.kill(os.getpid(), signal.SIGTERM)
            if over_at is not None and time.monotonic() - over_at > LAST_SAVE_SECONDS:
                os._exit(EXIT_TERMINATED)
            if attempt and run.superseded(attempt):
                newer = run.current_attempt()
                message = f"launcher: attempt {newer} has begun; this rank is of {attempt}\n"
                os.write(2, message.encode())
                os._exit(EXIT_TERMINATED)
            time.sleep(POLL_SECONDS)

    threading.Thread(target=fence, name="fence", daemon=True).start()
