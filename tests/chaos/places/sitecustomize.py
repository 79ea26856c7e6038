"""Signals its own process while a named function runs, and lets its training crawl.

Python imports a module of this name at its start. An order, the file that ``CHAOS_ORDER`` names,
holds four words: the end of a source file's path, a function in it, at which sighting of that
function a signal is sent, and which. Of several processes with the same order only one strikes.
Orders may come at any time; those that lie beside the first are followed after it.

While another file beside it holds a number, each micro-batch waits for so many seconds before it
begins: a short training lasts until everything has been done to it, without computing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

ORDER = "CHAOS_ORDER"
LOOK_SECONDS = 0.001
"""Between two looks: some work takes a few milliseconds, and looking without a pause would slow it
down."""
WAIT_SECONDS = 0.02
"""Between two looks for an order."""
IN_TURN = ("", ".second", ".third")
"""What an order's name ends with, in the order in which they are followed."""
PACE_FILE = ".pace"
"""What the name of the file ends with that says how long a micro-batch waits."""


def runs(file: str, function: str) -> bool:
    """Whether any thread of this process is in the function just now."""
    for newest in sys._current_frames().values():
        frame = newest
        while frame is not None:
            if frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file):
                return True
            frame = frame.f_back
    return False


def give(order: Path, places: list[str]) -> list[Path]:
    """Let ranks follow these in turn, see above for the words of each; the orders' files."""
    files = [order.with_name(order.name + end) for end in IN_TURN[: len(places)]]
    fresh = order.with_name(order.name + ".new")
    # Each is whole at once, since it may be looked for just now.
    for file, words in zip(files, places, strict=True):
        fresh.write_text(words)
        os.replace(fresh, file)
    return files


def follow(order: str) -> bool:
    """Strike once, as ``order`` says, unless another process does; whether there is an order."""
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
                break
            time.sleep(LOOK_SECONDS)
        return True
    return False


def set_pace(order: Path, seconds: float) -> None:
    """Let each micro-batch of the ranks wait so long from now on."""
    fresh = order.with_name(f"{order.name}{PACE_FILE}.new")
    fresh.write_text(str(seconds))
    os.replace(fresh, order.with_name(order.name + PACE_FILE))


def keep_pace(order: str) -> None:
    """Let micro-batches wait, once the program has what records each before it begins.

    Nothing is proven by how long that is: it is set to 0 once everything has been done.
    """
    record: Any = None
    while record is None:
        time.sleep(WAIT_SECONDS)
        record = getattr(sys.modules.get("minimind.training.audit"), "RowRecord", None)
    write = record.write

    def write_and_wait(*args: Any, **fields: Any) -> None:
        write(*args, **fields)
        with contextlib.suppress(FileNotFoundError), open(order + PACE_FILE) as pace:
            time.sleep(float(pace.read()))

    record.write = write_and_wait


def follow_all(order: str) -> None:
    """Follow whatever orders come."""
    while True:
        if not any(follow(order + end) for end in IN_TURN):
            time.sleep(WAIT_SECONDS)


def begin() -> None:
    """Follow orders, and keep the pace, from now on, where this process is to."""
    if order := os.environ.get(ORDER, ""):
        # Or else the look comes late wherever Python works without a pause.
        sys.setswitchinterval(LOOK_SECONDS)
        for work in (follow_all, keep_pace):
            threading.Thread(target=work, args=(order,), daemon=True).start()


if __name__ == "sitecustomize":
    begin()
