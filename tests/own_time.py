"""A module's own clock, which a test sets: the real ``time`` is everybody's, subprocess's too."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest


def sleeps_by(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, sleep: Callable[[float], object]
) -> None:
    """Lets ``module``, and no one else, wait by calling ``sleep``."""
    own = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(module, "time", own)
