from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from minimind.system import timeout
from minimind.system.timeout import leave_in_time, run_with_timeout


def test_what_work_returns_or_raises() -> None:
    assert run_with_timeout(lambda: 3, 60.0) == 3
    assert run_with_timeout(lambda: 3, None) == 3
    with pytest.raises(ZeroDivisionError):
        run_with_timeout(lambda: 1 // 0, 60.0)


def test_an_exit_of_the_work_is_not_ours() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        run_with_timeout(leave, 60.0)


def test_what_takes_too_long_is_left() -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError):
        run_with_timeout(release.wait, 0.0)
    release.set()


LEFT = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from minimind.system import timeout

timeout.EXIT_LIMIT_SECONDS = 0.0
begun, pool = threading.Event(), ThreadPoolExecutor()

def work():
    # Python waits for the threads of an executor before it ends.
    pool.submit(threading.Event().wait)
    begun.set()
    threading.Event().wait()

try:
    timeout.run_with_timeout(work, 0.01)
except TimeoutError:
    begun.wait()
    print("left")
sys.exit(timeout.leave_in_time(75))
"""


def test_what_is_left_does_not_hold_up_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (75, "left\n", "")


def test_without_any_the_process_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeout, "_left", [])
    before = threading.active_count()
    assert leave_in_time(3) == 3
    assert threading.active_count() == before
