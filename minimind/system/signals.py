"""Being asked to stop: the signals, and the flag that they leave. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class StopRequested(BaseException):
    """A stop was asked for before training began, when there is nothing to save yet."""


class StopFlag:
    """Remembers the first stop signal.

    While :attr:`raising`, during preparation, the handler raises :class:`StopRequested` so
    that a stop does not wait for a corpus to be tokenised. In training it only sets a flag:
    saving inside a handler could find any lock held and never finish.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self.raising = True
        self._interrupts = 0

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                os._exit(128 + signal.SIGINT)
        first = self.signal_number == 0
        if first:
            self.signal_number = number
        if first and self.raising:
            raise StopRequested(self.signal_name)

    @property
    def signal_name(self) -> str | None:
        return signal.Signals(self.signal_number).name if self.signal_number else None

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopFlag]:
        """Handle the stop signals inside this context; put the old handlers back after it.

        Outside of the main thread, where Python allows no handlers, nothing is installed.
        """
        try:
            previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        except ValueError:
            previous = {}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
