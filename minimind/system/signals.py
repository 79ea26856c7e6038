"""Being asked to stop: who takes which signal, and the flag that one leaves.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from minimind.errors import EXIT_CANCELLED, EXIT_RUN_ME_AGAIN
from minimind.system.terminal import show

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


POLL_SECONDS = 0.5

OVER = b"\0"
"""Ends the thread that listens for signals, whose numbers begin at 1."""

LEAVE_SECONDS = 5.0
"""How long a process with nothing to save may take to heed a stop."""

LEAVE_SECONDS_AFTER_SAVE = 25.0
"""The same once the last checkpoint is on the disk: records are still closed then."""


class StopFlag:
    """Remembers the first stop signal.

    While :attr:`raising`, during preparation, the handler raises :class:`StopRequested` so
    that a stop does not wait for a corpus to be tokenised. In training it only sets a flag:
    saving inside a handler could find any lock held and never finish.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self.raising = True
        self.saved = threading.Event()
        """Set by a run that was asked to stop, when its last checkpoint is on the disk."""
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

    @contextlib.contextmanager
    def leaving_in_time(self) -> Iterator[None]:
        """End this process with 75 if it does not heed a stop while it has nothing to save.

        A handler runs between two instructions of Python's, and what it raises a library may
        swallow. A wait for other ranks, or for a compiler, can be one instruction of many minutes.
        So a thread listens, too: Python writes each signal to a descriptor the moment it comes.
        Ending like this is as safe as SIGKILL, which may come at any time.

        For programs only: it ends whatever else the process does. Outside of the main thread, where
        Python allows no handlers, nothing is watched.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        over = threading.Event()
        thread = threading.Thread(
            target=self._listen, args=(reader, over), name="stop", daemon=True
        )
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            over.set()
            # Its end alone would not be seen: a loader worker that lives on has the pipe open, too.
            os.write(writer, OVER)
            os.close(writer)
            thread.join()
            os.close(reader)

    def _listen(self, reader: int, over: threading.Event) -> None:
        numbers = heeded(STOP_SIGNALS)
        while (heard := os.read(reader, 1)) and heard != OVER:
            if heard[0] in numbers:
                name = signal.Signals(heard[0]).name
                break
        else:
            return
        if self.raising and not over.wait(LEAVE_SECONDS) and self.raising:
            show(sys.stderr, f"{name} before training began: nothing to save\n")
            os._exit(EXIT_RUN_ME_AGAIN)
        while not self.saved.wait(POLL_SECONDS):
            if over.is_set():
                return
        if not over.wait(LEAVE_SECONDS_AFTER_SAVE):
            show(sys.stderr, "the checkpoint is on the disk; what is left to do takes too long\n")
            os._exit(EXIT_RUN_ME_AGAIN)
