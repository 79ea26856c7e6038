"""What a rank of ``doctor --nodes`` measures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from launcher.inspect import probe
from minimind.distributed import device


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_the_devices_are_those_of_any_kind_that_torch_can_use(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(device, "device_name", lambda of: f"card {of}")
    names = [f"card {kind}:0", f"card {kind}:1"]
    assert probe.torch_devices() == {"torch": torch.__version__, "gpus": names}


def test_a_torch_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert probe.torch_devices() == {"torch": torch.__version__, "gpus": []}


def test_without_torch_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(probe, "disk_speed", lambda folder: 1.0)
    monkeypatch.setattr(probe, "makers_here", lambda: ["amd"])
    found = probe.probe(tmp_path, cpu=False)
    assert (found["torch"], found["gpus"], found["makers"]) == (None, [], ["amd"])
    assert "world_size" not in found


@pytest.mark.parametrize(
    "cpu, asked, backend", [(True, "cpu", "gloo"), (False, "", "cpu:gloo,npu:hccl")]
)
def test_the_exchange_is_that_of_the_device_that_training_takes(
    monkeypatch: pytest.MonkeyPatch, cpu: bool, asked: str, backend: str
) -> None:
    """One rank of two, whose partner's share the exchange has added already."""
    taken: list[object] = []

    def pick(wanted: str, local_rank: int, distributed: bool) -> torch.device:
        taken.append((wanted, local_rank, distributed))
        return torch.device("cpu")

    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(device, "pick_device", pick)
    monkeypatch.setattr(device, "process_group_backend", lambda of: backend)
    monkeypatch.setattr(device, "use_device", taken.append)
    monkeypatch.setattr(device, "synchronize", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda by, **_: taken.append(by))
    for name in ("all_reduce", "barrier", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_: None)
    found = probe.all_reduce(cpu=cpu)
    here = torch.device("cpu")
    assert taken == [(asked, 1, True), here, backend, here]
    assert (found["backend"], found["all_reduce_right"]) == (backend.rpartition(":")[2], True)
