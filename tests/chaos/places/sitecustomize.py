"""Signals its own process while a named function runs.

Python imports a module of this name at its start. An order, the file that ``CHAOS_ORDER`` names,
holds four words: the end of a source file's path, a function in it, at which sighting of that
function a signal is sent, and which. Of several processes with the same order only one strikes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

ORDER = "CHAOS_ORDER"
LOOK_SECONDS = 0.001
"""Between two looks: some work takes a few milliseconds, and looking without a pause would slow it
down."""


def runs(file: str, function: str) -> bool:
    """Whether any thread of this process is in the function just now."""
    for newest in sys._current_frames().values():
        frame = newest
        while frame is not None:
            if frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file):
                return True
            frame = frame.f_back
    return False


def follow(order: str) -> None:
    """Strike once, as ``order`` says, unless another process has."""
    # Another process may take the order away at any moment.
    with contextlib.suppress(FileNotFoundError):
        with open(order) as words:
            file, function, count, number = words.read().split()
        left = int(count)
        while os.path.exists(order):
            left -= runs(file, function)
            if left <= 0:
                os.unlink(order)
                os.kill(os.getpid(), int(number))
                return
            time.sleep(LOOK_SECONDS)


def begin() -> None:
    """Follow an order where there is one."""
    order = os.environ.get(ORDER, "")
    if os.path.exists(order):
        threading.Thread(target=follow, args=(order,), daemon=True).start()


if __name__ == "sitecustomize":
    begin()
