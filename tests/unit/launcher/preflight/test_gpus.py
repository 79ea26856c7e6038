"""What counts as a GPU, with a little program in the place of nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.preflight import gpus
from launcher.preflight.gpus import Shown
from launcher.spec.devices import MAKERS

TWO = "GPU 0: NVIDIA H100 (UUID: GPU-1)\nGPU 1: NVIDIA H100 (UUID: GPU-2)\n"
DIVIDED = """GPU 0: NVIDIA A100 (UUID: GPU-1)
  MIG 3g.20gb     Device  0: (UUID: MIG-1)
  MIG 3g.20gb     Device  1: (UUID: MIG-2)
GPU 1: NVIDIA A100 (UUID: GPU-2)
"""


def visible(maker: str = "nvidia") -> Shown | None:
    devices = MAKERS[maker]
    return gpus.visible(devices.list_commands, devices.listed)


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


@pytest.mark.parametrize(("text", "parts"), [(TWO, 2), (DIVIDED, 3)])
def test_a_gpu_counts_once_or_by_its_parts(smi: Smi, text: str, parts: int) -> None:
    smi(f"cat <<'END'\n{text}END\n")
    assert visible() == Shown(2, parts)


def test_a_driver_that_complains_is_quoted(smi: Smi) -> None:
    smi('echo "GPU 0: NVIDIA H100"; echo "Unable to determine the device handle" >&2; exit 15')
    assert visible() == Shown(1, 1, "Unable to determine the device handle")
    smi("exit 9")
    assert visible() == Shown(0, 0, "nvidia-smi -L ended with status 9")


def test_a_driver_that_does_not_answer_is_not_waited_for(
    smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "LIST_SECONDS", 0.2)
    smi("exec sleep 60")
    with pytest.raises(TimeoutError, match="nvidia-smi does not answer"):
        visible()


def test_what_nobody_can_read_is_unknown(smi: Smi) -> None:
    """Another version's words must not end a run."""
    smi("echo '<gpu id=0/>'")
    assert visible() is None


def test_other_makers_commands_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert visible("amd") is None
    for name, said in (("rocm-smi", "GPU[0] : a\nGPU[0] : b\nGPU[1] : a"), ("npu-smi", "0 0 5 x")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    assert visible("amd") == Shown(2, 2)
    assert visible("ascend") == Shown(1, 1)
    # The newer command is there, and broken; the older one is not.
    (tmp_path / "amd-smi").write_text("#!/bin/sh\necho 'no driver'; exit 1\n")
    (tmp_path / "amd-smi").chmod(0o755)
    assert visible("amd") == Shown(2, 2)
    (tmp_path / "rocm-smi").unlink()
    assert visible("amd") == Shown(0, 0, "no driver")
