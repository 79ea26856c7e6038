from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder


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


@pytest.fixture
def submitted(tmp_path: Path, make_spec: Callable[..., JobSpec]) -> RunFolder:
    """A run that Slurm has as job 5."""
    folder = RunFolder(tmp_path / "demo")
    folder.attempts.mkdir(parents=True)
    folder.write_spec(make_spec(save_dir=str(tmp_path / "out")))
    folder.append("submitted", job_id="5", cluster="slurm")
    return folder
