"""docs/quickstart.md, run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.docs.test_quickstart import PAGE, ROOT

BLOCK = re.compile(
    r"(?P<interrupt><!-- The test presses Ctrl-C.*? -->\n)?```bash\n(?P<commands>.*?)```", re.DOTALL
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the page uses of a clone; its environment is this one, which is set up already."""
    if not (Path(sys.prefix) / "bin" / "activate").exists():
        pytest.skip("this Python is in no virtual environment")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def run(commands: str, folder: Path, environment: dict[str, str], interrupt: bool) -> str:
    """What the commands say; Ctrl-C comes with the first line of the training, if at all."""
    process = subprocess.Popen(
        ["bash", "-ec", commands],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    pressed = False
    for line in process.stdout:
        said.append(line)
        if interrupt and not pressed and "Epoch:[" in line:
            os.killpg(process.pid, signal.SIGINT)
            pressed = True
    code = process.wait()
    assert code == (75 if interrupt else 0), "".join(said)
    return "".join(said)


@pytest.mark.timeout(900)  # five programs that load torch, on a busy machine
def test_the_page_runs(clone: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "VENV")}
    environment |= {
        "STEPS": "12",
        "PATH": f"{clone / '.venv' / 'bin'}:{environment['PATH']}",
        "MINIMIND_CACHE": str(clone / "cache"),
        "XDG_CONFIG_HOME": str(clone / "config"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    said = [
        run(block["commands"], clone, environment, bool(block["interrupt"]))
        for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))
    ]
    _, _, interrupted, resumed, written, exported, script = said
    assert "stopped by SIGINT" in interrupted
    step = re.findall(r"stopped by SIGINT at optimiser step (\d+)", interrupted)
    assert f"resumed at optimiser step {step[0]}," in resumed
    assert "done at optimiser step 12" in resumed
    assert "The function returns" in written
    assert "out/pretrain_128.pth: loss " in written
    assert "checked: logits differ by at most" in exported
    config = json.loads((clone / "exported" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert script.startswith("#!/bin/bash\n")
    assert not (clone / "runs").exists()
