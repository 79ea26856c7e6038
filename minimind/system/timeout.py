"""Work that nobody waits for longer than it is worth. Standard library only."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_left: list[threading.Thread] = []
"""Threads of work that nobody waits for any more."""
EXIT_LIMIT_SECONDS = 5.0
"""How long work that was left may hold up the end of its process."""


def run_with_timeout(work: Callable[[], T], seconds: float | None) -> T:
    """Run ``work`` on a daemon thread and wait for it, at most ``seconds`` (None: for ever).

    Raises:
        TimeoutError: it takes longer, and goes on in the background until the process ends.
        Exception: what ``work`` raised.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="timeout", daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    if not errors:
        _left.append(thread)
        raise TimeoutError
    error = errors[0]
    raise error if isinstance(error, Exception) else RuntimeError(repr(error))


def leave_in_time(code: int) -> int:
    """Let this process end soon, with ``code``, whatever work that was left does at its end.

    Python waits at its end for the threads of every executor, and calls what libraries ask for:
    an upload that nobody waits for any more would be waited for there. For programs only.

    Returns:
        ``code``, which the program is to end with.
    """
    if any(thread.is_alive() for thread in _left):
        threading.Thread(target=_end, args=(code,), daemon=True).start()
    return code


def _end(code: int) -> None:
    time.sleep(EXIT_LIMIT_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
