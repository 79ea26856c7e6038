"""Being asked to stop: who takes which signal, and the flag that one leaves.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any

from minimind.errors import EXIT_CANCELLED

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
"""What a training answers by saving and stopping. Take them through :func:`heeded`."""

STACKS_SIGNAL = signal.SIGQUIT
"""What a rank answers by printing the stacks of its threads."""

FORWARDED = (*STOP_SIGNALS, STACKS_SIGNAL)
"""What goes on to the ranks from whoever started them."""

IGNORED_BY_WORKERS = STOP_SIGNALS
"""What worker processes leave to their parent, which ends them itself."""

IGNORED_BY_BATCH_SHELL = (
    signal.SIGTERM,
    signal.SIGCONT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGINT,
)
"""What must not end a job's batch shell: the ranks' last save comes first.

Not SIGHUP, which comes from a terminal: a batch shell has none, and a shell that ignored it would
have its ranks ignore it too.
"""


def heeded(numbers: Iterable[int]) -> list[int]:
    """Those of ``numbers`` that this process may handle.

    ``nohup`` starts a program with SIGHUP ignored: it is to outlive the terminal, and so are the
    processes that it starts. An ignored SIGINT means less: a shell lets everything that it starts
    in the background ignore Ctrl-C, and a batch script its own stop signals.
    """
    is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in numbers if number != signal.SIGHUP or not is_nohup]


def ignore(numbers: Iterable[int]) -> None:
    """Let signals do nothing to this process."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


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
                os._exit(EXIT_CANCELLED)
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
            previous = {n: signal.signal(n, self._handle) for n in heeded(STOP_SIGNALS)}
        except ValueError:
            previous = {}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
