from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from launcher.spec import JobSpec


@pytest.fixture
def make_spec() -> Callable[..., JobSpec]:
    """A spec with paths that are the same on every machine."""

    def make(**changes: Any) -> JobSpec:
        values: dict[str, Any] = {
            "name": "demo",
            "run_dir": "/shared/runs/demo",
            "workdir": "/home/me/project",
            "train_args": ("--epochs", "1"),
            "nodes": 2,
            "gpus": 8,
            "save_dir": "/shared/runs/demo/out",
            "python": "/opt/venv/bin/python",
            "host_python": "/opt/venv/bin/python",
        }
        return JobSpec(**{**values, **changes})

    return make
