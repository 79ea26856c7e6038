"""What counts as a GPU, with a little program in the place of nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.preflight import gpus

TWO = "GPU 0: NVIDIA H100 (UUID: GPU-1)\nGPU 1: NVIDIA H100 (UUID: GPU-2)\n"
DIVIDED = """GPU 0: NVIDIA A100 (UUID: GPU-1)
  MIG 3g.20gb     Device  0: (UUID: MIG-1)
  MIG 3g.20gb     Device  1: (UUID: MIG-2)
GPU 1: NVIDIA A100 (UUID: GPU-2)
"""

Smi = Callable[[str], None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Puts a shell script in the place of nvidia-smi."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return put


@pytest.mark.parametrize(("text", "count"), [(TWO, 2), (DIVIDED, 3), ("", 0), ("no\nMIG 1", 0)])
def test_a_gpu_counts_once_or_by_its_parts(smi: Smi, text: str, count: int) -> None:
    smi(f"cat <<'END'\n{text}END\n")
    assert gpus.visible() == (count, "")


def test_a_driver_that_complains_is_quoted(smi: Smi) -> None:
    smi('echo "GPU 0: NVIDIA H100"; echo "Unable to determine the device handle" >&2; exit 15')
    assert gpus.visible() == (1, "Unable to determine the device handle")
    smi("exit 9")
    assert gpus.visible() == (0, "nvidia-smi ended with status 9")


def test_a_driver_that_does_not_answer_is_not_waited_for(
    smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "SMI_SECONDS", 0.2)
    smi("exec sleep 60")
    with pytest.raises(TimeoutError, match="nvidia-smi does not answer"):
        gpus.visible()


def test_other_makers_devices_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found: dict[str, list[str]] = {}
    monkeypatch.setattr(gpus.glob, "glob", lambda pattern: found.get(pattern, []))
    assert gpus.visible() is None
    for name, number in (("cpu", "0"), ("gpu", "4711")):
        (tmp_path / name).write_text(f"{number}\n")
    found[gpus.AMD] = [str(tmp_path / name) for name in ("cpu", "gpu", "gone")]
    assert gpus.visible() == (1, "")
    found["/dev/davinci[0-9]*"] = ["/dev/davinci0", "/dev/davinci1"]
    assert gpus.visible() == (2, "")
