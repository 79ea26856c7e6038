from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
import torch

from minimind.distributed.world import World
from minimind.telemetry.environment import write_environment


def test_it_tells_what_a_run_ran_on(tmp_path: Path) -> None:
    file = tmp_path / "environment.json"
    world = World(rank=0, world_size=2, local_rank=0, device=torch.device("cpu"))
    for parameters in (1, 1234):
        write_environment(file, world, parameters=parameters)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["parameters"], found["ranks"]) == (1234, 2)
    assert found["torch"] == torch.__version__
    assert found["python"] == sys.version.split()[0]
    assert found["cores"] >= 1
    assert found["device"]
    assert [f.name for f in tmp_path.iterdir()] == ["environment.json"]


def test_a_run_does_without_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    world = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    write_environment(tmp_path / "environment.json", world)
    assert json.loads((tmp_path / "environment.json").read_text())["transformers"] is None
