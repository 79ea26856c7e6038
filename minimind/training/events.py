"""The run's event log, which the launcher reads: started, resumed, checkpointed, preempted,
finished, failed.

The environment variable ``MINIMIND_EVENTS`` names the file. The batch script on the host
appends to it too, so every event is one ``O_APPEND`` write; readers skip blank lines.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from minimind.training.metrics import MetricsLog

ENVIRONMENT_VARIABLE = "MINIMIND_EVENTS"

log = logging.getLogger(__name__)


class EventLog:
    """Appends events to a file, or does nothing when there is no file to append to."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = Path(path) if path else None
        self._file: MetricsLog | None = None

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
