from __future__ import annotations

import threading

import pytest

from minimind.system.timeout import run_with_timeout


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
