"""What this machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.spec.devices import MAKERS
from launcher.supervise.host import count_devices

AMD_SMI = "GPU: 0\n    BDF: 0000:c1:00.0\nGPU: 1\n    BDF: 0000:c2:00.0\n"


@pytest.mark.parametrize(
    "maker, programs, count",
    [
        ("nvidia", {"nvidia-smi": "GPU 0: NVIDIA A100\nGPU 1: NVIDIA A100\n"}, 2),
        ("nvidia", {"nvidia-smi": "No devices were found\n"}, 0),
        ("nvidia", {"amd-smi": AMD_SMI}, 0),
        ("amd", {"amd-smi": AMD_SMI}, 2),
        ("amd", {"rocm-smi": "GPU[0]\t: Device Name: x\nGPU[0]\t: Device ID: 0x1\n"}, 1),
        ("amd", {"amd-smi": "not ready\n", "rocm-smi": "GPU[0]\t: Device Name: x\n"}, 1),
        ("ascend", {"npu-smi": "\tNPU ID  Chip ID  Chip Logic ID  Name\n\t0  0  0  Ascend x\n"}, 1),
        ("ascend", {}, 0),
    ],
)
def test_devices_are_counted_by_their_makers_command(
    maker: str,
    programs: dict[str, str],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in programs.items():
        (tmp_path / f"{name}.txt").write_text(text)
        (tmp_path / name).write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/{name}.txt\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_devices(MAKERS[maker]) == count
