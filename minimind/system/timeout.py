"""Work that nobody waits for longer than it is worth. Standard library only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
        raise TimeoutError
    error = errors[0]
    raise error if isinstance(error, Exception) else RuntimeError(repr(error))
