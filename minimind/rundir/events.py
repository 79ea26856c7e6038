"""The run's event log, which the launcher reads: preparing, started, resumed, checkpointed,
preempted, finished, failed.

The environment variable ``MINIMIND_EVENTS`` names the file. The batch script on the host
appends to it too, so every event is one ``O_APPEND`` write; readers skip blank lines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any

from minimind.rundir.metrics import MetricsLog

ENVIRONMENT_VARIABLE = "MINIMIND_EVENTS"

BEAT_SECONDS = 5.0

log = logging.getLogger(__name__)


class EventLog:
    """Appends events to a file, or does nothing when there is no file to append to."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = Path(path) if path else None
        self._file: MetricsLog | None = None
        self._beaten_at = float("-inf")

    @classmethod
    def from_environment(cls) -> EventLog:
        return cls(os.environ.get(ENVIRONMENT_VARIABLE))

    def append(self, event: str, **fields: Any) -> None:
        """Append ``{"time": UNIX_SECONDS, "event": EVENT, ...}``, durable when this returns.

        An event that cannot be written is logged as a warning: no bookkeeping stops a run.
        """
        if self.path is None:
            return
        try:
            if self._file is None:
                self._file = MetricsLog(self.path)
            self._file.write({"time": time.time(), "event": event, **fields})
        except OSError as error:
            log.warning("cannot record the event %r in %s: %s", event, self.path, error)

    def beat(self) -> None:
        """Show that the run gets on: the file's time changes, every ``BEAT_SECONDS`` at most.

        A run that trains or prepares may have no event, and no line of metrics, for very long.
        """
        now = time.monotonic()
        if self.path is None or now - self._beaten_at < BEAT_SECONDS:
            return
        self._beaten_at = now
        with contextlib.suppress(OSError):
            os.utime(self.path)
