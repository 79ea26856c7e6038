"""Work before training that takes hours on a large corpus: seen to get on, and how far it is."""

from __future__ import annotations

import logging
import sys
import time

from minimind.rundir.events import EventLog, Kind

TELL_SECONDS = 60.0

log = logging.getLogger(__name__)


class Preparation:
    """Is told often how far it is, and tells the launcher and the log once a minute.

    A person at a terminal watches a bar instead of the log's lines.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told_at = time.monotonic()

    def __call__(self, what: str) -> None:
        self._events.beat()
        now = time.monotonic()
        if now - self._told_at < TELL_SECONDS:
            return
        self._told_at = now
        self._events.append(Kind.PREPARING, what=what)
        if not sys.stderr.isatty():
            log.info("%s", what)
